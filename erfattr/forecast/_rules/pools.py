"""Maxima: each element of a window is the largest as often as any other, as in a mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from erfattr.forecast._rules.averages import over_reduced, pooling_steps
from erfattr.forecast._rules.evening import evened
from erfattr.forecast._rules.registry import Flow, random, rule
from erfattr.forecast._tape import Step


@rule("max_pool2d_with_indices", "max_pool2d", "mkldnn_max_pool2d")
@random
def pooled(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """One of n elements gets the gradient, each with probability 1 / n; padding never does."""
    grad = moments[0]
    if grad is None:
        return None
    image = step.read[0]
    kernel, padding, dilation = (_pair(step.bound.get(name, default)) for name, default in _GEOMETRY)
    stride = pooling_steps(step)
    height, width = image.shape[-2:]
    flat = grad.reshape(-1, 1, *grad.shape[-2:])
    sizes = [
        (outputs - 1) * s + d * (k - 1) + 1
        for outputs, s, d, k in zip(grad.shape[-2:], stride, dilation, kernel, strict=True)
    ]
    below = [size - length - p for size, length, p in zip(sizes, (height, width), padding, strict=True)]
    ones = torch.ones(1, 1, *kernel, dtype=flat.dtype)
    inside = F.pad(
        torch.ones(1, 1, height, width, dtype=flat.dtype), (padding[1], below[1], padding[0], below[0])
    )
    counts = F.conv2d(inside, ones, stride=stride, dilation=dilation)
    back = F.conv_transpose2d(
        flat * flow.gate(1 / counts, 1 / counts), ones, stride=stride, dilation=dilation
    )
    # What lies in the padding gets nothing: each window has so much of its gradient as is inside.
    back = F.pad(back, (-padding[1], -below[1], -padding[0], -below[0]))
    if step.layer in flow.even and max(stride) > 1:
        back = evened(back, stride)
    flow.give(image, back.reshape(image.shape))
    return None


_GEOMETRY = (("kernel_size", 1), ("padding", 0), ("dilation", 1))


def _pair(value: object) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)  # type: ignore[arg-type]
    return int(values[0]), int(values[-1])


@rule("amax", "amin", "max", "min")
@random
def largest(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """The largest along dims: one of n again."""
    grad = moments[0]
    image = step.read[0]
    if grad is None:
        return None
    if len(step.read) == 2:
        return "the larger of two tensors is not carried"
    grad, count = over_reduced(step, grad)
    flow.give(image, (grad * flow.gate(1 / count, 1 / count)).expand(image.shape))
    return None


@rule("adaptive_max_pool2d")
@random
def adaptive(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """One of the elements of each window; windows of an adaptive pool differ in size."""
    grad = moments[0]
    if grad is None:
        return None
    image = step.read[0]
    lines = []
    for length, outputs in zip(image.shape[-2:], grad.shape[-2:], strict=True):
        one_hot = torch.eye(length, dtype=torch.float64)[:, None]
        lines.append(F.adaptive_avg_pool1d(one_hot, outputs)[:, 0].T.to(grad.dtype))
    rows, columns = (torch.as_tensor(flow.gate(line, line)) for line in lines)
    flow.give(image, rows.T @ grad @ columns)
    return None
