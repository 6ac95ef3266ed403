"""
pytorch-grad-cam: without the grid, and for transformers
========================================================

Its maps are NumPy arrays; `debias` takes them. It wants to be told how the tokens of a transformer lie;
`reshape_transform` finds out. Needs `pip install grad-cam`.
"""

import matplotlib.pyplot as plt
import torch
from pytorch_grad_cam import GradCAMElementWise
from torchvision.models import VisionTransformer

from erfattr import debias, demo_model, reshape_transform, sample_images

model, images = demo_model(), sample_images(36, 64)
with GradCAMElementWise(model=model, target_layers=[model.layer1]) as method:
    cams, of_others = method(images[:4], None), method(images[4:], None)
debiased = debias(cams, of_others.mean(0), period=32)  # the same method, on other images

# %%
torch.manual_seed(0)
vit = VisionTransformer(32, 8, 2, 2, 16, 32)
torch.nn.init.normal_(vit.heads.head.weight)  # torchvision begins with zeros
layer = vit.encoder.layers.encoder_layer_0
with GradCAMElementWise(vit, [layer], reshape_transform=reshape_transform(vit, layer, (32, 32))) as method:
    of_vit = method(images[:1, :, :32, :32], None)

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for ax, found, name in zip(axes, (cams, debiased, of_vit), ("raw", "debiased", "of a ViT"), strict=True):
    ax.imshow(found[0])
    ax.set_title(name)
assert of_vit.max() > 0
assert (type(debiased), debiased.shape, of_vit.shape) == (type(cams), (4, 64, 64), (1, 32, 32))
