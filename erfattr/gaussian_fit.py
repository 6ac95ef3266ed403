"""How large a map is: a 2-D Gaussian fit (lmfit), and size scores that need no model of the shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lmfit
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from erfattr._checks import as_map, check_fraction, describe

_Array = npt.NDArray[np.float64]

FRACTIONS = (0.2, 0.3, 0.5, 0.99)
RADII = (10.0, 20.0, 40.0, 80.0)

_ORIGIN = 10.0
_WIDENINGS = np.array([1.0, 3.0])
_MAX_EVALUATIONS = 1000


class GaussianFitError(RuntimeError):
    """The Gaussian fit did not converge, or the map does not determine its parameters."""


@dataclass(frozen=True)
class GaussianErrors:
    """Standard errors of a :class:`GaussianFit`, one for each of its parameters and in the same unit.

    They treat the residuals of all pixels as independent and equally scattered. The residuals of a map are
    neither (the checkerboard is not noise), so these are errors of the fit, much smaller than the scatter of
    sigma between samples of images.
    """

    amplitude: float
    height: float
    center: tuple[float, float]
    sigma_y: float
    sigma_x: float


@dataclass(frozen=True)
class GaussianFit:
    r"""A 2-D Gaussian with axes along rows and columns, fitted to a map.

    .. math::

        f(y, x) = \frac{A}{2 \pi \sigma_y \sigma_x}
        \exp\!\left(-\frac{(y - c_y)^2}{2 \sigma_y^2} - \frac{(x - c_x)^2}{2 \sigma_x^2}\right)

    Attributes:
        amplitude: A, as lmfit defines it: the volume under the Gaussian over the whole plane (map unit times
            pixels squared), not its peak.
        height: the peak, A / (2 pi sigma_y sigma_x), in the map's unit.
        center: (y, x) in pixels, pixel centres at integers; may lie outside the map.
        sigma_y: standard deviation along rows' index, the vertical one, in pixels.
        sigma_x: standard deviation along columns' index, the horizontal one, in pixels.
        r_squared: share of the map's variance over its pixels that the fit explains, at most 1; negative
            where a constant would fit better, as the Gaussian has no background term.
        standard_errors: of each of the above parameters.
        shape: (H, W) of the map.
        n_pixels: number of fitted pixels, H * W.
    """

    amplitude: float
    height: float
    center: tuple[float, float]
    sigma_y: float
    sigma_x: float
    r_squared: float
    standard_errors: GaussianErrors
    shape: tuple[int, int]
    n_pixels: int

    def evaluate(self, y: Any, x: Any) -> Tensor:
        """Return the Gaussian at rows ``y`` and columns ``x``, which broadcast, as a float64 tensor."""
        rows = torch.as_tensor(y, dtype=torch.float64)
        columns = torch.as_tensor(x, dtype=torch.float64)
        return self.height * torch.exp(
            -((rows - self.center[0]) ** 2) / (2 * self.sigma_y**2)
            - (columns - self.center[1]) ** 2 / (2 * self.sigma_x**2)
        )


def fit_gaussian(map: Any) -> GaussianFit:  # noqa: A002
    """Fit a 2-D Gaussian to a map by least squares with lmfit's ``Gaussian2dModel``.

    All pixels weigh the same and there is no background term, as in Tables 1 and 2 of the paper. The fit
    starts from the moments of the map above several thresholds, taking the start that is nearest to the map,
    so that neither a background nor a centre near the border leads it astray.

    Sigma measures the bell, not the map: a checkerboard or a plateau lowers ``r_squared`` and can leave sigma
    as it was. Where ``r_squared`` is low, read :func:`mass_squares` instead.

    Args:
        map: sensitivity map, shape (H, W), at least 3 x 3 pixels, any scale. A map wider than its image is
            fine as long as its curvature can be seen.

    Returns:
        :class:`GaussianFit`: amplitude, height, centre, sigmas, R squared and standard errors.

    Raises:
        TypeError: ``map`` is not numeric.
        ValueError: ``map`` is not (H, W), not finite, smaller than 3 x 3 or constant (all zeros as well).
        GaussianFitError: the map has no positive peak; the fit did not converge, ended without a covariance
            (so without standard errors), or with a width smaller than its own standard error. Maps that do
            not determine a Gaussian end here: one pixel, one row, a dip, noise.

    Example:
        A Gaussian of height 2 with sigmas 3 and 4 has the volume 2 * 2 pi * 3 * 4 = 48 pi = 150.8.

        >>> import torch
        >>> y, x = torch.arange(40.0)[:, None], torch.arange(50.0)
        >>> fit = fit_gaussian(2 * torch.exp(-(y - 12) ** 2 / (2 * 3**2) - (x - 30) ** 2 / (2 * 4**2)))
        >>> [round(value, 3) for value in (*fit.center, fit.sigma_y, fit.sigma_x, fit.height, fit.amplitude)]
        [12.0, 30.0, 3.0, 4.0, 2.0, 150.796]

    References:
        M. Newville et al.: LMFIT, https://lmfit.github.io/lmfit-py/builtin_models.html
    """
    values = as_map("map", map).detach().cpu().double().numpy()
    height, width = values.shape
    if min(height, width) < 3:
        raise ValueError(f"map: expected at least 3 x 3 pixels, got {height} x {width}")
    if values.min() == values.max():
        raise ValueError(f"map: expected a map that is not constant, got {values.flat[0]:g} everywhere")
    # Fitted at height 1, since lmfit's steps and tolerances are made for numbers near 1, and scaled back.
    scale = float(np.abs(values).max())
    data = values / scale
    start = _start(data)
    # Coordinates are fitted in units of the starting sigmas, with the starting centre away from 0: MINPACK
    # steps by a share of each parameter, so one near zero (a centre at pixel 0) would lose its derivative.
    rows = (np.arange(height, dtype=np.float64) - start.center_y) / start.sigma_y + _ORIGIN
    columns = (np.arange(width, dtype=np.float64) - start.center_x) / start.sigma_x + _ORIGIN
    model = lmfit.models.Gaussian2dModel()
    parameters = model.make_params(
        amplitude=2 * math.pi * start.height, centery=_ORIGIN, centerx=_ORIGIN, sigmay=1, sigmax=1
    )
    result = model.fit(data, parameters, x=columns[None, :], y=rows[:, None], max_nfev=_MAX_EVALUATIONS)
    _check_fit(result)

    found = {name: parameter.value for name, parameter in result.params.items()}
    errors = {name: parameter.stderr for name, parameter in result.params.items()}
    volume = scale * start.sigma_y * start.sigma_x
    residual = data - result.best_fit
    return GaussianFit(
        amplitude=found["amplitude"] * volume,
        # Not lmfit's own height parameter, which multiplies by 1 / (2 pi) rounded to seven digits.
        height=found["amplitude"] / (2 * math.pi * found["sigmay"] * found["sigmax"]) * scale,
        center=(
            start.center_y + (found["centery"] - _ORIGIN) * start.sigma_y,
            start.center_x + (found["centerx"] - _ORIGIN) * start.sigma_x,
        ),
        sigma_y=found["sigmay"] * start.sigma_y,
        sigma_x=found["sigmax"] * start.sigma_x,
        r_squared=1 - float((residual**2).sum() / ((data - data.mean()) ** 2).sum()),
        standard_errors=GaussianErrors(
            amplitude=errors["amplitude"] * volume,
            height=errors["height"] * scale,
            center=(errors["centery"] * start.sigma_y, errors["centerx"] * start.sigma_x),
            sigma_y=errors["sigmay"] * start.sigma_y,
            sigma_x=errors["sigmax"] * start.sigma_x,
        ),
        shape=(height, width),
        n_pixels=values.size,
    )


@dataclass(frozen=True)
class _Start:
    """Starting values of the fit, in pixels and in the map's unit."""

    height: float
    center_y: float
    center_x: float
    sigma_y: float
    sigma_x: float


