"""
pytorch-grad-cam: without the grid, and for transformers
========================================================

Its maps are NumPy arrays; `debias` takes them. It wants to be told how the tokens of a transformer lie;
`reshape_transform` finds out. Needs `pip install grad-cam`.
"""

import matplotlib.pyplot as plt
import torch
from captum.attr import Saliency
from pytorch_grad_cam import GradCAM, GradCAMElementWise
from torchvision.models import VisionTransformer

from erfattr import debias, demo_model, reshape_transform, sample_images
from erfattr.attr.calibration import calibrate

model, images = demo_model(), sample_images(20, 64)
calibration = calibrate(Saliency(model), images[4:].requires_grad_())  # knows its map and its period, 32
with GradCAMElementWise(model=model, target_layers=[model.layer1]) as method:
    cams = method(images[:4], None)
debiased = debias(cams, calibration)

# %%
torch.manual_seed(0)
vit = VisionTransformer(32, 8, 2, 2, 16, 32)
layer = vit.encoder.layers.encoder_layer_0
with GradCAM(vit, [layer], reshape_transform=reshape_transform(vit, layer, (32, 32))) as method:
    of_vit = method(images[:1, :, :32, :32], None)

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for ax, found, name in zip(axes, (cams, debiased, of_vit), ("raw", "debiased", "of a ViT"), strict=True):
    ax.imshow(found[0])
    ax.set_title(name)
assert (type(debiased), debiased.shape, of_vit.shape) == (type(cams), (4, 64, 64), (1, 32, 32))
