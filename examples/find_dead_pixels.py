"""
Which pixels does my network hardly use?
========================================

The dead-pixel map is the mean, over images, of how strongly each pixel moves the output. You would expect a
smooth map. You see the network's strides.
"""

import matplotlib.pyplot as plt
import numpy as np

from erfattr import DeadPixelMap, corrected_imbalance, demo_model, estimate_phase_profile, sample_images
from erfattr.metrics.imbalance import phase_profile
from erfattr.report.pixel_plots import plot_zoom

model = demo_model()
quarters = sample_images(64, size=224).unfold(2, 112, 112).unfold(3, 112, 112)
images = quarters.permute(2, 3, 0, 1, 4, 5).reshape(-1, 3, 112, 112)  # image k is of photograph k modulo 8
D, statistics = DeadPixelMap(model).attribute(images.split(16), return_statistics=True, groups=8)

# %%
# Two numbers, both without the noise of few images: how unequal neighbours are, and how strong the grid is.

imbalance, grid = corrected_imbalance(statistics), estimate_phase_profile(statistics, period=32)
print(f"imbalance: {imbalance}")
print(f"contrast of the grid: {grid.corrected_contrast:.3f} +- {grid.contrast_standard_error:.3f}")

# %%
# Is it the network or the photographs? Four photographs have to show what four others show.

halves = [phase_profile(part.mean(0), period=32).flatten() for part in statistics.group_means.split(4)]
agreement = np.corrcoef(*halves)[0, 1]
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
plot_zoom(D, (56, 56), 64, left, title="the middle 64 x 64 pixels")
grid.plot(middle, title="what repeats every 32 pixels")
right.plot(*halves, ".", markersize=4)
right.set(xlabel="photographs 1 to 4", ylabel="photographs 5 to 8", title=f"correlation {agreement:.2f}")

assert imbalance.value > 5 * imbalance.standard_error
assert agreement > 0.5