def _start(data: _Array) -> _Start:
    """Return starting values: of several moment estimates the one with the least squared residual."""
    rows, columns = np.arange(data.shape[0], dtype=np.float64), np.arange(data.shape[1], dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    best, most = None, 0.0
    for threshold in (0.0, low, low + 0.25 * (high - low), low + 0.5 * (high - low)):
        weight = np.clip(data - threshold, 0, None)
        total = weight.sum()
        if total == 0:
            continue
        along_rows, along_columns = weight.sum(axis=1) / total, weight.sum(axis=0) / total
        center_y, center_x = float(along_rows @ rows), float(along_columns @ columns)
        # A single row or column above the threshold has no spread; a third of a pixel keeps the start finite.
        spread_y = max(math.sqrt(float(along_rows @ (rows - center_y) ** 2)), 1 / 3)
        spread_x = max(math.sqrt(float(along_columns @ (columns - center_x) ** 2)), 1 / 3)
        # Cut off at the threshold and at the border, the moments are too small; by how much is not known.
        for sigma_y in spread_y * _WIDENINGS:
            bell_y = np.exp(-((rows - center_y) ** 2) / (2 * sigma_y**2))
            for sigma_x in spread_x * _WIDENINGS:
                bell_x = np.exp(-((columns - center_x) ** 2) / (2 * sigma_x**2))
                # The best height of a given bell is a projection and explains overlap^2 / norm.
                overlap, norm = float(bell_y @ data @ bell_x), float((bell_y @ bell_y) * (bell_x @ bell_x))
                if overlap > 0 and norm > 0 and overlap**2 / norm > most:
                    most = overlap**2 / norm
                    best = _Start(overlap / norm, center_y, center_x, float(sigma_y), float(sigma_x))
    if best is None:
        raise GaussianFitError("the Gaussian fit cannot start: the map has no positive peak")
    return best


def _check_fit(result: Any) -> None:
    """Raise unless lmfit converged, at a bell, with standard errors for every parameter."""
    if not result.success:
        # lmfit's own message is about tolerances when the evaluations ran out.
        reason = "" if result.aborted else f": {result.message}"
        raise GaussianFitError(f"the Gaussian fit did not converge in {result.nfev} evaluations{reason}")
    # lmfit derives two more, the full widths at half maximum, which nobody reads here.
    names = ("amplitude", "height", "centery", "centerx", "sigmay", "sigmax")
    errors = [result.params[name].stderr for name in names]
    if not result.errorbars or any(error is None or not math.isfinite(error) for error in errors):
        raise GaussianFitError(
            "the Gaussian fit has no covariance, so no standard errors: the map does not determine centre and"
            " widths (too few pixels carry it, or its peak lies outside)"
        )
    for name in ("sigmay", "sigmax"):
        # In units of the start, but a ratio has none.
        width, error = result.params[name].value, result.params[name].stderr
        if error > width:
            raise GaussianFitError(
                f"the Gaussian fit does not determine sigma_{name[-1]}: its standard error is"
                f" {error / width:.3g} times its value (the map has no peak, or only noise)"
            )


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
    map: Any,  # noqa: A002
    center: tuple[float, float],
    *,
    fractions: Sequence[float] = FRACTIONS,
    radii: Sequence[float] = RADII,
) -> SizeScores:
    """Return all size scores of a map about a unit's projected centre, for reports.

    Args:
        map: sensitivity map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels, as ``ReceptiveField.center`` gives it.
        fractions: for :func:`mass_squares` and :func:`replknet_area_ratio`, each in (0, 1].
        radii: for :func:`radial_mass`, in pixels, each at least 0.

    Returns:
        :class:`SizeScores`.

    Raises:
        TypeError: ``map``, ``center``, ``fractions`` or ``radii`` is not numeric.
        ValueError: as the functions gathered here.

    Example:
        >>> import torch
        >>> scores = size_scores(torch.ones(9, 9), center=(4, 4), fractions=(0.1,), radii=(1,))
        >>> scores.mass_squares, scores.centroid_offset, scores.radial_mass == (5 / 81,)
        ((3.0,), (0.0, 0.0), True)
    """
    return SizeScores(
        center=_as_center(center),
        shape=_mass("map", map).shape,
        centroid=centroid(map),
        centroid_offset=centroid_offset(map, center),
        fractions=tuple(float(fraction) for fraction in fractions),
        mass_squares=mass_squares(map, center, fractions),
        radii=tuple(float(radius) for radius in radii),
        radial_mass=radial_mass(map, center, radii),
        replknet_area_ratio=replknet_area_ratio(map, fractions),
    )


