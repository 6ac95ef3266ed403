"""Changed copies of networks against the grid: kernel padding, BlurPool, ResNet-D's average shortcuts.

Each remedy returns a copy and the record of what was changed. Training the copies and comparing them with the
original lives in `erfattr.training`.
"""
