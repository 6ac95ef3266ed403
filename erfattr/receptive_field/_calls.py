"""Which operators a pass runs and with what, but for what follows from the size of the image.

Two passes over images of different sizes that note the same do the same: no branch was taken because of the
size, no other weights were read, no number was put in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Noted = tuple[str, tuple[Hashable, ...]]


class Calls:
    """Notes the operators of one pass.

    Of an operator that works on the image: its floating-point numbers and the constants it reads. Whole
    numbers there are sizes and positions, which follow the image. Of one that works on constants alone: whole
    numbers too, since they choose among constants.

    Args:
        model: Whose weights are constants with a name.
        of_image: Whether a tensor depends on the image.

    Attributes:
        noted: An entry for each operator, in the order they ran.
    """

    def __init__(self, model: nn.Module, of_image: Callable[[Tensor], bool]) -> None:
        named = (*model.named_parameters(), *model.named_buffers())
        self._names = {id(tensor): name for name, tensor in named}
        self._of_image = of_image
        self.noted: list[Noted] = []

    def note(self, operator: str, bound: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        """Note an operator, its arguments by name and the tensors among them."""
        constants = [tensor for tensor in tensors if not self._of_image(tensor)]
        kinds = (float,) if len(constants) < len(tensors) else (float, int, bool, str)
        numbers = (leaf for leaf in tree_leaves(list(bound.values())) if type(leaf) in kinds)
        self.noted.append((operator, (*numbers, *map(self._constant, constants))))

    def _constant(self, tensor: Tensor) -> Hashable:
        name = self._names.get(id(tensor))
        if name is not None or tensor.is_meta:  # what is made of others: how it was made is noted
            return name
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return tuple(tensor.shape), hash(content.numpy().tobytes())