def mass_squares(
    map: Any,  # noqa: A002
    center: tuple[float, float],
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[float, ...]:
    """Return the sides of the smallest centred squares that hold given shares of a map's mass.

    The square is centred at the projected centre and holds whole pixels: with half side r + 1/2 it holds the
    pixels whose centres lie at most r away along both axes, and r grows through the distances that occur. So
    the side 2 r + 1 is 1, 3, 5, ... for a centre on a pixel, 2, 4, 6, ... for one between four pixels, and
    any real number elsewhere. Parts of the square outside the image hold nothing and still count in the side.
    The score
    does not depend on the map's scale, and not on the image size unless the image cuts the map off.

    Args:
        map: sensitivity map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels; it may be fractional or outside the image. Not
            the image centre: measured from there, the square grows by twice the distance between the two.
        fractions: shares of the mass, each in (0, 1].

    Returns:
        One side in pixels for each fraction.

    Raises:
        TypeError: ``map``, ``center`` or ``fractions`` is not numeric.
        ValueError: ``map`` is not (H, W), not finite, negative somewhere or all zero; ``center`` is not two
            finite numbers; ``fractions`` is empty or has a number outside (0, 1].

    Example:
        Squares of 1, 3 and 5 pixels hold 1, 9 and 25 of 25 equal pixels.

        >>> import torch
        >>> mass_squares(torch.ones(5, 5), center=(2, 2), fractions=(0.04, 0.3, 0.99))
        (1.0, 3.0, 5.0)
        >>> mass_squares(torch.ones(4, 4), center=(1.5, 1.5), fractions=(0.25, 0.26))
        (2.0, 4.0)
    """
    mass = _mass("map", map)
    center_y, center_x = _as_center(center)
    wanted = _as_numbers("fractions", fractions)
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
    map: Any,  # noqa: A002
    center: tuple[float, float],
    radii: Sequence[float] = RADII,
) -> tuple[float, ...]:
    """Return the shares of a map's mass within given distances of the projected centre.

    A pixel counts whole when its centre is at most the radius away (Euclidean distance). The score does not
    depend on the map's scale.

    Args:
        map: sensitivity map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels.
        radii: distances in pixels, each at least 0.

    Returns:
        One share in [0, 1] for each radius.

    Raises:
        TypeError: ``map``, ``center`` or ``radii`` is not numeric.
        ValueError: ``map`` is not (H, W), not finite, negative somewhere or all zero; ``center`` is not two
            finite numbers; ``radii`` is empty or has a negative or non-finite number.

    Example:
        A pixel and its four neighbours are 5 of 25.

        >>> import torch
        >>> radial_mass(torch.ones(5, 5), center=(2, 2), radii=(0, 1, 10))
        (0.04, 0.2, 1.0)
    """
    mass = _mass("map", map)
    center_y, center_x = _as_center(center)
    wanted = _as_numbers("radii", radii)
    if min(wanted) < 0:
        raise ValueError(f"radii: expected no negative distance, got {min(wanted):g}")
    rows, columns = np.arange(mass.shape[0]) - center_y, np.arange(mass.shape[1]) - center_x
    distance = np.hypot(rows[:, None], columns[None, :])
    total = mass.sum()
    return tuple(min(float(mass[distance <= radius].sum() / total), 1.0) for radius in wanted)


