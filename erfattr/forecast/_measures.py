"""What images show of one operator: slopes of activations, sizes of gates, scales of normalisations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from erfattr.forecast._rules.elements import functional_form, passed
from erfattr.forecast._rules.registry import rule_of
from erfattr.forecast._tape import Step
from erfattr.receptive_field._rules import base_name

# Step of the difference quotient, in float64.
_NEAR = 1e-6


def measure(step: Step) -> Tensor | None:
    """Return what the rule of a step takes from images; ``None`` where it takes nothing.

    Means are over all elements of a channel, of all channels where their dim is not known.
    """
    if rule_of(step.func) is passed:
        return _slope(step)
    if step.name == "mul" and len(step.read) == 2:
        return None if _shapes_differ(step) else _both(step)
    if "norm" in step.name:
        return _scale(step)
    return None


def _shapes_differ(step: Step) -> bool:
    return bool(step.bound["self"].ndim != step.bound["other"].ndim)


def _mean(values: Tensor, channels: int | None) -> Tensor:
    """Return the mean over all but the channels, with the dims of ``values``."""
    dims = [dim for dim in range(values.ndim) if dim != channels]
    return values.double().mean(dims, keepdim=True).cpu()


def _slope(step: Step) -> Tensor | None:
    if len(step.read) != 1:
        return None
    given = step.read[0]
    if not given.is_floating_point():
        return None

    def at(shift: float) -> Any:
        bound = {
            name: value.double() + shift
            if value is given
            else value.double()
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in step.bound.items()
        }
        places = [a.name for a in step.func._schema.arguments if not a.kwarg_only]
        positional = [bound.pop(name) for name in places]
        return functional_form(step.func)(*positional, **bound)

    above, below = at(_NEAR), at(-_NEAR)
    if not above.is_floating_point():
        return None
    slope = (above - below) / (2 * _NEAR)
    return torch.stack([_mean(slope, step.channels), _mean(slope.square(), step.channels)])


def _both(step: Step) -> Tensor:
    """Return mean and mean square of either factor, (2, 2, ...)."""
    factors = [step.bound["self"], step.bound["other"]]
    means = [_mean(factor**power, step.channels) for factor in factors for power in (1, 2)]
    shape = torch.broadcast_shapes(*(mean.shape for mean in means))  # type: ignore[no-untyped-call]
    return torch.stack([mean.expand(shape) for mean in means]).reshape(2, 2, *shape)


def _scale(step: Step) -> Tensor | None:
    """Return the mean of 1 / variance."""
    bound = step.bound
    image = bound.get("input")
    if not isinstance(image, Tensor) or bound.get("running_var") is not None:
        return None
    image = image.double()
    epsilon = float(bound.get("eps") or 1e-5)
    name = base_name(step.func)
    if "layer_norm" in name or "rms_norm" in name:
        dims = list(range(image.ndim - len(bound["normalized_shape"]), image.ndim))
        variance = image.square().mean(dims) if "rms" in name else image.var(dims, correction=0)
        return (1 / (variance + epsilon)).mean().cpu()
    if "group_norm" in name:
        groups = int(bound.get("group", bound.get("num_groups", 1)))
        variance = image.reshape(len(image), groups, -1).var(2, correction=0)
        return (1 / (variance + epsilon)).mean().cpu()
    # A batch normalisation without running statistics, as an instance normalisation is one.
    variance = image.var([dim for dim in range(image.ndim) if dim != 1], correction=0)
    return (1 / (variance + epsilon)).cpu()
