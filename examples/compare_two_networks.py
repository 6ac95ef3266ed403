"""
Compare two architectures
=========================

Gradients of two networks have different scales, and a map over few images is mostly noise, which looks like
imbalance. A fair comparison divides by the mean, takes the noise out, and states an error.
"""

import matplotlib.pyplot as plt

from erfattr import DeadPixelMap, blur_downsampling, compare_imbalance, demo_model, sample_images
from erfattr.report.map_plots import plot_map_row

networks = {"original": demo_model(), "BlurPool": blur_downsampling(demo_model())}
images = sample_images(size=128)
maps = {}
for name, network in networks.items():
    _, maps[name] = DeadPixelMap(network).attribute(images.split(16), "mean", return_statistics=True)

# %%
# The same images in the same order: part of the noise is common to both maps, and `paired=True` uses that.

fair = compare_imbalance(maps["BlurPool"], maps["original"], paired=True)
print(f"BlurPool against the original: {fair.sentence}")

# %%
# The trap: over 12 images only, the plain index of BlurPool is the larger one. The corrected one is not.

_, few = DeadPixelMap(networks["BlurPool"]).attribute(images[:12], "mean", return_statistics=True)
hasty = compare_imbalance(few, maps["original"])
print(f"plain, 12 images against 64: {hasty.first.uncorrected:.2f} and {hasty.second.uncorrected:.2f}")
print(f"corrected: {hasty.sentence}")

figure = plt.figure(figsize=(14, 4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(2, 1))
plot_map_row(list(maps.values()), left.subplots(1, 2), list(maps), shared_scale=True)
fair.plot(right.subplots()).set(xticks=(0, 1), xticklabels=("BlurPool", "original"), title="imbalance L1")

assert fair.difference < -2 * fair.standard_error, fair.sentence
assert hasty.first.uncorrected > hasty.second.uncorrected
