"""Training runs by recipe (extra ``train``): tasks, data, runs that resume, comparisons.

Only ``_fitting`` and `dead_pixel_monitor` import Lightning. Changes of networks live in `erfattr.remedies`.
"""
