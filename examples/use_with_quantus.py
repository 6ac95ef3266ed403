"""
Quantus: does taking the grid out cost faithfulness?
====================================================

Put the debiased attribution in beside the raw one. Needs `pip install quantus`.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import quantus
import torch
from captum.attr import Saliency

from erfattr import DebiasedAttribution, demo_model, sample_images

model, images = demo_model(), sample_images(24)
measured, scored = images[:16].requires_grad_(), images[16:]
found = DebiasedAttribution.calibrate(Saliency(model), measured).sensitivity_map.statistics


def explain(model, inputs, targets, debiased, **_):
    """Return (N, 1, H, W). Quantus hands over the model: some of its metrics change the weights."""
    method = DebiasedAttribution(Saliency(model), found, period=32) if debiased else Saliency(model)
    inputs = torch.tensor(inputs).requires_grad_()
    return method.attribute(inputs, target=torch.tensor(targets)).mean(1, True).numpy()


flipping = quantus.PixelFlipping(features_in_step=25088, perturb_baseline="mean", disable_warnings=True)
ways = {"raw": partial(explain, debiased=False), "debiased": partial(explain, debiased=True)}
data = (scored.numpy(), model(scored).argmax(1).numpy())
call = {"call_kwargs": {"all": {"softmax": True}}, "explain_func_kwargs": {}}
results = quantus.evaluate({"flipping": flipping}, ways, model, *data, **call)
curves = {name: np.mean(result["flipping"], axis=0) for name, result in results.items()}
plt.plot(np.arange(1, 7) / 6, np.stack(list(curves.values()), 1), "o-", label=list(curves))
plt.gca().set(xlabel="share of the pixels that are flipped", ylabel="probability of the class")
plt.legend()
raw, after = (curve.mean() for curve in curves.values())
assert abs(after - raw) < 0.05, "taking the grid out costs no faithfulness that eight images could show"
