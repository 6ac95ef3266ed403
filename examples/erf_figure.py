"""
An ERF figure for my paper
==========================

A unit *can* see its theoretical receptive field (TRF). What it really *uses* is its effective receptive field
(ERF): the mean, over images, of how strongly each pixel moves the unit.
"""

from erfattr import ERF, demo_model, draw_stages, fit_gaussian, receptive_fields, sample_images
from erfattr.report.paper_files import save_for_print

model, images = demo_model(), sample_images(32)  # your network, your images

# %%
# Map the middle unit of four layers.

layers = ["layer1", "layer2", "layer3", "layer4"]
batches = images.split(8)  # or a DataLoader
maps = {layer: ERF(model, layer).attribute(batches, return_statistics=True)[1] for layer in layers}
fields = receptive_fields(model, 224)

# %%
# Print the numbers for the text. Sigma is that of a Gaussian fitted to the map.

fits = {layer: fit_gaussian(found.mean) for layer, found in maps.items()}
for layer, fit in fits.items():
    size = fields[layer].size[0]
    print(f"{layer}: TRF {size} pixels, sigma {fit.sigma_y:.1f} pixels, R^2 {fit.r_squared:.2f}")

# %%
# Draw the figure, 170 mm wide, and write it with its fonts inside.

figure = draw_stages({"demo": maps}, {"demo": fields}, width=170)
save_for_print(figure, "stages.pdf")

# %%
# 95 % of a bell lie within 4 sigma. For `layer3` that is less than half of what the unit could see.

assert 4 * fits["layer3"].sigma_y < fields["layer3"].size[0] / 2
