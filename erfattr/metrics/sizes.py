"""How large a map is, whatever its shape: scores of its mass about a unit's projected centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from erfattr._checks import as_map, as_numbers, as_point, check_fraction, check_not_negative
from erfattr.metrics.jackknife import group_sums, standard_error, with_and_without
from erfattr.metrics.statistics import MapStatistics

_Array = npt.NDArray[np.float64]

FRACTIONS = (0.2, 0.3, 0.5, 0.99)
RADII = (10.0, 20.0, 40.0, 80.0)


@dataclass(frozen=True)
class AreaRatio:
    """One row of RepLKNet's table: see :func:`replknet_area_ratio`."""

    threshold: float
    side: int | None
    area_ratio: float | None


@dataclass(frozen=True)
class SizeScores:
    """Size scores of one map about a unit's projected centre; what they mean: the function of each name.

    Attributes:
        center: the projected centre (y, x) that was passed, in pixels.
        shape: (H, W) of the map.
        centroid: centre of mass (y, x) in pixels.
        centroid_offset: centroid minus center, (y, x) in pixels.
        fractions: shares of the mass that the squares hold.
        mass_squares: sides of these squares in pixels.
        radii: radii in pixels.
        radial_mass: shares of the mass within these radii.
        replknet_area_ratio: about the image centre and not scale-free; for published tables only.

    Example:
        >>> import torch
        >>> from erfattr import size_scores
        >>> spot = torch.zeros(65, 65)
        >>> spot[30:35, 30:35] = 1  # 5 x 5 pixels about (32, 32)
        >>> scores = size_scores(spot, (32, 32))
        >>> scores.centroid, scores.fractions[-1], round(scores.mass_squares[-1])
        ((32.0, 32.0), 0.99, 5)
    """

    center: tuple[float, float]
    shape: tuple[int, int]
    centroid: tuple[float, float]
    centroid_offset: tuple[float, float]
    fractions: tuple[float, ...]
    mass_squares: tuple[float, ...]
    radii: tuple[float, ...]
    radial_mass: tuple[float, ...]
    replknet_area_ratio: tuple[AreaRatio, ...]


def size_scores(
    sensitivity_map: Any,
    center: tuple[float, float],
    *,
    fractions: Sequence[float] = FRACTIONS,
    radii: Sequence[float] = RADII,
) -> SizeScores:
    """Return all size scores of a map about a unit's projected centre, for reports.

    Args:
        sensitivity_map: the map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels, as ``ReceptiveField.center`` gives it.
        fractions: for :func:`mass_squares` and :func:`replknet_area_ratio`, each in (0, 1].
        radii: for :func:`radial_mass`, in pixels, each at least 0.

    Returns:
        :class:`SizeScores`.

    Raises:
        TypeError: ``sensitivity_map``, ``center``, ``fractions`` or ``radii`` is not numeric.
        ValueError: as the functions gathered here.

    Example:
        >>> import torch
        >>> scores = size_scores(torch.ones(9, 9), center=(4, 4), fractions=(0.1,), radii=(1,))
        >>> scores.mass_squares, scores.centroid_offset, scores.radial_mass == (5 / 81,)
        ((3.0,), (0.0, 0.0), True)
    """
    return SizeScores(
        center=as_point("center", center),
        shape=_mass(sensitivity_map).shape,
        centroid=centroid(sensitivity_map),
        centroid_offset=centroid_offset(sensitivity_map, center),
        fractions=tuple(float(fraction) for fraction in fractions),
        mass_squares=mass_squares(sensitivity_map, center, fractions),
        radii=tuple(float(radius) for radius in radii),
        radial_mass=radial_mass(sensitivity_map, center, radii),
        replknet_area_ratio=replknet_area_ratio(sensitivity_map, fractions),
    )


