# %% [markdown]
# Which of two networks uses its pixels more equally? Gradients of two networks have different scales, and a
# map over few images is mostly noise, which looks like imbalance. A fair comparison divides each map by its
# mean, takes the noise out, and has a standard error. On the command line it is `erfattr map --against`.

# %%
from __future__ import annotations

import matplotlib.pyplot as plt

from erfattr import DeadPixelMap, blur_downsampling, compare_imbalance, demo_model, sample_images
from erfattr.report.map_plots import plot_map_row

# %% [markdown]
# The demo network against itself with BlurPool: each step of 2 is taken after a blur, which reads even and
# odd rows alike. The weights are still those of the original, so train it before you use it to classify. The
# mean of all outputs is mapped: as long as it is not trained, its predicted class says little.

# %%
networks = {"original": demo_model(), "BlurPool": blur_downsampling(demo_model())}
images = sample_images(size=128)
statistics = {}
for name, network in networks.items():
    _, statistics[name] = DeadPixelMap(network).attribute(images.split(16), "mean", return_statistics=True)

# %% [markdown]
# Both maps were made from the same images in the same order, so part of their noise is common. `paired=True`
# uses that. Order 1 compares neighbours, order 2 second differences.

# %%
pair = statistics["BlurPool"], statistics["original"]
comparison, second = (compare_imbalance(*pair, order=order, paired=True) for order in (1, 2))
print(f"L1 of BlurPool against the original, without the noise: {comparison.sentence}")
print(f"L2: {second.sentence}")

# %% [markdown]
# And the trap: had BlurPool been mapped over 12 images only, its index as it is would be the larger one. The
# corrected indices still agree with the long run, with a larger error.

# %%
_, few = DeadPixelMap(networks["BlurPool"]).attribute(images[:12], "mean", return_statistics=True)
hasty = compare_imbalance(few, statistics["original"])
print(f"as it is, over 12 images: {hasty.first.uncorrected:.2f} against {hasty.second.uncorrected:.2f}")
print(f"without the noise, over 12 images: {hasty.sentence}")

# %%
figure = plt.figure(figsize=(14, 4.2), layout="constrained")
maps, bars = figure.subfigures(1, 2, width_ratios=(2, 1))
plot_map_row(list(statistics.values()), maps.subplots(1, 2), list(networks), shared_scale=True)
ax = bars.subplots()
estimates = {
    "original,\n64 images": comparison.second,
    "BlurPool,\n64 images": comparison.first,
    "BlurPool,\n12 images": hasty.first,
}
as_it_is = [index.uncorrected for index in estimates.values()]
ax.bar(list(estimates), as_it_is, color="0.8", label="as it is")
values, errors = zip(*((index.value, index.standard_error) for index in estimates.values()), strict=True)
ax.errorbar(list(estimates), values, errors, fmt="o", capsize=5, label="without the noise")
ax.set(ylabel="imbalance L1", ylim=(0, 1.3 * max(as_it_is)))
ax.legend()
plt.show()

# %% [markdown]
# BlurPool is the more equal one. Judged by the indices as they are, the 12 images would say the opposite.

# %%
assert comparison.difference < -2 * comparison.standard_error, comparison.sentence
assert hasty.difference < -2 * hasty.standard_error, hasty.sentence
assert hasty.first.uncorrected > hasty.second.uncorrected
