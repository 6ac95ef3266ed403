"""
torchmetrics: imbalance and contrast as metrics
===============================================

They add up batches and processes, as torchmetrics does. Needs `pip install torchmetrics`.
"""

import matplotlib.pyplot as plt
from torchmetrics import MetricCollection

from erfattr import DeadPixelMap, ImbalanceIndex, PhaseContrast, demo_model, imbalance_index, sample_images

model = demo_model()
metrics = MetricCollection({"L1": ImbalanceIndex(), "contrast": PhaseContrast(period=32)})
history = []
for batch in sample_images(32, 96).split(4):
    metrics.update(DeadPixelMap(model).attribute(batch, reduction="none"))
    history.append({name: float(value) for name, value in metrics.compute().items()})
print(history[-1])

# %%
# Plain numbers fall as images are added: the noise falls. Compare metrics of as many images only.

counts = range(4, 33, 4)
for name in metrics:
    plt.plot(counts, [found[name] for found in history], "o-", label=name)
plt.xlabel("images")
plt.legend()

# %%
# The function `imbalance_index`, on the map of all images, gives the same.

whole = imbalance_index(DeadPixelMap(model).attribute(sample_images(32, 96)), 1, "mean")
assert abs(history[-1]["L1"] - whole) < 1e-3 * whole, (history[-1], whole)
