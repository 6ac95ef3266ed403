# %% [markdown]
# Imbalance and phase contrast as metrics of torchmetrics: they add up batches and processes.
# Needs `pip install torchmetrics`.

# %%
from __future__ import annotations

import torch
from torchmetrics import MetricCollection

from erfattr import DeadPixelMap, ImbalanceIndex, PhaseContrast, demo_model, imbalance_index, sample_images

model = demo_model()
metrics = MetricCollection({"L1": ImbalanceIndex(), "contrast": PhaseContrast(period=32)})
for batch in sample_images(16, 96).split(4):
    metrics.update(DeadPixelMap(model).attribute(batch, reduction="none"))
found = metrics.compute()
print({name: round(float(value), 3) for name, value in found.items()})

# %% [markdown]
# The functional twin, on the map of all images, gives the same.

# %%
whole = DeadPixelMap(model).attribute(sample_images(16, 96))
torch.testing.assert_close(found["L1"], imbalance_index(whole, 1, "mean"), rtol=1e-3, atol=0)
assert found["contrast"] > 0
