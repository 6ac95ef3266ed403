"""
Quantus: the imbalance as a metric
==================================

How unequal are neighbouring pixels of an explanation? Score raw and debiased saliency. Needs
`pip install quantus`.
"""

import matplotlib.pyplot as plt
import numpy as np
import quantus
from captum.attr import Saliency

from erfattr import DebiasedAttribution, debias, demo_model, imbalance_index, sample_images

model, images = demo_model(), sample_images(24, 64)
calibration = DebiasedAttribution.calibrate(Saliency(model), images[8:].requires_grad_()).sensitivity_map


class Imbalance(quantus.Complexity):
    """L1 of R / mean(R) of each explanation."""

    def evaluate_batch(self, *_, a_batch, **__):
        return np.array([float(imbalance_index(np.abs(a[0]), 1, "mean")) for a in a_batch])


shown = images[:8].detach()
raw = Saliency(model).attribute(shown.clone().requires_grad_(), target=5).mean(1, keepdim=True).numpy()
given = model, shown.numpy(), np.full(8, 5)
plain, debiased = (Imbalance(disable_warnings=True)(*given, a) for a in (raw, debias(raw, calibration)))

plt.plot(plain, debiased, "o")
plt.axline((np.mean(plain), np.mean(plain)), slope=1, color="0.7")
plt.gca().set(xlabel="imbalance of raw saliency", ylabel="debiased", title="below the line: more equal")
assert np.mean(debiased) < np.mean(plain), (plain, debiased)
