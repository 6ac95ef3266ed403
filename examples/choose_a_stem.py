"""
Choose a stem before I train
============================

The first strided layers make most of a network's grid. Ask what each stem would do. The forecast needs no
images and no training, and takes seconds.
"""

import matplotlib.pyplot as plt
from torch import nn

from erfattr import demo_model, forecast_map, grid_sources, phase_contrast, phase_profile

sources = grid_sources(demo_model(weights=False), "layer4", weights="expected", input_size=96)
for source in sources.sources[:3]:
    print(f"{source.layer}: {source.share:.0%} of the grid goes with it")

# %%
# Try other stems. Each keeps the stride of 4.

stems = {
    "7x7, pool 3x3 (ResNet)": (nn.Conv2d(3, 16, 7, 2, 3), nn.MaxPool2d(3, 2, 1)),
    "8x8, pool 3x3": (nn.Conv2d(3, 16, 8, 2, 3), nn.MaxPool2d(3, 2, 1)),
    "8x8, pool 2x2": (nn.Conv2d(3, 16, 8, 2, 3), nn.MaxPool2d(2)),
    "7x7 with stride 4": (nn.Conv2d(3, 16, 7, 4, 3), nn.Identity()),
    "4x4 patches": (nn.Conv2d(3, 16, 4, 4), nn.Identity()),
}
contrast = {}
for name, (convolution, pool) in stems.items():
    model = demo_model(weights=False)
    model.conv1, model.maxpool = convolution, pool
    forecast = forecast_map(model, "layer4", weights="expected")
    contrast[name] = phase_contrast(phase_profile(forecast, period=32))
    print(f"{name}: contrast {contrast[name]:.3f}")

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.barh(list(contrast), list(contrast.values()))
ax.invert_yaxis()
ax.set_xlabel("contrast of the grid, forecast")
assert contrast["8x8, pool 3x3"] < contrast["7x7, pool 3x3 (ResNet)"] / 2
