"""
Is the grid in my saliency map real, and how do I get rid of it?
================================================================

The grid belongs to the network, not to the image: measure it on other images, and divide it out.
"""

import matplotlib.pyplot as plt
from captum.attr import Saliency

from erfattr import DebiasedAttribution, demo_model, grid_contrast, sample_images
from erfattr.report.pixel_plots import plot_zoom
from erfattr.report.profile_plots import profile_limits

model, images = demo_model(), sample_images(48)
measured, shown = images[:32], images[32:].requires_grad_()
target = model(shown).argmax(1)

# %%
# `calibrate` measures the grid of this very method. From then on use it as the method itself.

saliency = Saliency(model)
debiased = DebiasedAttribution.calibrate(saliency, measured.split(8))
raw = saliency.attribute(shown, target=target).mean(1)
clean = debiased.attribute(shown, target=target).mean(1)

# %%
# Is it real? Compare the contrast of the grid with what noise alone would give.

before, after = (grid_contrast(maps.mean(0), period=32) for maps in (raw, clean))
figure, axes = plt.subplots(2, 2, figsize=(10, 8.5), layout="constrained")
limits = profile_limits([before.profile, after.profile])  # one scale for both
shown_as = {"raw": (raw, before), "debiased": (clean, after)}
for (zoom, grid), (name, (maps, found)) in zip(axes, shown_as.items(), strict=True):
    print(f"{name}: {found}")
    plot_zoom(maps[1], (112, 112), 64, zoom, title=f"saliency of one image, {name}")
    found.plot(grid, limits=limits, title=f"mean of 16 images, {name}: contrast {found.contrast:.2f}")

assert before.is_told
assert after.contrast < before.contrast / 2
