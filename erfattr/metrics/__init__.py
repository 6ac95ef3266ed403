"""Numbers about maps: streaming statistics, imbalance with and without noise, significance, fits, sizes.

Everything here takes a map, or the statistics of one, as tensors. What makes a map lives in `erfattr.attr`;
what draws and writes it in `erfattr.report`.
"""
