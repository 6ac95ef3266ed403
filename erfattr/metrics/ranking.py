"""Which pixels rank first: how many a fraction is, and which those are."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from erfattr._checks import check_fraction


def pixel_count(fraction: float, pixels: int) -> int:
    """Return how many of ``pixels`` pixels a fraction is: their product, rounded to the nearest integer.

    A half is rounded up. The product is exact, and the fraction is the decimal number that it is written as
    (the shortest one that Python reads as the same float). So neither the binary digits of 0.3 nor the order
    of multiplying decide: 0.3 of 45 pixels, or of 5 x 9, is 13.5 and becomes 14, although
    ``round(0.3 * 5 * 9)`` is 13 and ``round(0.3 * 45)`` is 14; 0.5 of 9 is 4.5 and becomes 5, although
    ``round(4.5)`` is 4. A fraction that was computed counts as the decimal that it is shown as: 1 / 6 is
    0.16666666666666666, and 9 of these are less than 1.5, so 1.

    Args:
        fraction: In (0, 1].
        pixels: How many there are.

    Example:
        >>> pixel_count(0.3, 45), pixel_count(0.5, 9), pixel_count(0.49, 1)
        (14, 5, 0)
    """
    return math.floor(Fraction(repr(float(fraction))) * pixels + Fraction(1, 2))


def first_pixels(
    values: Tensor, fraction: float, *, strongest: bool = True, mask: Tensor | None = None
) -> Tensor:
    """Mark the strongest or the weakest pixels of a map: `pixel_count` of them.

    Equal values are ranked by position, row by row from the top left.

    Args:
        values: The map, (H, W), finite.
        fraction: Share of the pixels to mark, in (0, 1].
        strongest: Whether to mark the strongest ones, or the weakest.
        mask: Pixels that may be marked, bool (H, W), of which the fraction is taken; by default all.

    Returns:
        bool (H, W), on the map's device.

    Raises:
        TypeError: ``fraction`` is not a number.
        ValueError: ``fraction`` is outside (0, 1], or rounds to no pixel.
    """
    check_fraction("fraction", fraction)
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    pixels = int(mask.sum())
    count = pixel_count(fraction, pixels)
    if count == 0:
        raise ValueError(f"fraction: expected at least one of {pixels} pixels, got {fraction}")
    # Pixels outside the mask rank behind all others: the mask holds at least as many as are marked.
    last = -torch.inf if strongest else torch.inf
    order = torch.where(mask, values, last).flatten().sort(descending=strongest, stable=True).indices
    marked = torch.zeros_like(mask).flatten()
    marked[order[:count]] = True
    return marked.view(values.shape)
