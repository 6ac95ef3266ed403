"""
Tiles of a large image: how much must they overlap?
===================================================

The operators of the network say it exactly: how wide a halo a tile needs, and at which pixels it may begin.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from erfattr import sample_images, stitch, suggest_tiling

torch.manual_seed(0)
model = nn.Sequential(  # a U-Net without its skips
    nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 2, 4, stride=4),
).eval()  # fmt: skip
image = sample_images(1, size=448)
tiling = suggest_tiling(model, 448)
print(f"halo {tiling.halo}, tiles begin at multiples of {tiling.alignment}, exact: {tiling.exact}")

# %%
# `stitch` runs the network tile by tile. Half the halo leaves seams.

with torch.no_grad():
    whole = model(image)
too_small = tiling.with_halo((4, 4))
seams = {"halo": tiling, "half": too_small}
seams = {name: (stitch(model, image, plan, 96) - whole).abs().amax((0, 1)) for name, plan in seams.items()}
print({name: f"{error.max() / whole.abs().max():.1e}" for name, error in seams.items()})

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
tiling.plot(left)
picture = right.imshow(seams["half"], cmap="magma")
right.set_title(f"error with a halo of {too_small.halo[0]} pixels")
figure.colorbar(picture)

assert seams["halo"].max() < 1e-5 < seams["half"].max()
