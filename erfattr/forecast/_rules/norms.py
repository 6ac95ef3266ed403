"""Normalisations: moments are multiplied by the squared scale of each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from erfattr.forecast._rules.registry import Flow, rule
from erfattr.forecast._tape import Step

_BATCH_NORMS = (
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
    *("cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_no_update", "_batch_norm_with_update"),
    *("batch_norm", "_batch_norm_impl_index"),
)


def _gamma(weight: Tensor | None, count: int, flow: Flow) -> Tensor:
    if weight is None or weight.is_meta:
        return torch.ones(count, dtype=flow.memory.dtype)
    return weight.detach().cpu().to(flow.memory.dtype)


def _along(values: Tensor, ndim: int, dim: int) -> Tensor:
    return values.reshape([-1 if d == dim else 1 for d in range(ndim)])


@rule(*_BATCH_NORMS)
def batch_normalised(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Scale by gamma^2 / (variance + epsilon) of the running statistics."""
    grad, bound = moments[0], step.bound
    image = bound["input"]
    if grad is None:
        return None
    variance = bound.get("running_var")
    if bound.get("training", bound.get("train", False)):
        variance = None  # it normalises by the batch, whatever has been seen before
    scale = _gamma(bound.get("weight"), image.shape[1], flow)
    if variance is None:
        scale = scale * _measured(step, flow)
    elif not variance.is_meta:
        epsilon = float(bound.get("eps", bound.get("epsilon", 1e-5)))
        scale = scale / (variance.detach().cpu().to(flow.memory.dtype) + epsilon).sqrt()
    flow.give(image, grad * _along(flow.raised(scale), image.ndim, 1))
    return None


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm")
def layer_normalised(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Scale by gamma^2; the variance is that of the images, or 1 where none were seen."""
    grad = moments[0]
    if grad is None:
        return None
    image, shape = step.bound["input"], step.bound["normalized_shape"]
    scale = _gamma(step.bound.get("weight"), 1, flow)
    scale = scale.reshape(shape) if scale.numel() > 1 else scale
    flow.give(image, grad * flow.raised(scale * _measured(step, flow)))
    return None


@rule("native_group_norm", "group_norm")
def group_normalised(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Scale by gamma^2; the variance is that of the images, or 1 where none were seen."""
    grad = moments[0]
    if grad is None:
        return None
    image = step.bound["input"]
    scale = _gamma(step.bound.get("weight"), image.shape[1], flow)
    scale = flow.raised(scale * _measured(step, flow))
    flow.give(image, grad * _along(scale, image.ndim, 1))
    return None


def _measured(step: Step, flow: Flow) -> Any:
    """Return the root of the mean inverse variance."""
    return 1.0 if step.measured is None else step.measured.to(flow.memory.dtype).sqrt()
