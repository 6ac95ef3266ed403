"""
My network detects objects
==========================

A detector returns a list of boxes, and the number of boxes jumps: there is nothing to differentiate. Map the
layers that the boxes are read from instead: the backbone and its feature pyramid.
"""

import matplotlib.pyplot as plt
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

from erfattr import ERF, receptive_fields, sample_images

torch.manual_seed(0)
detector = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None).eval()
backbone = detector.backbone  # takes a batch (N, C, H, W), returns a dict of feature maps
images = sample_images(16, size=160)
print({name: tuple(level.shape) for name, level in backbone(images[:1]).items()})

# %%
# `select=` takes one entry of the dict. Squeeze-and-excitation lets every later layer see the whole image.

fields = receptive_fields(backbone, 160)
print({name: fields[name].status for name in ("body.0", "body.3", "fpn.layer_blocks.0")})
found = {}
for level in ("0", "pool"):
    unit = ERF(backbone, backbone, select=level)
    _, found[level] = unit.attribute(images, return_statistics=True)

figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
for ax, (level, statistics) in zip(axes, found.items(), strict=True):
    statistics.plot(ax, title=f"level {level!r} of the pyramid")

assert [statistics.source.feature_size for statistics in found.values()] == [(5, 5), (3, 3)]
