"""Means and interpolations: linear, with weights that are not 0 and 1, so they are squared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from erfattr.forecast._rules.evening import evened
from erfattr.forecast._rules.registry import Flow, rule
from erfattr.forecast._tape import Step
from erfattr.receptive_field._rules import dims_of


def over_reduced(step: Step, grad: Tensor) -> tuple[Tensor, int]:
    """Return a gradient with the reduced dims as length 1, and how many elements became one."""
    image = step.read[0]
    dims = dims_of(step.bound.get("dim"), image.ndim)
    if not step.bound.get("keepdim", False):
        for dim in sorted(dims):
            grad = grad.unsqueeze(dim)
    return grad, math.prod(image.shape[dim] for dim in dims)


@rule("mean")
def mean(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Each of n elements has the weight 1 / n."""
    grad = moments[0]
    if grad is None:
        return None
    image = step.read[0]
    grad, count = over_reduced(step, grad)
    flow.give(image, (grad / count**flow.power).expand(image.shape))
    return None


_INTERPOLATIONS = (
    *("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    "_upsample_lanczos2d_aa",
)


@rule("avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", *_INTERPOLATIONS)
def averaged(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Rows and columns are averaged one after the other, so their weights are squared one after the other."""
    grad = moments[0]
    if grad is None:
        return None
    image = step.read[0]
    output = step.wrote[0]
    if step.bound.get("divisor_override"):
        rows, columns = (
            _line(step, axis, image.shape[-2:], output.shape[-2:], divisor_override=1) for axis in (0, 1)
        )
        rows = rows / float(step.bound["divisor_override"])
    else:
        rows, columns = (_line(step, axis, image.shape[-2:], output.shape[-2:]) for axis in (0, 1))
    dtype = flow.memory.dtype
    back = (rows**flow.power).to(dtype).T @ grad @ (columns**flow.power).to(dtype)
    if step.name == "avg_pool2d" and step.layer in flow.even:
        back = evened(back.reshape(-1, *back.shape[-3:]), pooling_steps(step)).reshape(back.shape)
    flow.give(image, back)
    return None


def pooling_steps(step: Step) -> tuple[int, int]:
    """Return the stride of a pool, rows and columns."""
    value = step.bound.get("stride") or step.bound["kernel_size"]
    values = (value,) if isinstance(value, int) else tuple(value)
    return values[0], values[-1]


def _line(step: Step, axis: int, size: Any, out: Any, **changed: Any) -> Tensor:
    """Return the weights (outputs, inputs) along rows (0) or columns (1), from one-hot lines."""
    length = size[axis]
    lines = torch.eye(length, dtype=torch.float64)
    lines = lines.reshape(length, 1, length, 1) if axis == 0 else lines.reshape(length, 1, 1, length)
    bound = {**step.bound, **changed}
    for name, keep in _ALONE.items():
        if name in bound and bound[name] is not None and not isinstance(bound[name], (int, float, bool)):
            values = list(bound[name]) or list(bound["kernel_size"])
            values = values * 2 if len(values) == 1 else values
            bound[name] = [value if which == axis else keep for which, value in enumerate(values)]
        elif name in bound and type(bound[name]) is int:
            bound[name] = [bound[name] if which == axis else keep for which in (0, 1)]
    for name, where in (("scales_h", 0), ("scales_w", 1)):
        if name in bound and where != axis:
            bound[name] = None
    if "scale_factors" in bound:
        bound["scale_factors"] = None
        bound["output_size"] = [out[0] if axis == 0 else 1, out[1] if axis == 1 else 1]
    schema = step.func._schema.arguments
    first = schema[0].name
    bound[first] = lines
    function: Callable[..., Tensor] = step.func
    found = function(*[bound[a.name] for a in schema if a.name in bound and not a.kwarg_only])
    return found.reshape(length, -1).T


# What the arguments of a pool or interpolation are along the other axis, of a single element.
_ALONE = {"kernel_size": 1, "stride": 1, "padding": 0, "output_size": 1}
