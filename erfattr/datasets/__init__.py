"""Images to run on: folders of image files, embedded photographs, augmented images, micro-objects.

Nothing here knows a network. What a training run reads, split and prepared, lives in `erfattr.training`.
"""
