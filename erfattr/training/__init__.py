"""Training runs by recipe (extra ``train``): data, runs that resume, comparisons.

Only `_fitting` imports Lightning, when a run begins. The changes themselves live in `erfattr.remedies`.
"""
