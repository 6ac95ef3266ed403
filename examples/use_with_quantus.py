# %% Quantus scores explanations: a debiased attribution goes in beside the raw one (`pip install quantus`).
from functools import partial
from typing import Any

import quantus
import torch
from captum.attr import Saliency

from erfattr import DebiasedAttribution, demo_model, sample_images

model, images = demo_model(), sample_images(24)
measured, scored = images[:16].requires_grad_(), images[16:]
found = DebiasedAttribution.calibrate(Saliency(model), measured).sensitivity_map.statistics


def explain(model: Any, inputs: Any, targets: Any, debiased: bool, **_: Any) -> Any:
    """Return (N, 1, H, W). Quantus hands over the model: some of its metrics change the weights."""
    raw = Saliency(model)
    method: Any = DebiasedAttribution(raw, found, period=32) if debiased else raw
    return method.attribute(torch.tensor(inputs), target=torch.tensor(targets)).mean(1, True).numpy()


flipping = quantus.PixelFlipping(features_in_step=25088, perturb_baseline="mean", disable_warnings=True)
ways = {"raw": partial(explain, debiased=False), "debiased": partial(explain, debiased=True)}
data = (scored.numpy(), model(scored).argmax(1).numpy())  # lower curves: more faithful
call = {"call_kwargs": {"all": {"softmax": True}}, "explain_func_kwargs": {}}
results = quantus.evaluate({"flipping": flipping}, ways, model, *data, **call)
raw, after = (torch.tensor(results[name]["flipping"]).mean() for name in ways)
assert abs(after - raw) < 0.05, "taking the grid out costs no faithfulness that eight images could show"
