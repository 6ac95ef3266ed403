"""Walk a tape backward: the second moment of the gradient of each pixel, from those of a layer's elements."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erfattr.forecast._memory import MomentMemory
from erfattr.forecast._rules.registry import Flow, rule_of
from erfattr.forecast._tape import Step, Tape
from erfattr.receptive_field._signatures import storage_of


@dataclass(frozen=True)
class Seed:
    """Where the pass begins.

    Attributes:
        tensor: A tensor of the tape.
        moments: Squared gradients of the scalar with respect to it.
        steps: How many operators had run when it was there.
    """

    tensor: Tensor
    moments: Tensor
    steps: int


def walk_back(tape: Tape, seed: Seed, *, expected: bool, even: Collection[str] = ()) -> Tensor:
    """Return the second moment of the gradient's mean over colours, (H, W), float64.

    Args:
        tape: The forward pass.
        seed: Where the pass begins.
        expected: Take each layer's mean squared weight instead of its weights.
        even: Layers whose own grid is smoothed away.

    Raises:
        ValueError: a step on the way has no rule, or the moments leave the range of float64.
    """
    for dtype in (torch.float32, torch.float64):
        found = _walked(tape, seed, dtype, expected, frozenset(even))
        # Through a hundred layers second moments may leave the range of float32, but hardly that of float64.
        if bool(torch.isfinite(found).all()) and bool(found.max() > torch.finfo(dtype).tiny * 1e12):
            return found.double()
    if not bool(torch.isfinite(found).all()):
        raise ValueError("model: the forecast left the range of float64: weights or statistics are not finite")
    return found.double()


def _walked(tape: Tape, seed: Seed, dtype: torch.dtype, expected: bool, even: frozenset[str]) -> Tensor:
    memory = MomentMemory(dtype)
    memory.add(seed.tensor, seed.moments.to(dtype))
    height, width = tape.image.shape[2:]
    flow = Flow(memory, storage_of(tape.image), torch.zeros(height, width, dtype=dtype), expected, even)
    with torch.no_grad():
        for step in reversed(tape.steps[: seed.steps]):
            moments = [memory.take(tensor) for tensor in step.wrote]
            if any(moment is not None for moment in moments):
                _carry(step, moments, flow)
        colours = memory.take(tape.image)
    # The map averages the gradient over colours before it is squared: a convolution of the image has summed
    # them by itself.
    total = flow.grey if colours is None else flow.grey + colours.sum((0, 1))
    return total / tape.image.shape[1] ** 2


def _carry(step: Step, moments: list[Tensor | None], flow: Flow) -> None:
    rule = rule_of(step.func)
    refused: Any = "no rule carries it"
    if rule is not None:
        try:
            refused = rule(step, moments, flow)
        except NotImplementedError as error:
            refused = str(error)
    if refused is not None:
        where = f"in layer {step.layer!r}" if step.layer else "in the model's own forward pass"
        raise ValueError(
            f"model: the forecast cannot be carried through {step.func._schema.name} {where}: {refused}"
        )
