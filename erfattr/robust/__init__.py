"""Pixel attacks, Captum perturbations that change few pixels: anywhere, where a map is strong, by gradient.

They take a map as a tensor, from wherever it came. What an attack gave is drawn and written by
`erfattr.report`.
"""
