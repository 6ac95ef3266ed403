"""Attributions with Captum's API: `ERF`, `DeadPixelMap`, `SensitivityMaps`, `DebiasedAttribution`.

They turn a network and images into maps. Numbers about maps live in `erfattr.metrics`, figures and files in
`erfattr.report`; nothing here prints or touches files, but for saved calibrations.
"""
