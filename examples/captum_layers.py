# %% [markdown]
# `DebiasedAttribution` is called as Captum's methods are, and brings a layer's maps to the images' size.

# %%
from __future__ import annotations

import torch
from captum.attr import LayerGradCam, Saliency

from erfattr import DebiasedAttribution, demo_model, sample_images

model, images = demo_model(), sample_images(20, 64)
saliency = DebiasedAttribution.calibrate(Saliency(model), images[4:])
explained = saliency.attribute(images[:4], 5)  # the target, as in Saliency(model).attribute(images, 5)

# %%
cam = LayerGradCam(model, model.layer1)
of_layer = DebiasedAttribution.calibrate(cam, images[4:], interpolate_mode="bilinear")
upsampled = of_layer.attribute(images[:4], target=5)
assert torch.equal(explained, saliency.attribute(images[:4], target=5))
assert (explained.shape, upsampled.shape) == ((4, 3, 64, 64), (4, 1, 64, 64))
