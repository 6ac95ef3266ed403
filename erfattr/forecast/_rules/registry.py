"""The rules by the names of their operators: how each hands second moments of gradients to its operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erfattr.forecast._memory import MomentMemory
from erfattr.forecast._tape import Step
from erfattr.receptive_field._rules import Rules
from erfattr.receptive_field._signatures import storage_of


@dataclass(frozen=True)
class Flow:
    """What a rule gives moments to, and how it is to look at weights.

    Attributes:
        memory: The moments of all tensors.
        image: The number of the image's memory.
        grey: (H, W): moments of the gradient's sum over colours.
        expected: Take each layer's mean squared weight instead of its weights.
        even: Layers whose own grid is smoothed away.
    """

    memory: MomentMemory
    image: int
    grey: Tensor
    expected: bool
    even: frozenset[str]

    def give(self, tensor: Tensor, moments: Tensor) -> None:
        """Add moments of an operand, of its shape or of one that it was broadcast to."""
        self.memory.add(tensor, moments.sum_to_size(tensor.shape))

    def is_image(self, tensor: Tensor) -> bool:
        """Whether a tensor is the image itself."""
        return storage_of(tensor) == self.image

    def square(self, weight: Tensor, fan_in: int) -> Tensor:
        """Return squared weights; on the meta device and under ``expected`` their mean for all of them.

        Weights without values count as they are drawn before ReLUs: with variance 2 / fan in.
        """
        if weight.is_meta:
            mean = torch.tensor(2 / fan_in, dtype=self.memory.dtype)
            return mean.expand(weight.shape)
        squared = weight.detach().cpu().to(self.memory.dtype).square()
        return squared.mean().expand(weight.shape) if self.expected else squared


Rule = Callable[[Step, "list[Tensor | None]", Flow], "str | None"]
"""Hands moments of a step's outputs on; returns in words why it does not, ``None`` when it did."""

rule: Rules[Rule] = Rules("aten", "prims")

_elementwise: list[Rule] = []


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
