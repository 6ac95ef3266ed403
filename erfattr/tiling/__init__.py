"""Large images in tiles: how much overlap a network needs, where tiles may begin, and what is left of seams.

It stands on the receptive fields, theoretical and effective; what reads image files is `erfattr.datasets`.
"""
