"""
My model comes from Hugging Face
================================

The processor says how large the images are and how they are normalised. The model returns a data class:
`select=` names the field. Needs `pip install transformers`.
"""

import matplotlib.pyplot as plt
import torch
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from erfattr import ERF, image_settings, sample_images

torch.manual_seed(0)
# With weights: AutoImageProcessor.from_pretrained(name) and AutoModel.from_pretrained(name).
processor = ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
model = ViTModel(ViTConfig(image_size=64, patch_size=8, **size)).eval()
images = sample_images(16, **image_settings(processor))

# %%
# The last layer normalisation makes the mean over channels constant: it has no gradient. Take one channel.

unit = ERF(model, model, select="last_hidden_state")
_, statistics = unit.attribute(images, 0, return_statistics=True)
print(statistics.source.layout)
statistics.plot(title="channel 0 of last_hidden_state")
plt.show()

assert statistics.source.feature_size == (8, 8)
