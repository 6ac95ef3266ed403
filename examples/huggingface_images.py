# %% [markdown]
# A Hugging Face processor says how large its images are, and by which constants they are normalised.
# Needs `pip install transformers`.

# %%
from __future__ import annotations

import torch
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from erfattr import ERF, image_settings, sample_images

torch.manual_seed(0)
# With weights: AutoImageProcessor.from_pretrained(name) and AutoModel.from_pretrained(name).
processor = ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
config = ViTConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64
)
model = ViTModel(config).eval()

images = sample_images(4, **image_settings(processor))
unit = ERF(model, model, select="last_hidden_state")
R, statistics = unit.attribute(images, 0, return_statistics=True)  # channel 0: their mean is normalised away
print(statistics.source.layout)
assert tuple(R.shape) == image_settings(processor)["size"] == (64, 64)
