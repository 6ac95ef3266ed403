"""What is drawn over and about a map: the lines that hold shares of its mass, and where its colours end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from erfattr._checks import as_map, check_fraction, check_not_negative

_Array = npt.NDArray[np.float64]
Line = list[tuple[float, float]]

SHARES = (0.5, 0.99)
"""Shares of the mass that lines are drawn around."""
CLIPPED = 0.02
"""Share of the mass that may lie beyond the end of the colours."""
# Decades that logarithmic colours span.
_DECADES = 4.0
# Pixels that a line may lie off, so that it has few corners.
_OFF = 0.3


def mass_lines(values: Tensor, share: float, smooth: float = 2.0) -> list[Line]:
    """Return closed lines around the strongest pixels that together hold a share of a map's mass.

    Args:
        values: (H, W), not negative.
        share: In (0, 1].
        smooth: Standard deviation in pixels of the Gaussian that the map is smoothed with first: without it
            every pixel of a grid would have a line of its own.

    Returns:
        Lines of points (y, x) in pixels, pixel centres at integers; none for a map of zeros.

    Raises:
        ValueError: a negative value, or a share outside (0, 1].

    Example:
        >>> import torch
        >>> values = torch.zeros(9, 9)
        >>> values[2:7, 2:7] = 1
        >>> (line,) = mass_lines(values, 1.0, smooth=0)
        >>> min(y for y, _ in line), max(x for _, x in line)
        (1.5, 6.5)
    """
    from scipy.ndimage import gaussian_filter
    from skimage import measure

    untyped: Any = measure

    check_fraction("share", share)
    mass = _mass(values)
    if not mass.any():
        return []
    smoothed = gaussian_filter(mass, smooth, mode="constant") if smooth > 0 else mass
    ranked = np.sort(smoothed.ravel())[::-1]
    held = np.cumsum(ranked)
    last = min(int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))), len(ranked) - 1)
    # Half way to the next weaker pixel, so that the line runs between the two.
    below = ranked[ranked < ranked[last]]
    level = (ranked[last] + (below[0] if len(below) else 0.0)) / 2
    padded = np.pad(smoothed, 1)
    return [
        [(round(float(y) - 1, 1), round(float(x) - 1, 1)) for y, x in untyped.approximate_polygon(line, _OFF)]
        for line in untyped.find_contours(padded, level)
        if len(line) > 3
    ]


def color_ends(maps: Sequence[Tensor]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where colours begin and end, linear and logarithmic, for maps of one scale.

    A percentile of pixels would clip nearly all of a map that is concentrated on few, so linear colours end
    where 2 % of a map's mass lies beyond.

    Args:
        maps: (H, W) each, not negative.

    Returns:
        (0, end) for linear colours, (begin, end) for logarithmic ones: the four decades below the peak.

    Example:
        >>> import torch
        >>> color_ends([torch.tensor([[1.0, 1.0], [1.0, 1.0]])])[0]
        (0.0, 1.0)
    """
    arrays = [_mass(values) for values in maps]
    ends = [_end_of_mass(array) for array in arrays]
    peak = max(float(array.max()) for array in arrays)
    end = max(ends) or peak or 1.0
    peak = peak or 1.0
    lowest = min((float(array[array > 0].min()) for array in arrays if array.any()), default=peak)
    return (0.0, end), (max(lowest, peak / 10**_DECADES) if lowest < peak else peak / 10, peak)


def _end_of_mass(mass: _Array) -> float:
    """Return the value that cuts off `CLIPPED` of the mass; never below the mean."""
    ranked = np.sort(mass.ravel())[::-1]
    held = np.cumsum(ranked)
    if held[-1] == 0:
        return 0.0
    beyond = held - ranked * np.arange(1, len(ranked) + 1)
    # What lies beyond grows as the end falls.
    index = int(np.searchsorted(beyond, CLIPPED * held[-1], side="right")) - 1
    return float(max(ranked[index], held[-1] / len(ranked)))


def _mass(values: Tensor) -> _Array:
    checked = as_map("values", values).detach().cpu().double()
    check_not_negative("values", checked)
    mass: _Array = checked.numpy()
    return mass
