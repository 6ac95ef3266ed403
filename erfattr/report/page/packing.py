"""How a map travels inside a page: logarithms as 16-bit numbers, compressed, as text."""

from __future__ import annotations

import base64
import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from erfattr._checks import as_map, check_not_negative

MAP_STEP = 0.002
"""Step of a map's values, in natural logarithms; no value is off by more than 0.1 %."""
ERROR_STEP = 0.05
"""Step of a standard error's; no value is off by more than 2.5 %."""
_LARGEST = 65_535


class Packed(NamedTuple):
    """A map as a page carries it.

    Value v of code c: 0 for 0, otherwise exp(``origin`` + ``step`` (c - 1)).

    Attributes:
        shape: (H, W).
        origin: Logarithm of the smallest value that is told from zero.
        step: Of the logarithm.
        data: The codes, row by row: the low bytes of all, then the high ones; zlib, base64.
    """

    shape: tuple[int, int]
    origin: float
    step: float
    data: str

    def plain(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        return self._asdict()


def pack(values: Tensor, step: float = MAP_STEP) -> Packed:
    """Pack a map whose values are not negative.

    Args:
        values: (H, W), finite.
        step: Of the natural logarithm; values are rounded to it.

    Raises:
        ValueError: a value is negative or not finite.

    Example:
        >>> import torch
        >>> packed = pack(torch.tensor([[0.0, 1.0], [2.0, 1000.0]]))
        >>> packed.shape, unpack(packed).round(0).tolist()
        ((2, 2), [[0.0, 1.0], [2.0, 1000.0]])
    """
    checked = as_map("values", values).detach().cpu().double()
    check_not_negative("values", checked)
    array: npt.NDArray[np.float64] = checked.numpy()
    positive = array > 0
    origin, codes = 0.0, np.zeros(array.shape, dtype=np.int64)
    if positive.any():
        logarithms = np.log(array, where=positive, out=np.zeros_like(array))
        # What lies further below the peak than 16 bits reach (57 decades of a map) counts as zero.
        seen = logarithms[positive]
        origin = max(float(seen.min()), float(seen.max()) - step * (_LARGEST - 1))
        rounded = np.rint((logarithms - origin) / step).astype(np.int64) + 1
        codes = np.where(positive & (rounded > 0), rounded, 0)
    flat = codes.ravel()
    planes = np.concatenate([flat & 255, flat >> 8]).astype(np.uint8)
    data = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")
    return Packed((array.shape[0], array.shape[1]), origin, step, data)


def unpack(packed: Packed) -> npt.NDArray[np.float64]:
    """Return the values of a packed map, as the page's script reads them."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed.data)), dtype=np.uint8).astype(np.int64)
    low, high = planes.reshape(2, -1)
    codes = (low + 256 * high).reshape(packed.shape)
    return np.where(codes > 0, np.exp(packed.origin + packed.step * (codes - 1)), 0.0)
