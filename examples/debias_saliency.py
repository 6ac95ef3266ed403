# %% [markdown]
# The saliency map of a network with strides shows its strides: a grid that is the same for every image.
# What is the same for every image can be measured on other images, and divided out.

# %%
from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import torch
from captum.attr import Saliency

from erfattr import DebiasedAttribution, demo_model, phase_contrast, phase_profile, sample_images
from erfattr.report.pixel_plots import plot_zoom
from erfattr.report.profile_plots import plot_phase_profile

warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
model, images = demo_model(), sample_images(48)
measured, shown = images[:32], images[32:]  # other crops of the same photographs: independent ones are better

# %% [markdown]
# `calibrate` averages the absolute attributions of this very method. In phase mode, the default, only the
# part of the map that repeats with the network's total stride (32 pixels, read from the model) is divided
# out: it is known from all periods of the map together, and so from few images.

# %%
saliency = Saliency(model)
debiased = DebiasedAttribution.calibrate(saliency, measured.split(8))

# %% [markdown]
# From here on it is used as the method itself would be.

# %%
with torch.no_grad():
    target = model(shown).argmax(1)
raw = saliency.attribute(shown, target=target).mean(1)
clean = debiased.attribute(shown, target=target).mean(1)

# %% [markdown]
# One image, pixel by pixel, and the grid in the mean over all of them.

# %%
figure, axes = plt.subplots(2, 2, figsize=(10, 8.5), layout="constrained")
for (zoom, grid), maps, name in zip(axes, (raw, clean), ("raw", "debiased"), strict=True):
    plot_zoom(maps[1], (112, 112), 64, zoom, title=f"saliency of one image, {name}")
    profile = phase_profile(maps.mean(0), period=32)
    plot_phase_profile(profile, grid, title=f"{name}: contrast {phase_contrast(profile):.3f}")
plt.show()

# %% [markdown]
# What is left is mostly the noise of two means over 32 and 16 images.

# %%
before, after = (phase_contrast(phase_profile(maps.mean(0), period=32)) for maps in (raw, clean))
assert after < before / 2, (before, after)
