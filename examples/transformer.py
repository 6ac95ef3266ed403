"""
My network is a transformer
===========================

Tokens are no picture. erfattr follows rows and columns through the network, so you give the layer's name and
nothing else. It prints what it found.
"""

import matplotlib.pyplot as plt
import torch
from torchvision.models import SwinTransformer, VisionTransformer

from erfattr import ERF, sample_images

torch.manual_seed(0)
images = sample_images(16, size=64)
vit = VisionTransformer(64, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
swin = SwinTransformer([4, 4], 24, [2, 2], [2, 4], window_size=[4, 4])
wanted = {
    "ViT, first block": ERF(vit, "encoder.layers.encoder_layer_0"),
    "Swin, first stage": ERF(swin, "features.1"),
    "Swin, second stage": ERF(swin, "features.3"),
}

# %%
# The networks are small and untrained. With trained weights the maps are other ones, the code is the same.

figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
found = {}
for ax, (name, attribution) in zip(axes, wanted.items(), strict=True):
    _, found[name] = attribution.attribute(images, return_statistics=True)
    print(f"{name}: {found[name].source.layout}")
    found[name].plot(ax, title=name)

# %%
# A layer whose rows and columns nobody knows is refused, never guessed.

grids = [statistics.source.feature_size for statistics in found.values()]
assert grids == [(8, 8), (16, 16), (8, 8)], grids
