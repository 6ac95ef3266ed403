"""Training runs by recipe (extra ``train``): tasks, data, runs that resume, comparisons.

Only `_fitting` imports Lightning and `_accuracy` torchmetrics, when a run begins. The changes of networks
themselves live in `erfattr.remedies`.
"""
