# %% [markdown]
# How far does one unit of a network look? Its theoretical receptive field (TRF) is every pixel that can reach
# it. Its effective receptive field (ERF) is how strongly each pixel moves it, measured over images. The
# effective one is a bell that is much smaller.

# %%
from __future__ import annotations

import matplotlib.pyplot as plt

from erfattr import ERF, demo_model, fit_gaussian, sample_images, theoretical_receptive_field
from erfattr.report.map_plots import plot_map
from erfattr.report.profile_plots import plot_gaussian_fit

model, images = demo_model(), sample_images()
batches = images.split(8)  # your DataLoader; the size of the batches does not change the map
middle = (images.shape[-1] - 1) / 2  # pixel centres are integers, so the image centre is 111.5

# %% [markdown]
# `layer3` has 14 x 14 units. Without `unit=` the middle one is taken, (7, 7). The statistics say which one
# that is and on which pixel the strides and paddings before it put it.

# %%
R, statistics = ERF(model, layer="layer3").attribute(batches, return_statistics=True)
unit = statistics.source
field = theoretical_receptive_field(model, "layer3", input_size=images.shape[-2:])
fit = fit_gaussian(R)
error = fit.standard_errors.sigma_x
print(f"{unit.layer}, unit {unit.unit} of {unit.feature_size}, centred on pixel {unit.center}")
print(f"TRF: {field.size[0]} x {field.size[1]} pixels ({field.status}), a unit every {field.stride[0]}")
print(f"ERF: sigma {fit.sigma_y:.1f} x {fit.sigma_x:.1f} +- {error:.1g}, R^2 {fit.r_squared:.2f}")

# %% [markdown]
# `layer4` has 7 x 7 units and (3, 3) is the middle one. An odd kernel with stride 2 puts unit i on pixel 2 i,
# so after five of them it stands on pixel 96 and not on the image centre. Sizes are therefore measured about
# the unit's own centre or, as here, about a fitted one.

# %%
R4, statistics4 = ERF(model, layer="layer4").attribute(batches, return_statistics=True)
unit4, fit4 = statistics4.source, fit_gaussian(R4)
field4 = theoretical_receptive_field(model, "layer4", input_size=images.shape[-2:])
print(f"{unit4.layer}: on pixel {unit4.center}, fitted centre ({fit4.center[0]:.0f}, {fit4.center[1]:.0f})")

# %% [markdown]
# The box is the theoretical receptive field, the white cross the unit's projected centre. On the right the
# image centre is drawn as well.

# %%
figure, (left, between, right) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
box, box4 = field.bounds(unit.unit), field4.bounds(unit4.unit)
plot_map(R, left, unit=unit.unit, center=unit.center, bounds=box, title="a unit of layer3")
plot_gaussian_fit(R, fit, ax=between)
between.vlines(box[1::2], 0, 5, "0.4", "--", label=f"ends of the TRF, {field.size[1]} px")
between.legend(loc="upper left", fontsize="small", frameon=False)
right.plot(middle, middle, "cx", markersize=10, markeredgewidth=3, label=f"image centre ({middle}, {middle})")
plot_map(R4, right, unit=unit4.unit, center=unit4.center, bounds=box4, title="the middle unit of layer4")
plt.show()

# %% [markdown]
# The middle unit of `layer4` looks at a place above and left of the image centre, where its strides put it.

# %%
assert max(fit4.center) < middle - 3, fit4.center

# %% [markdown]
# 95 % of a bell lie within 4 sigma, and for `layer3` that is less than half of what the unit could see.

# %%
assert 4 * max(fit.sigma_y, fit.sigma_x) < field.size[0] / 2, (fit, field.size)
