"""Walk a tape backward: the second moment of the gradient of each pixel, from those of a layer's elements."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from erfattr.forecast._memory import MomentMemory
from erfattr.forecast._rules.registry import Flow, Moment, is_random, rule_of
from erfattr.forecast._tape import Step, Tape
from erfattr.receptive_field._signatures import storage_of


@dataclass(frozen=True)
class Seed:
    """Where the pass begins.

    Attributes:
        tensor: A tensor of the tape.
        gradient: Of the scalar with respect to it.
        steps: How many operators had run when it was there.
    """

    tensor: Tensor
    gradient: Tensor
    steps: int


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the gradient's mean over colours, (H, W), float64."""

    mean: Tensor
    variance: Tensor

    def rectified(self) -> Tensor:
        """Return the mean of the positive part of a normal number of these moments: R of eq. 3."""
        spread = self.variance.clamp_min(0).sqrt()
        ratio = self.mean / spread.clamp_min(torch.finfo(spread.dtype).tiny)
        density = torch.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        rectified: Tensor = self.mean * torch.special.ndtr(ratio) + spread * density
        return rectified.clamp_min(0)


def walk_back(tape: Tape, seed: Seed, *, given: bool, expected: bool, even: Collection[str] = ()) -> Moments:
    """Return the moments of the gradient of each pixel.

    Args:
        tape: The forward pass.
        seed: Where the pass begins.
        given: Follow the mean too, so that paths through the same weights add up or cancel; otherwise
            every weight has a random sign, and only the second moment is followed.
        expected: Take each layer's mean squared weight instead of its weights.
        even: Layers whose own grid is smoothed away.

    Raises:
        ValueError: a step on the way has no rule, or the moments leave the range of float64.
    """
    for dtype in (torch.float32, torch.float64):
        found = _Walk(tape, dtype, given, expected, frozenset(even)).from_seed(seed)
        # Through a hundred layers second moments may leave the range of float32, but hardly that of float64.
        second = found.mean**2 + found.variance
        if bool(torch.isfinite(second).all()) and bool(second.max() > torch.finfo(dtype).tiny * 1e12):
            break
    if not bool(torch.isfinite(second).all()):
        raise ValueError("model: the forecast is not finite: weights or statistics are not, or are huge")
    return found


class _Walk:
    """One pass backward."""

    def __init__(
        self, tape: Tape, dtype: torch.dtype, given: bool, expected: bool, even: frozenset[str]
    ) -> None:
        self.tape, self.given = tape, given
        memory = {name: MomentMemory(dtype) for name in ("mean", "variance")}
        self.memory = memory
        grey = {name: torch.zeros(*tape.image.shape[2:], dtype=dtype) for name in memory}
        self.grey = grey
        image = storage_of(tape.image)
        targets: tuple[tuple[Moment, str], ...] = (
            ("mean", "mean"),
            ("second", "variance"),
            ("mean squared", "variance"),
        )
        self.flows = {
            moment: Flow(memory[name], image, grey[name], expected, even, moment) for moment, name in targets
        }

    def from_seed(self, seed: Seed) -> Moments:
        gradient = seed.gradient.to(self.memory["mean"].dtype)
        if self.given:
            self.memory["mean"].add(seed.tensor, gradient)
        else:
            self.memory["variance"].add(seed.tensor, gradient**2)
        with torch.no_grad():
            for step in reversed(self.tape.steps[: seed.steps]):
                self._carry(step)
            return Moments(self._arrived("mean"), self._arrived("variance"))

    def _arrived(self, name: str) -> Tensor:
        """The map averages over colours: a convolution of the image has summed them by itself."""
        colours = self.memory[name].take(self.tape.image)
        channels = self.tape.image.shape[1]
        total = self.grey[name] if colours is None else self.grey[name] + colours.sum((0, 1))
        return total.double() / (channels if name == "mean" else channels**2)

    def _carry(self, step: Step) -> None:
        means = [self.memory["mean"].take(tensor) for tensor in step.wrote]
        variances = [self.memory["variance"].take(tensor) for tensor in step.wrote]
        if all(moments is None for moments in (*means, *variances)):
            return
        rule = rule_of(step.func)
        if rule is None:
            self._refuse(step, "no rule carries it")
            return
        squares = [None if mean is None else mean**2 for mean in means]
        followed: list[tuple[Moment, list[Tensor | None]]] = [("mean", means)]
        if is_random(rule):
            seconds = list(map(_sum, squares, variances))
            followed += [("second", seconds), ("mean squared", squares)]
        else:
            followed.append(("second", variances))
        for moment, values in followed:
            if any(value is not None for value in values):
                reason = rule(step, values, self.flows[moment])
                if reason is not None:
                    self._refuse(step, reason)

    def _refuse(self, step: Step, reason: str) -> None:
        where = f"in layer {step.layer!r}" if step.layer else "in the model's own forward pass"
        raise ValueError(
            f"model: the forecast cannot be carried through {step.func._schema.name} {where}: {reason}"
        )


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
