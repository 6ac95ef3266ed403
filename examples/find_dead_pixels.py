# %% [markdown]
# Which pixels does a network hardly use? The dead-pixel map is the mean over images of how strongly each
# pixel moves the output. One would expect it to be smooth. It shows the network's strides.

# %%
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from erfattr import (
    DeadPixelMap,
    ImageLoader,
    corrected_imbalance,
    dead_pixels,
    demo_model,
    estimate_phase_profile,
    phase_profile,
    sample_images,
    strong_pixels,
)
from erfattr.report.map_plots import plot_map
from erfattr.report.pixel_plots import plot_zoom
from erfattr.report.profile_plots import plot_phase_profile

# %% [markdown]
# One pixel is known well from many images only. So the 64 embedded crops of eight photographs are cut into
# 1,024 pieces of 112 pixels. Piece k is of photograph k modulo 8, so with eight groups each group is one
# photograph, and the standard errors below are those between photographs. Take independent images if you can.

# %%
model = demo_model()
pieces = sample_images(64, size=448).unfold(2, 112, 112).unfold(3, 112, 112)
images = pieces.permute(2, 3, 0, 1, 4, 5).reshape(-1, 3, 112, 112)
D, statistics = DeadPixelMap(model).attribute(ImageLoader(images, 16), return_statistics=True, groups=8)

# %% [markdown]
# How unequal are neighbours? The index of a map holds its noise too; the corrected one does not, and has a
# standard error. The phase profile folds the map modulo 32, the stride: what repeats is the network's.

# %%
imbalance = corrected_imbalance(statistics)
phase = estimate_phase_profile(statistics, period=32)
print(f"imbalance: {imbalance}")
print(f"phase contrast {phase.corrected_contrast:.3f} +- {phase.contrast_standard_error:.3f}")

# %% [markdown]
# Two masks. `strong_pixels` is a rank: exactly a tenth. `dead_pixels` is a test: it marks what is below 80 %
# of the period around it, at most 5 % by chance; many at the lower and right border, where few kernels reach.

# %%
strong = strong_pixels(D, fraction=0.1)
dead = dead_pixels(statistics, ratio=0.8, neighborhood=33)
print(f"{100 * dead.double().mean():.1f} % of the pixels are below 80 % of their neighbourhood")

# %% [markdown]
# If the pattern belongs to the network, four photographs must show what four others show. If it belonged to
# the images, the correlation would be about zero.

# %%
halves = [phase_profile(part.mean(0), period=32) for part in statistics.group_means.split(4)]
agreement = np.corrcoef(*(half.flatten() for half in halves))[0, 1]

# %%
figure, axes = plt.subplots(2, 2, figsize=(10, 8.5), layout="constrained")
plot_zoom(D, (56, 56), 64, axes[0, 0], title="dead-pixel map, the middle 64 x 64 pixels")
plot_phase_profile(phase.profile, axes[0, 1])
plot_map(1 + strong.double() - dead.double(), axes[1, 0], relative=False, limits=(0, 2), colorbar=False)
axes[1, 0].set_title("bright: strongest 10 %, black: dead beyond the noise")
axes[1, 1].plot(*(half.flatten() for half in halves), ".", markersize=4)
axes[1, 1].set(xlabel="phase profile, photographs 1 to 4", ylabel="photographs 5 to 8")
axes[1, 1].set_title(f"each point a phase, correlation {agreement:.2f}")
plt.show()

# %% [markdown]
# More than half of the variance over phases is common to both.

# %%
assert imbalance.value > 5 * imbalance.standard_error, imbalance
assert agreement**2 > 0.5, agreement