def mass_squares(
    sensitivity_map: Any,
    center: tuple[float, float],
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[float, ...]:
    """Return the sides of the smallest centred squares that hold given shares of a map's mass.

    The square is centred at the projected centre and holds whole pixels: with half side r + 1/2 it holds the
    pixels whose centres lie at most r away along both axes, and r grows through the distances that occur. So
    the side 2 r + 1 is 1, 3, 5, ... for a centre on a pixel, 2, 4, 6, ... for one between four pixels, and
    any real number elsewhere. Parts of the square outside the image hold nothing and still count in the side.
    The score does not depend on the map's scale, and not on the image size unless the image cuts the map off.

    Args:
        sensitivity_map: the map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels; it may be fractional or outside the image. Not
            the image centre: measured from there, the square grows by twice the distance between the two.
        fractions: shares of the mass, each in (0, 1].

    Returns:
        One side in pixels for each fraction.

    Raises:
        TypeError: ``sensitivity_map``, ``center`` or ``fractions`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, negative somewhere or all zero; ``center``
            is not two finite numbers; ``fractions`` is empty or has a number outside (0, 1].

    Example:
        Squares of 1, 3 and 5 pixels hold 1, 9 and 25 of 25 equal pixels.

        >>> import torch
        >>> mass_squares(torch.ones(5, 5), center=(2, 2), fractions=(0.04, 0.3, 0.99))
        (1.0, 3.0, 5.0)
        >>> mass_squares(torch.ones(4, 4), center=(1.5, 1.5), fractions=(0.25, 0.26))
        (2.0, 4.0)
    """
    mass = _mass(sensitivity_map)
    center_y, center_x = as_point("center", center)
    wanted = as_numbers("fractions", fractions)
    for fraction in wanted:
        check_fraction("fractions", fraction)
    rows, columns = np.abs(np.arange(mass.shape[0]) - center_y), np.abs(np.arange(mass.shape[1]) - center_x)
    distance = np.maximum(rows[:, None], columns[None, :]).ravel()
    reach, ring = np.unique(distance, return_inverse=True)
    held = np.cumsum(np.bincount(ring.ravel(), weights=mass.ravel()))
    # A share met exactly must not be missed by rounding in the sums.
    needed = np.array(wanted) * held[-1] * (1 - 1e-12)
    return tuple((2 * reach[np.searchsorted(held, needed)] + 1).tolist())


def radial_mass(
    sensitivity_map: Any,
    center: tuple[float, float],
    radii: Sequence[float] = RADII,
) -> tuple[float, ...]:
    """Return the shares of a map's mass within given distances of the projected centre.

    A pixel counts whole when its centre is at most the radius away (Euclidean distance). The score does not
    depend on the map's scale.

    Args:
        sensitivity_map: the map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels.
        radii: distances in pixels, each at least 0.

    Returns:
        One share in [0, 1] for each radius.

    Raises:
        TypeError: ``sensitivity_map``, ``center`` or ``radii`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, negative somewhere or all zero; ``center``
            is not two finite numbers; ``radii`` is empty or has a negative or non-finite number.

    Example:
        A pixel and its four neighbours are 5 of 25.

        >>> import torch
        >>> radial_mass(torch.ones(5, 5), center=(2, 2), radii=(0, 1, 10))
        (0.04, 0.2, 1.0)
    """
    mass = _mass(sensitivity_map)
    center_y, center_x = as_point("center", center)
    wanted = as_numbers("radii", radii)
    if min(wanted) < 0:
        raise ValueError(f"radii: expected no negative distance, got {min(wanted):g}")
    rows, columns = np.arange(mass.shape[0]) - center_y, np.arange(mass.shape[1]) - center_x
    distance = np.hypot(rows[:, None], columns[None, :])
    total = mass.sum()
    return tuple(min(float(mass[distance <= radius].sum() / total), 1.0) for radius in wanted)


def centroid(sensitivity_map: Any) -> tuple[float, float]:
    """Return the centre of mass (y, x) of a map, in pixels with pixel centres at integers.

    An envelope cut off by the image border pulls the centroid inwards;
    :func:`~erfattr.metrics.gaussian_fit.fit_gaussian` has a centre too, which a cut does not move.

    Args:
        sensitivity_map: the map, shape (H, W), not negative, not all zero.

    Returns:
        (y, x), inside the image.

    Raises:
        TypeError: ``sensitivity_map`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, negative somewhere or all zero.

    Example:
        >>> import torch
        >>> centroid(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
        (0.75, 1.5)
    """
    from scipy.ndimage import center_of_mass

    y, x = center_of_mass(_mass(sensitivity_map))
    return float(y), float(x)


def centroid_error(stats: MapStatistics) -> tuple[float, float]:
    """Return the standard errors (y, x) of the centroid of a mean map, in pixels: a jackknife over groups.

    They are infinite where one group alone has the mass.

    Args:
        stats: What ``attribute(..., return_statistics=True)`` returns, of at least three groups.

    Raises:
        TypeError: ``stats`` is not a `MapStatistics`.
        ValueError: fewer than three groups, or a map without mass.

    Example:
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> statistics = StreamingStatistics(groups=4)
        >>> statistics.update(torch.eye(4)[:, None, :])  # four images, a pixel each
        >>> y, x = centroid_error(statistics.result())
        >>> y, round(x, 3)  # the standard deviation of 0, 1, 2, 3 divided by the root of 4
        (0.0, 0.645)
    """
    sums, sizes = group_sums("stats", stats)
    parts = with_and_without(sums).clamp_min(0) / with_and_without(sizes)[:, None, None]
    if not bool(parts.flatten(1).any(1).all()):
        return math.inf, math.inf
    whole, *without = (torch.tensor(centroid(part), dtype=torch.float64) for part in parts)
    y, x = standard_error(whole, torch.stack(without), sizes).tolist()
    return y, x


def centroid_offset(sensitivity_map: Any, center: tuple[float, float]) -> tuple[float, float]:
    """Return how far a map's centre of mass lies from the unit's projected centre: centroid minus center.

    Args:
        sensitivity_map: the map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels.

    Returns:
        (y, x) in pixels; positive is below and to the right of the projected centre.

    Raises:
        TypeError: ``sensitivity_map`` or ``center`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, negative somewhere or all zero; ``center``
            is not two finite numbers.

    Example:
        >>> import torch
        >>> centroid_offset(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), center=(0, 1))
        (0.75, 0.5)
    """
    center_y, center_x = as_point("center", center)
    y, x = centroid(sensitivity_map)
    return y - center_y, x - center_x


def replknet_area_ratio(
    sensitivity_map: Any, thresholds: Sequence[float] = FRACTIONS
) -> tuple[AreaRatio, ...]:
    r"""Return RepLKNet's "high-contribution area ratio", for comparison with published tables only.

    The scores S = log10(R + 1) / max log10(R + 1) are summed over squares of 2 i + 1 pixels about the image's
    pixel (H // 2, W // 2), i = 1, 2, ... below H // 2; the first square with more than the threshold's share
    of the sum gives the side, and side^2 / (H W) the area ratio.

    It is **not scale-free**: the logarithm leaves gradients far below 1 as they are and compresses those
    above, so the same map times a constant gets another side (a Gaussian of sigma 30 on 224 x 224 pixels at
    threshold 0.5: 65 at height 0.001, 113 at height 1000). Published numbers are about gradients summed over
    images' channels after the ReLU, in the units of their own preprocessing, and about the image centre,
    wherever the unit sits. Use :func:`mass_squares` for everything else.

    Args:
        sensitivity_map: the map, shape (H, W), not negative, not all zero. Its scale matters.
        thresholds: shares of the log-scaled sum, each in (0, 1].

    Returns:
        One :class:`AreaRatio` for each threshold; its side and ratio are None where no square is large
        enough.

    Raises:
        TypeError: ``sensitivity_map`` or ``thresholds`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, negative somewhere or all zero;
            ``thresholds`` is empty or has a number outside (0, 1].

    Example:
        9 of 49 equal pixels are 18 %, 25 are 51 %.

        >>> import torch
        >>> replknet_area_ratio(torch.ones(7, 7), thresholds=(0.5,))
        (AreaRatio(threshold=0.5, side=5, area_ratio=0.51...),)

    References:
        X. Ding et al.: Scaling Up Your Kernels to 31x31, CVPR 2022;
        https://github.com/DingXiaoH/RepLKNet-pytorch, erf/analyze_erf.py.
    """
    mass = _mass(sensitivity_map)
    wanted = as_numbers("thresholds", thresholds)
    for threshold in wanted:
        check_fraction("thresholds", threshold)
    scores = np.log10(mass + 1)
    height, width = scores.shape
    center_y, center_x = height // 2, width // 2
    held = [
        scores[max(center_y - i, 0) : center_y + i + 1, max(center_x - i, 0) : center_x + i + 1].sum()
        / scores.sum()
        for i in range(1, height // 2)
    ]
    ratios = []
    for threshold in wanted:
        side = next((2 * i + 1 for i, share in enumerate(held, start=1) if share > threshold), None)
        ratios.append(AreaRatio(threshold, side, None if side is None else side**2 / (height * width)))
    return tuple(ratios)


def _mass(sensitivity_map: Any) -> _Array:
    """Return a map as a float64 array, or raise unless it can be read as a distribution of mass."""
    values = as_map("sensitivity_map", sensitivity_map).detach()
    check_not_negative("sensitivity_map", values)
    if not bool(values.any()):
        raise ValueError("sensitivity_map: expected some mass, got a map of zeros")
    mass: _Array = values.cpu().double().numpy()
    return mass