def centroid(map: Any) -> tuple[float, float]:  # noqa: A002
    """Return the centre of mass (y, x) of a map, in pixels with pixel centres at integers.

    An envelope cut off by the image border pulls the centroid inwards; :func:`fit_gaussian` has a centre too,
    which a cut does not move.

    Args:
        map: sensitivity map, shape (H, W), not negative, not all zero.

    Returns:
        (y, x), inside the image.

    Raises:
        TypeError: ``map`` is not numeric.
        ValueError: ``map`` is not (H, W), not finite, negative somewhere or all zero.

    Example:
        >>> import torch
        >>> centroid(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
        (0.75, 1.5)
    """
    mass = _mass("map", map)
    total = mass.sum()
    rows, columns = np.arange(mass.shape[0]), np.arange(mass.shape[1])
    return float(mass.sum(axis=1) @ rows / total), float(mass.sum(axis=0) @ columns / total)


def centroid_offset(map: Any, center: tuple[float, float]) -> tuple[float, float]:  # noqa: A002
    """Return how far a map's centre of mass lies from the unit's projected centre: centroid minus center.

    Args:
        map: sensitivity map, shape (H, W), not negative, not all zero.
        center: the unit's projected centre (y, x) in pixels.

    Returns:
        (y, x) in pixels; positive is below and to the right of the projected centre.

    Raises:
        TypeError: ``map`` or ``center`` is not numeric.
        ValueError: ``map`` is not (H, W), not finite, negative somewhere or all zero; ``center`` is not two
            finite numbers.

    Example:
        >>> import torch
        >>> centroid_offset(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), center=(0, 1))
        (0.75, 0.5)
    """
    center_y, center_x = _as_center(center)
    y, x = centroid(map)
    return y - center_y, x - center_x


