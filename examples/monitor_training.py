"""
Watch the pixels while my network trains
========================================

`DeadPixelMonitor` maps the same images every few epochs and logs the numbers. The training stays as it is.
Needs `pip install 'erfattr[train]'`. In a loop of your own call `watch_pixels`.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from erfattr import DeadPixelMonitor, demo_model, sample_images

torch.manual_seed(0)
images, labels = sample_images(size=64), torch.arange(64) % 8  # image k is of photograph k modulo 8


class Classifier(LightningModule):
    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 16, shuffle=True)
monitor = DeadPixelMonitor(images[:16], every=1, share=1, network="network", figure=False)
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 4}
trainer = Trainer(max_epochs=4, callbacks=[monitor], logger=CSVLogger("."), **quiet)
module = Classifier()
module.network = demo_model(weights=False).train()
trainer.fit(module, loader)
log = np.genfromtxt(f"{trainer.logger.log_dir}/metrics.csv", delimiter=",", names=True, deletechars="")
plt.errorbar(log["epoch"], log["dead_pixels/L1"], log["dead_pixels/L1_error"], marker="o", capsize=4)
plt.gca().set(xlabel="epoch", ylabel="imbalance L1 of the output's map")
assert len(log) == 4
