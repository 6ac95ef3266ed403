"""Training runs by recipe (extra ``train``): tasks, data, runs that resume, comparisons.

Only `_fitting` and `dead_pixel_monitor` import Lightning. What changes networks lives in `erfattr.remedies`.
"""