def replknet_area_ratio(map: Any, thresholds: Sequence[float] = FRACTIONS) -> tuple[AreaRatio, ...]:  # noqa: A002
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
        map: sensitivity map, shape (H, W), not negative, not all zero. Its scale matters.
        thresholds: shares of the log-scaled sum, each in (0, 1].

    Returns:
        One :class:`AreaRatio` for each threshold; its side and ratio are None where no square is large
        enough.

    Raises:
        TypeError: ``map`` or ``thresholds`` is not numeric.
        ValueError: ``map`` is not (H, W), not finite, negative somewhere or all zero; ``thresholds`` is empty
            or has a number outside (0, 1].

    Example:
        9 of 49 equal pixels are 18 %, 25 are 51 %.

        >>> import torch
        >>> replknet_area_ratio(torch.ones(7, 7), thresholds=(0.5,))
        (AreaRatio(threshold=0.5, side=5, area_ratio=0.51...),)

    References:
        X. Ding et al.: Scaling Up Your Kernels to 31x31, CVPR 2022;
        https://github.com/DingXiaoH/RepLKNet-pytorch, erf/analyze_erf.py.
    """
    mass = _mass("map", map)
    wanted = _as_numbers("thresholds", thresholds)
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


def _mass(name: str, value: Any) -> _Array:
    """Return a map as a float64 array, or raise unless it can be read as a distribution of mass."""
    mass: _Array = as_map(name, value).detach().cpu().double().numpy()
    if mass.min() < 0:
        raise ValueError(f"{name}: expected no negative values, got a minimum of {mass.min():g}")
    if mass.max() == 0:
        raise ValueError(f"{name}: expected some mass, got a map of zeros")
    return mass


def _as_center(center: Any) -> tuple[float, float]:
    """Return ``center`` as two finite floats (y, x), or raise."""
    values = _as_numbers("center", center)
    if len(values) != 2:
        raise ValueError(f"center: expected (y, x), got {describe(center)}")
    return values[0], values[1]


def _as_numbers(name: str, values: Any) -> tuple[float, ...]:
    """Return a non-empty sequence of finite numbers as floats, or raise."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a sequence of numbers, got {describe(values)}") from error
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name}: expected finite numbers, got {describe(values)}")
    return numbers
