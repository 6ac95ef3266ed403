"""What a network's architecture and weights say of its sensitivity maps before an image is read.

Here live the forecast of a map, which layers make its grid, and what each remedy would change. Measured maps
live in `erfattr.attr`, the remedies themselves in `erfattr.remedies`.
"""
