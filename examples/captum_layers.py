"""
Captum: layers, and targets as Captum takes them
================================================

`DebiasedAttribution` is called as Captum's methods are. A layer's map comes back at the size of the images.
"""

import matplotlib.pyplot as plt
from captum.attr import LayerGradCam, Saliency

from erfattr import DebiasedAttribution, demo_model, sample_images

model, images = demo_model(), sample_images(20, 64)
measured, shown = images[4:], images[:4].requires_grad_()
saliency = DebiasedAttribution.calibrate(Saliency(model), measured)
explained = saliency.attribute(shown, 5)  # the target, as in Saliency(model).attribute(images, 5)

# %%
# Grad-CAM of a layer of 16 x 16 units, brought to 64 x 64 pixels.

cam = LayerGradCam(model, model.layer1)
of_layer = DebiasedAttribution.calibrate(cam, measured, interpolate_mode="bilinear")
upsampled = of_layer.attribute(shown, target=5)

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
cams = cam.attribute(shown, 5)
titles = ("saliency, debiased", "Grad-CAM", "Grad-CAM, debiased")
for ax, maps, title in zip(axes, (explained, cams, upsampled), titles, strict=True):
    ax.imshow(maps[0].mean(0).detach())
    ax.set_title(title)
assert (explained.shape, upsampled.shape) == ((4, 3, 64, 64), (4, 1, 64, 64))
