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

    def evaluate_batch(self, *_: Any, a_batch: Any, **__: Any) -> Any:  # noqa: D102
        return np.array([float(imbalance_index(np.abs(a[0]), 1, "mean")) for a in a_batch])


raw = Saliency(model).attribute(images[:8], target=5).mean(1, keepdim=True).numpy()
given = model, images[:8].numpy(), np.full(8, 5)
plain, debiased = (Imbalance(disable_warnings=True)(*given, a) for a in (raw, debias(raw, calibration)))
assert np.mean(debiased) < np.mean(plain), (plain, debiased)
