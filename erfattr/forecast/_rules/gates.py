"""Products element by element: scaling by constants, and gates, which count by their mean square."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from erfattr.forecast._rules.elements import passed, values_over_normal
from erfattr.forecast._rules.registry import Flow, random, rule, rule_of
from erfattr.forecast._tape import Step


@rule("mul", "div")
@random
def scaled(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Scale by a constant's square, or by the mean square of a gate; through the gate itself goes no grid.

    A gate that holds for a whole map (squeeze and excitation) hands back to all pixels alike and little: that
    path is left out. Where two tensors of one shape are multiplied, both paths count.
    """
    grad = moments[0]
    if grad is None:
        return None
    first, second = step.bound["self"], step.bound["other"]
    reads = [any(side is tensor for tensor in step.read) for side in (first, second)]
    if step.name == "div" and reads[1]:
        return "a division by what depends on the image is not carried"
    if reads == [True, True]:
        if first is second:
            flow.give(first, 2**flow.power * grad * _gate(step, 0, flow))
            return None
        elements = [side.numel() for side in (first, second)]
        if elements[0] >= elements[1]:
            flow.give(first, grad * _gate(step, 1, flow))
        if elements[1] >= elements[0]:
            flow.give(second, grad * _gate(step, 0, flow))
        return None
    given, constant = (first, second) if reads[0] else (second, first)
    factor: Any = 1.0
    if not isinstance(constant, Tensor) or not constant.is_meta:
        factor = flow.raised(constant)
    flow.give(given, grad / factor if step.name == "div" else grad * factor)
    return None


def _gate(step: Step, side: int, flow: Flow) -> Any:
    """Return the coefficient of a factor: of the images, of its activation, or of a normal number."""
    if step.measured is not None:
        mean, second = step.measured[side].to(flow.memory.dtype)
        return flow.gate(mean, second)
    maker = step.makers[side]
    if maker is None or rule_of(maker.func) is not passed or len(maker.read) != 1:
        return flow.gate(0.0, 1.0)
    return flow.gate(*values_over_normal(maker))
