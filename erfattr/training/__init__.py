"""Training runs by recipe (extra ``train``): tasks, data, runs that resume, comparisons.

Only `_fitting` and `dead_pixel_monitor` import Lightning, and `_accuracy` torchmetrics. The changes of networks
themselves live in `erfattr.remedies`.
"""
