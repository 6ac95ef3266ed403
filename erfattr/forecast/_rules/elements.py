"""Operators that work element by element on one tensor: activations, and scaling by constants."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from erfattr.forecast._rules.moves import adjoint, hand_on
from erfattr.forecast._rules.registry import Flow, elementwise, random, rule, stop
from erfattr.forecast._tape import Step
from erfattr.receptive_field._rules import base_name

_POINTS = 20_000


@rule("add", "sub", "rsub", "_foreach_add")
def added(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Terms are taken as uncorrelated; a tensor added to itself is not."""
    grad = moments[0]
    if grad is None:
        return None
    alpha = float(step.bound.get("alpha", 1))
    first, second = step.bound["self"], step.bound["other"]
    factors = (1.0, alpha) if step.name != "rsub" else (alpha, 1.0)
    if first is second:
        sign = 1 if step.name == "add" else -1
        flow.give(first, grad * (factors[0] + sign * factors[1]) ** flow.power)
        return None
    for tensor, factor in zip((first, second), factors, strict=True):
        if any(tensor is one for one in step.read):
            flow.give(tensor, grad * factor**flow.power)
    return None


# Activations that PyTorch does not tag as working element by element.
@rule(
    *("prelu", "_prelu_kernel", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
    *("hardsigmoid", "hardtanh", "softplus", "clamp", "nan_to_num", "threshold"),
)
@elementwise
@random
def passed(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Scale by the mean of the squared derivative: of the images, or over a normal distribution."""
    grad = moments[0]
    if grad is None:
        return None
    if not step.wrote[0].is_floating_point():
        return None  # comparisons: no gradient comes through
    if len(step.read) != 1:
        return "what it does with several tensors that depend on the image is not known"
    given = step.read[0]
    if step.measured is not None:
        mean, second = step.measured.to(flow.memory.dtype)
        if flow.expected:
            mean, second = mean.mean(), second.mean()
        flow.give(given, grad * flow.gate(mean, second))
        return None
    constants = [v for v in step.bound.values() if isinstance(v, Tensor) and v is not given]
    if any(constant.numel() > 1 for constant in constants) and step.name != "_prelu_kernel":
        return "what it does with a constant of several elements is not known"
    slopes = _over_normal(step.func, _frozen(step), True)
    if not all(map(math.isfinite, slopes)):
        return "its derivative over a standard normal distribution is not finite"
    flow.give(given, grad * flow.gate(*slopes))
    return None


def values_over_normal(step: Step) -> tuple[float, float]:
    """Return the mean of an activation and of its square over a standard normal distribution."""
    return _over_normal(step.func, _frozen(step), False)


def _frozen(step: Step) -> tuple[tuple[str, Any], ...]:
    given = step.read[0]

    def plain(value: Any) -> Any:
        if value is given:
            return _GIVEN
        if isinstance(value, Tensor):
            # Slopes of a PReLU; without values those that it begins with.
            return 0.25 if value.is_meta else float(value.detach().float().mean())
        return tuple(value) if isinstance(value, list) else value

    return tuple((name, plain(value)) for name, value in step.bound.items())


_GIVEN = "the tensor itself"


@lru_cache(maxsize=512)
def _over_normal(func: Any, arguments: tuple[tuple[str, Any], ...], derivative: bool) -> tuple[float, float]:
    # Midpoints of slices of equal probability.
    levels = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    z = math.sqrt(2) * torch.erfinv(2 * levels - 1)
    z.requires_grad_(derivative)
    kinds = {a.name: str(a.type) for a in func._schema.arguments}
    with torch.enable_grad():
        x = z * 1.0
        given = {name: x if value is _GIVEN else value for name, value in arguments}
        for name, value in given.items():
            if isinstance(value, float) and "Tensor" in kinds[name]:
                given[name] = torch.tensor([value], dtype=z.dtype)
        positional = [
            given.pop(a.name) for a in func._schema.arguments if not a.kwarg_only and a.name in given
        ]
        y = functional_form(func)(*positional, **given)
        if not derivative:
            return float(y.mean()), float(y.square().mean())
        if not y.requires_grad:
            return 0.0, 0.0
        (slope,) = torch.autograd.grad(y.sum(), z)
    return float(slope.mean()), float(slope.square().mean())


def functional_form(func: Any) -> Any:
    """Return an operator's form that does not work in place."""
    if not func._schema.is_mutable:
        return func
    return getattr(getattr(torch.ops.aten, base_name(func)), func._overloadname)


@rule("where")
@random
def chosen(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """A choice by a constant is exact; by what depends on the image each side is taken half of the time."""
    condition = step.bound["condition"]
    if any(condition is tensor for tensor in step.read):
        grad = moments[0]
        for name in ("self", "other"):
            side = step.bound[name]
            if grad is not None and any(side is tensor for tensor in step.read):
                flow.give(side, flow.gate(0.5, 0.5) * grad)
        return None
    if condition.is_meta:
        return "what it chooses by has no values on the meta device"
    hand_on(step, adjoint(step, moments, flow.memory.dtype), flow)
    return None


rule("sign", "floor", "ceil", "round", "trunc", "heaviside")(stop)
