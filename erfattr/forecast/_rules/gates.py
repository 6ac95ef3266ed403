"""Products element by element: scaling by constants, and gates, which count by their mean square."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from erfattr.forecast._rules.elements import mean_square, passed
from erfattr.forecast._rules.registry import Flow, rule, rule_of
from erfattr.forecast._tape import Step


@rule("mul", "div")
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
            flow.give(first, 4 * grad * _square_of(step, 0, flow))
            return None
        elements = [side.numel() for side in (first, second)]
        if elements[0] >= elements[1]:
            flow.give(first, grad * _square_of(step, 1, flow))
        if elements[1] >= elements[0]:
            flow.give(second, grad * _square_of(step, 0, flow))
        return None
    given, constant = (first, second) if reads[0] else (second, first)
    factor: Any = 1.0
    if isinstance(constant, Tensor):
        if not constant.is_meta:
            factor = constant.detach().cpu().to(flow.memory.dtype).square()
            if flow.expected:
                factor = factor.mean()
    else:
        factor = float(constant) ** 2
    flow.give(given, grad / factor if step.name == "div" else grad * factor)
    return None


def _square_of(step: Step, side: int, flow: Flow) -> Any:
    """Return the mean square of one of the factors: of the images, of its activation, or 1."""
    if step.measured is not None:
        return step.measured[side].to(flow.memory.dtype)
    maker = step.makers[side]
    if maker is None or rule_of(maker.func) is not passed or len(maker.read) != 1:
        return 1.0
    return mean_square(maker)
