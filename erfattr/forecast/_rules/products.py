"""Matrix products with a constant: linear layers, and what functional code makes of them."""

from __future__ import annotations

from torch import Tensor

from erfattr.forecast._rules.registry import Flow, rule
from erfattr.forecast._tape import Step
from erfattr.receptive_field._rules import FACTORS

_BOTH = "both factors depend on the image, as in attention, and their moments are not known without it"


@rule(*FACTORS, "mv", "dot", "_scaled_dot_product_attention_math", pattern="_?scaled_dot_product.*")
def multiplied(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Hand moments back through the squared matrix."""
    grad = moments[0]
    if step.name not in FACTORS:
        return _BOTH if "attention" in step.name else "products of vectors are not carried"
    left, right = (step.bound[name] for name in FACTORS[step.name])
    read = {id(tensor) for tensor in step.read}
    if id(left) in read and id(right) in read:
        return _BOTH
    if grad is None:
        return None
    scale = float(step.bound.get("alpha", 1)) ** flow.power
    added = step.bound.get("self") if "add" in step.name else None
    if added is not None and id(added) in read:
        flow.give(added, grad * float(step.bound.get("beta", 1)) ** flow.power)
    if id(left) in read:
        squared = flow.weights(right, left.shape[-1])
        if step.name == "linear":
            squared = squared.transpose(-1, -2)
        flow.give(left, scale * (grad @ squared.transpose(-1, -2)))
    elif id(right) in read:
        squared = flow.weights(left, left.shape[-1])
        flow.give(right, scale * (squared.transpose(-1, -2) @ grad))
    return None
