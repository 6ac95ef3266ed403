"""The rules by the names of their operators: how each hands second moments of gradients to its operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from erfattr.forecast._memory import MomentMemory
from erfattr.forecast._tape import Step
from erfattr.receptive_field._rules import Rules
from erfattr.receptive_field._signatures import storage_of

Moment = Literal["mean", "second", "mean squared"]


@dataclass(frozen=True)
class Flow:
    """What a rule gives moments to, and which coefficients it is to multiply them by.

    Of an operator that multiplies by something random, a gate d, ``"mean"`` asks for E[d], ``"second"`` for
    E[d^2], and ``"mean squared"`` for E[d]^2. Of an operator with weights these are w, w^2 and w^2.

    Attributes:
        memory: The moments of all tensors.
        image: The number of the image's memory.
        grey: (H, W): moments of the gradient's sum over colours.
        expected: Take each layer's mean squared weight instead of its weights.
        even: Layers whose own grid is smoothed away.
        moment: Which coefficients are asked for.
    """

    memory: MomentMemory
    image: int
    grey: Tensor
    expected: bool
    even: frozenset[str]
    moment: Moment = "second"

    @property
    def power(self) -> int:
        """The power that weights are raised to."""
        return 1 if self.moment == "mean" else 2

    @property
    def sign(self) -> int:
        """What is given counts as positive, or is taken away again."""
        return -1 if self.moment == "mean squared" else 1

    def give(self, tensor: Tensor, moments: Tensor) -> None:
        """Add moments of an operand, of its shape or of one that it was broadcast to."""
        self.memory.add(tensor, self.sign * moments.sum_to_size(tensor.shape))

    def give_grey(self, moments: Tensor) -> None:
        """Add (H, W) moments of the gradient's sum over colours."""
        self.grey.add_(self.sign * moments)

    def is_image(self, tensor: Tensor) -> bool:
        """Whether a tensor is the image itself."""
        return storage_of(tensor) == self.image

    def raised(self, values: Tensor | float) -> Tensor:
        """Return values on the CPU to the power that is asked for; under ``expected`` their mean for all."""
        if not isinstance(values, Tensor):
            return torch.tensor(float(values), dtype=self.memory.dtype) ** self.power
        found = values.detach().cpu().to(self.memory.dtype) ** self.power
        return found.mean().expand(found.shape) if self.expected else found

    def weights(self, weight: Tensor, fan_in: int) -> Tensor:
        """Return `raised` weights; without values, on the meta device, as they are drawn before ReLUs.

        Their variance is then 2 / fan in.
        """
        if weight.is_meta:
            return torch.tensor(2 / fan_in, dtype=self.memory.dtype).expand(weight.shape)
        return self.raised(weight)

    def gate(self, mean: Tensor | float, second: Tensor | float) -> Tensor | float:
        """Return the coefficient of something random, from its mean and its mean square."""
        if self.moment == "second":
            return second
        return mean if self.moment == "mean" else mean**2


Rule = Callable[[Step, "list[Tensor | None]", Flow], "str | None"]
"""Hands moments of a step's outputs on; returns in words why it does not, ``None`` when it did."""

rule: Rules[Rule] = Rules("aten", "prims")

_elementwise: list[Rule] = []
_random: set[Rule] = set()


def random(function: Rule) -> Rule:
    """Mark a rule whose coefficients are random: its mean square is not the square of its mean."""
    _random.add(function)
    return function


def is_random(function: Rule) -> bool:
    """Whether a rule's coefficients are random."""
    return function in _random


def elementwise(function: Rule) -> Rule:
    """Register the rule of all operators that work element by element and have none of their own."""
    _elementwise[:] = [function]
    return function


def rule_of(func: Any) -> Rule | None:
    """Return the rule of an operator; ``None`` if there is none."""
    return rule.of(func, _elementwise[0])


def stop(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Hand nothing on: the gradient ends here."""
    del step, moments, flow
    return None
