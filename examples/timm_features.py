"""
timm: every stage of a network
==============================

A network made with `features_only=True` gives one map a stage. `select` takes one of them. Needs
`pip install timm`.
"""

import matplotlib.pyplot as plt
import timm
import torch

from erfattr import ERF, sample_images

torch.manual_seed(0)
model = timm.create_model("resnet18", features_only=True, pretrained=False)
strides = model.feature_info.reduction()
maps = [
    ERF(model, model, select=index).attribute(sample_images(24, 96), return_statistics=True)[1]
    for index in range(len(strides))
]
figure, axes = plt.subplots(1, len(strides), figsize=(16, 3), layout="constrained")
for ax, stride, found in zip(axes, strides, maps, strict=True):
    print(f"stride {stride}: unit {found.source.unit} of a {found.source.feature_size} map")
    found.plot(ax, title=f"stride {stride}", colorbar=False)
assert [96 // found.source.feature_size[0] for found in maps] == strides
