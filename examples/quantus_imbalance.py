# %% [markdown]
# The imbalance as a metric of Quantus's kind, over raw and debiased saliency. Needs `pip install quantus`.

# %%
from __future__ import annotations

from typing import Any

import numpy as np
import quantus
from captum.attr import Saliency

from erfattr import DebiasedAttribution, debias, demo_model, imbalance_index, sample_images

model, images = demo_model(), sample_images(24, 64)
calibration = DebiasedAttribution.calibrate(Saliency(model), images[8:]).sensitivity_map


class Imbalance(quantus.Complexity):
    """L1 of R / mean(R) of each explanation: how unequal neighbouring pixels are."""

    def evaluate_instance(self, x: np.ndarray, a: np.ndarray, **_: Any) -> float:
        return float(imbalance_index(np.abs(a).reshape(a.shape[-2:]), 1, "mean"))


raw = Saliency(model).attribute(images[:8], target=5).mean(1, keepdim=True).numpy()
call: dict[str, Any] = {
    "model": model,
    "x_batch": images[:8].numpy(),
    "y_batch": np.full(8, 5),
    "device": "cpu",
}
scores = [Imbalance(disable_warnings=True)(a_batch=a, **call) for a in (raw, debias(raw, calibration))]
assert np.mean(scores[1]) < np.mean(scores[0]), scores
