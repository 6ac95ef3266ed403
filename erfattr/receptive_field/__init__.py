"""Theoretical receptive fields: which input pixels a unit can depend on at all, whatever the weights.

The answer is read from the operators of one pass without data, or measured with NaN. How strongly a pixel
counts is the effective receptive field, which lives in `erfattr.attr`.
"""
