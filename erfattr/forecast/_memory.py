"""The second moments of gradients, kept as the tensors keep their values: by memory, not by tensor.

A view and its base share memory, and an operator that works in place overwrites it. With the moments stored
by memory both need no rule of their own: a pass backward reads and clears the region that an operator wrote,
and adds to the regions that it read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from erfattr.receptive_field._signatures import storage_of


class MomentMemory:
    """One flat buffer of moments for each memory that has any.

    Args:
        dtype: Of the moments.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._flat: dict[int, Tensor] = {}

    def take(self, tensor: Tensor) -> Tensor | None:
        """Return the moments of a tensor and clear them there; ``None`` where its memory has none."""
        place = storage_of(tensor)
        flat = self._flat.get(place)
        if flat is None:
            return None
        region = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        if _distinct(tensor) and tensor.numel() == len(flat):
            del self._flat[place]
            return region
        found = region.clone(memory_format=torch.contiguous_format)
        region.zero_()
        return found

    def add(self, tensor: Tensor, moments: Tensor) -> None:
        """Add moments of a tensor's shape; elements that share their memory share the sum."""
        place = storage_of(tensor)
        spread = [dim for dim in range(tensor.ndim) if tensor.stride(dim) == 0 and tensor.shape[dim] > 1]
        if spread:
            moments = moments.sum(spread, keepdim=True)
        shape = [1 if dim in spread else length for dim, length in enumerate(tensor.shape)]
        if place not in self._flat:
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            self._flat[place] = torch.zeros(size, dtype=self.dtype)
        flat = self._flat[place]
        if _distinct(tensor, shape):
            flat.as_strided(shape, tensor.stride(), tensor.storage_offset()).add_(moments)
            return
        where = torch.arange(len(flat)).as_strided(shape, tensor.stride(), tensor.storage_offset())
        flat.index_add_(0, where.reshape(-1), moments.reshape(-1))


def _distinct(tensor: Tensor, shape: list[int] | None = None) -> bool:
    """Whether no two elements of a tensor share their memory, for sure."""
    reach = 1
    lengths = list(tensor.shape) if shape is None else shape
    for stride, length in sorted(zip(tensor.stride(), lengths, strict=True)):
        if length == 1:
            continue
        if stride < reach:
            return False
        reach = stride * (length - 1) + reach
    return True
