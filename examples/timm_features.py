# %% [markdown]
# A network of timm made with `features_only=True` gives one map a stage: `select` takes one of them.
# Needs `pip install timm`.

# %%
from __future__ import annotations

import timm
import torch

from erfattr import ERF, sample_images

torch.manual_seed(0)
model = timm.create_model("resnet18", features_only=True, pretrained=False)
strides = model.feature_info.reduction()
statistics = [
    ERF(model, model, select=index).attribute(sample_images(4, 96), return_statistics=True)[1]
    for index in range(len(strides))
]
for stride, found in zip(strides, statistics, strict=True):
    print(f"stride {stride}: unit {found.source.unit} of a {found.source.feature_size} map")
assert [96 // found.source.feature_size[0] for found in statistics] == strides
