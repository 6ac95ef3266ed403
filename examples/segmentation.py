"""
My network segments
===================

Its output is a map of classes, not a vector. Ask for one class at one pixel, or for all pixels at once.
"""

import matplotlib.pyplot as plt
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from erfattr import DeadPixelMap, sample_images, theoretical_receptive_field

torch.manual_seed(0)
network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
images = sample_images(16, size=128)

# %%
# The output is a dict; the tensor under `"out"` is taken. `target=(class, row, column)` is one output pixel.
# Without a target it is the mean, over all pixels, of the largest class.

_, pixel = DeadPixelMap(network).attribute(images, target=(2, 64, 64), return_statistics=True)
_, everywhere = DeadPixelMap(network).attribute(images, return_statistics=True)

# %%
# How far can one output pixel see? The field says how it was found, and how far to trust it.

field = theoretical_receptive_field(network, "classifier.low_classifier", 128)
print(field.size, field.status)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
pixel.plot(left, title="class 2 at pixel (64, 64)")
everywhere.plot(right, title="largest class, all pixels")
near = pixel.mean[48:80, 48:80].mean() / pixel.mean.mean()
print(f"pixels within 16 of the output pixel count {near:.1f} times the mean")
assert near > 1
