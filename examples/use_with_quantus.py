# %% [markdown]
# Quantus scores explanations. It takes any function of model, images and classes, so a debiased attribution
# goes in beside the raw one. Needs `pip install quantus`.

# %%
from __future__ import annotations

import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import quantus
import torch
from captum.attr import Saliency

from erfattr import DebiasedAttribution, demo_model, sample_images

warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
model, images = demo_model(), sample_images(24)
measured, scored = images[:16], images[16:]
statistics = DebiasedAttribution.calibrate(Saliency(model), measured.split(8)).sensitivity_map.statistics


# %% [markdown]
# The explanation is built for the model that Quantus hands over: some of its metrics change the weights. The
# statistics are a map like any other and go with every model; a whole calibration would refuse them.


# %%
def raw(model: torch.nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
    """Saliency as it is: (N, 1, H, W), the mean over channels."""
    found = Saliency(model).attribute(torch.as_tensor(inputs), target=torch.as_tensor(targets))
    return found.mean(1, keepdim=True).numpy()


def debiased(model: torch.nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
    """The same, debiased by the pattern of period 32."""
    method = DebiasedAttribution(Saliency(model), statistics, period=32)
    found = method.attribute(torch.as_tensor(inputs), target=torch.as_tensor(targets))
    return found.mean(1, keepdim=True).numpy()


# %%
with torch.no_grad():
    classes = model(scored).argmax(1).numpy()
step = scored[0].numel() // 6
flipping = quantus.PixelFlipping(features_in_step=step, perturb_baseline="mean", disable_warnings=True)
results = quantus.evaluate(
    metrics={"pixel flipping": flipping},
    xai_methods={"raw": raw, "debiased": debiased},
    model=model,
    x_batch=scored.numpy(),
    y_batch=classes,
    explain_func_kwargs={},
    call_kwargs={"default": {"softmax": True, "channel_first": True, "device": "cpu"}},
)

# %%
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
curves = {name: np.asarray(found["pixel flipping"]).mean(0) for name, found in results.items()}
for name, curve in curves.items():
    ax.plot(100 * np.arange(1, len(curve) + 1) / len(curve), curve, label=name)
ax.set_xlabel("pixels replaced by the mean, strongest first (%)")
ax.set_ylabel("probability of the class")
ax.legend()
plt.show()

# %% [markdown]
# Taking the grid out costs no faithfulness that eight images could show.

# %%
areas = {name: curve.mean() for name, curve in curves.items()}
assert abs(areas["debiased"] - areas["raw"]) < 0.05, areas
