"""Networks by name: torchvision, timm, one's own factory, the demo network that ships with the package.

Checkpoints, weights and heads are here. Changed copies live in `erfattr.remedies`, how a network is run in
`erfattr.execution`.
"""
