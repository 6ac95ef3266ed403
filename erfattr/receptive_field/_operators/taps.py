"""Which input indices each output index of a window reads, as arrays of (taps, outputs)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from erfattr.receptive_field._axes import MISSING

Taps = npt.NDArray[np.int64]


@lru_cache(maxsize=1024)
def window_taps(
    length: int, kernel: int, stride: int, padding: int, dilation: int, *, transposed: bool = False
) -> Taps:
    """Return (kernel, length) input indices that a convolution or a pooling with ``length`` outputs reads."""
    output = np.arange(length)[None, :]
    tap = np.arange(kernel)[:, None] * dilation
    if not transposed:
        return output * stride - padding + tap
    # Input index i writes to i * stride - padding + tap; outputs that no i reaches by a tap stay empty.
    scaled = output + padding - tap
    return np.where(scaled % stride == 0, scaled // stride, MISSING)


@lru_cache(maxsize=1024)
def adaptive_taps(old: int, new: int) -> Taps:
    """Return (K, new) input indices that an adaptive pooling from ``old`` to ``new`` reads."""
    start = np.arange(new) * old // new
    end = -(-(np.arange(1, new + 1) * old) // new)
    taps = start[None, :] + np.arange(int((end - start).max()))[:, None]
    return np.where(taps < end[None, :], taps, MISSING)


def taps_from_mask(mask: npt.NDArray[Any]) -> Taps:
    """Return (K, new) input indices from a boolean (old, new) table of what each output index reads."""
    count = int(mask.sum(axis=0).max())
    taps = np.full((max(count, 1), mask.shape[1]), MISSING, dtype=np.int64)
    for index in range(mask.shape[1]):
        read = np.flatnonzero(mask[:, index])
        taps[: len(read), index] = read
    return taps
