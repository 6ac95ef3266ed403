"""How large a map is, if it is a bell: a 2-D Gaussian fit (lmfit)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from erfattr._checks import as_map, check_bool
from erfattr._showing import Shown
from erfattr.metrics.jackknife import group_sums, standard_error, with_and_without
from erfattr.metrics.statistics import MapStatistics

_Array = npt.NDArray[np.float64]

_ORIGIN = 10.0
_WIDENINGS = np.array([1.0, 3.0])
_MAX_EVALUATIONS = 1000


class GaussianFitError(RuntimeError):
    """The Gaussian fit did not converge, or the map does not determine its parameters."""


@dataclass(frozen=True)
class GaussianErrors:
    """Standard errors of a :class:`GaussianFit`, one for each of its parameters and in the same unit.

    ``source`` says what they are. ``"images"``: the scatter between samples of images, from a jackknife over
    the groups of images of a `MapStatistics`; infinite where the fit fails without one of the groups.
    ``"residuals"``: of a map alone, as if the residuals of all pixels were independent and equally scattered.
    They are neither (the checkerboard is not noise), so these are errors of the fit, some 20 times smaller
    than the scatter of sigma between samples of images; R squared has none then.
    """

    amplitude: float
    height: float
    center: tuple[float, float]
    sigma_y: float
    sigma_x: float
    correlation: float | None
    background: float | None
    r_squared: float | None
    source: Literal["images", "residuals"]


@dataclass(frozen=True, repr=False)
class GaussianFit(Shown):
    r"""A 2-D Gaussian fitted to a map; unless asked for, with axes along rows and columns and no background.

    .. math::

        f(y, x) = h \exp\!\left(-\frac{u^2 - 2 \rho u v + v^2}{2 (1 - \rho^2)}\right) + b, \quad
        u = \frac{y - c_y}{\sigma_y}, \; v = \frac{x - c_x}{\sigma_x}

    Attributes:
        amplitude: volume under the bell over the whole plane (map unit times pixels squared), as lmfit
            defines it, not its peak.
        height: the peak h above the background, amplitude / (2 pi sigma_y sigma_x sqrt(1 - rho^2)), in the
            map's unit.
        center: (y, x) in pixels, pixel centres at integers; may lie outside the map.
        sigma_y: standard deviation along rows' index, the vertical one, in pixels.
        sigma_x: standard deviation along columns' index, the horizontal one, in pixels.
        correlation: rho, between -1 and 1, where a rotation was fitted; 0 otherwise.
        background: b, in the map's unit, where one was fitted; 0 otherwise.
        r_squared: share of the map's variance over its pixels that the fit explains, at most 1; negative
            where a constant would fit better.
        standard_errors: of each of the above parameters.
        shape: (H, W) of the map.
        n_pixels: number of fitted pixels, H * W.

    Example:
        >>> import torch
        >>> from erfattr import fit_gaussian
        >>> y, x = torch.arange(64.0)[:, None], torch.arange(64.0)
        >>> fit = fit_gaussian(torch.exp(-((y - 30) ** 2) / (2 * 4**2) - (x - 33) ** 2 / (2 * 6**2)))
        >>> [round(value, 3) for value in (*fit.center, fit.sigma_y, fit.sigma_x, fit.r_squared)]
        [30.0, 33.0, 4.0, 6.0, 1.0]
    """

    amplitude: float
    height: float
    center: tuple[float, float]
    sigma_y: float
    sigma_x: float
    correlation: float
    background: float
    r_squared: float
    standard_errors: GaussianErrors
    shape: tuple[int, int]
    n_pixels: int

    def _in_words(self) -> str:
        (y, x), errors = self.center, self.standard_errors
        return (
            f"sigma_y {self.sigma_y:.2f} +- {errors.sigma_y:.2g}, sigma_x {self.sigma_x:.2f} +- "
            f"{errors.sigma_x:.2g}, centre ({y:.1f}, {x:.1f}), R^2 {self.r_squared:.3f}"
        )

    @property
    def axes(self) -> tuple[float, float, float]:
        """Standard deviations along the long and the short axis, and the long one's angle in degrees.

        The angle is counted from the columns' axis (to the right) towards the rows' (down), in (-90, 90].
        """
        off = self.correlation * self.sigma_y * self.sigma_x
        values, vectors = np.linalg.eigh([[self.sigma_x**2, off], [off, self.sigma_y**2]])
        x, y = vectors[:, 1]
        angle = math.degrees(math.atan2(y, x))
        angle -= 180 * math.ceil((angle - 90) / 180)
        return math.sqrt(values[1]), math.sqrt(max(values[0], 0.0)), angle

    def evaluate(self, y: Any, x: Any) -> Tensor:
        """Return the Gaussian at rows ``y`` and columns ``x``, which broadcast, as a float64 tensor."""
        rows = torch.as_tensor(y, dtype=torch.float64)
        columns = torch.as_tensor(x, dtype=torch.float64)
        u, v = (rows - self.center[0]) / self.sigma_y, (columns - self.center[1]) / self.sigma_x
        square = (u**2 - 2 * self.correlation * u * v + v**2) / (1 - self.correlation**2)
        return self.height * torch.exp(-square / 2) + self.background


def fit_gaussian(sensitivity_map: Any, *, rotated: bool = False, background: bool = False) -> GaussianFit:
    """Fit a 2-D Gaussian to a map by least squares with lmfit.

    All pixels weigh the same; by default there is no rotation and no background, as in Tables 1 and 2 of the
    paper. The fit starts from the moments of the map above several thresholds, taking the start that is
    nearest to the map, so that neither a background nor a centre near the border leads it astray.

    Sigma measures the bell, not the map: a checkerboard or a plateau lowers ``r_squared`` and can leave sigma
    as it was. Where ``r_squared`` is low, read :func:`~erfattr.metrics.sizes.mass_squares` instead. A slanted
    bell is fitted by a rounder one unless ``rotated``, and on a background sigma comes out too large unless
    ``background``.

    Args:
        sensitivity_map: the map, shape (H, W), at least 3 x 3 pixels, any scale; or a `MapStatistics`, whose
            groups of images then give the standard errors. A map wider than its image is fine as long as its
            curvature can be seen.
        rotated: also fit the bell's slant, ``GaussianFit.correlation``; ``GaussianFit.axes`` says it as an
            angle.
        background: also fit a constant below the bell.

    Returns:
        :class:`GaussianFit`: amplitude, height, centre, sigmas, R squared and standard errors.

    Raises:
        TypeError: ``sensitivity_map`` is not numeric, a switch is not a boolean.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, smaller than 3 x 3 or constant (all zeros
            as well); statistics of fewer than three groups.
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
    check_bool("rotated", rotated)
    check_bool("background", background)
    if not isinstance(sensitivity_map, MapStatistics):
        return _fit(sensitivity_map, rotated, background, None)
    sums, sizes = group_sums("sensitivity_map", sensitivity_map)
    whole = _fit(sensitivity_map.mean, rotated, background, None)
    # Of a map without one group the fit is near, so it starts from that of all.
    begin = _Start(
        whole.height, *whole.center, whole.sigma_y, whole.sigma_x, whole.correlation, whole.background
    )
    parts = with_and_without(sums)[1:] / with_and_without(sizes)[1:, None, None]
    try:
        without = torch.stack([_numbers(_fit(part, rotated, background, begin)) for part in parts])
        errors = standard_error(_numbers(whole), without, sizes).tolist()
    except (GaussianFitError, ValueError):  # without one group no bell is left, or nothing at all
        errors = [math.inf] * len(_numbers(whole))
    amplitude, height, center_y, center_x, sigma_y, sigma_x, correlation, below, r_squared = errors
    return replace(
        whole,
        standard_errors=GaussianErrors(
            amplitude=amplitude,
            height=height,
            center=(center_y, center_x),
            sigma_y=sigma_y,
            sigma_x=sigma_x,
            correlation=correlation if rotated else None,
            background=below if background else None,
            r_squared=r_squared,
            source="images",
        ),
    )


def _numbers(fit: GaussianFit) -> Tensor:
    """Return what has a standard error."""
    numbers = (fit.amplitude, fit.height, *fit.center, fit.sigma_y, fit.sigma_x)
    return torch.tensor((*numbers, fit.correlation, fit.background, fit.r_squared), dtype=torch.float64)


def _bell(
    x: _Array,
    y: _Array,
    amplitude: float,
    centery: float,
    centerx: float,
    sigmay: float,
    sigmax: float,
    slant: float,
    level: float,
) -> _Array:
    """Return lmfit's ``gaussian2d``, with the correlation and the background that it has not."""
    correlation, background = math.tanh(slant - _ORIGIN), level - _ORIGIN
    u, v = (y - centery) / sigmay, (x - centerx) / sigmax
    rest = 1 - correlation**2
    square = (u**2 - 2 * correlation * u * v + v**2) / rest
    bell: _Array = amplitude / (2 * math.pi * sigmay * sigmax * math.sqrt(rest)) * np.exp(-square / 2)
    return bell + background


def _fit(sensitivity_map: Any, rotated: bool, background: bool, begin: _Start | None) -> GaussianFit:
    """Fit one map, with the errors of its residuals."""
    from lmfit import Model

    values = as_map("sensitivity_map", sensitivity_map).detach().cpu().double().numpy()
    height, width = values.shape
    if min(height, width) < 3:
        raise ValueError(f"sensitivity_map: expected at least 3 x 3 pixels, got {height} x {width}")
    if values.min() == values.max():
        raise ValueError(
            f"sensitivity_map: expected a map that is not constant, got {values.flat[0]:g} everywhere"
        )
    # Fitted at height 1, since lmfit's steps and tolerances are made for numbers near 1, and scaled back.
    scale = float(np.abs(values).max())
    data = values / scale
    if begin is None:
        start = _start(data, rotated, background)
    else:
        start = replace(begin, height=begin.height / scale, background=begin.background / scale)
    # Coordinates are fitted in units of the starting sigmas, and what may be near 0 (a centre at pixel 0, no
    # slant, no background) is shifted: MINPACK steps by a share of each parameter, which would lose its
    # derivative there.
    rows = (np.arange(height, dtype=np.float64) - start.center_y) / start.sigma_y + _ORIGIN
    columns = (np.arange(width, dtype=np.float64) - start.center_x) / start.sigma_x + _ORIGIN
    model = Model(_bell, independent_vars=["x", "y"])
    parameters = model.make_params(
        amplitude=2 * math.pi * start.height * math.sqrt(1 - start.correlation**2),
        centery=_ORIGIN,
        centerx=_ORIGIN,
        sigmay={"value": 1, "min": 0},
        sigmax={"value": 1, "min": 0},
        slant={"value": math.atanh(start.correlation) + _ORIGIN, "vary": rotated},
        level={"value": start.background + _ORIGIN, "vary": background},
    )
    factor = f"{2 * math.pi!r} * sigmay * sigmax * sqrt(1 - tanh(slant - {_ORIGIN}) ** 2)"
    parameters.add("height", expr=f"amplitude / ({factor})")
    result = model.fit(data, parameters, x=columns[None, :], y=rows[:, None], max_nfev=_MAX_EVALUATIONS)
    _check_fit(result)

    fitted = {name: parameter.value for name, parameter in result.params.items()}
    errors = {name: parameter.stderr for name, parameter in result.params.items()}
    volume = scale * start.sigma_y * start.sigma_x
    correlation = math.tanh(fitted["slant"] - _ORIGIN) if rotated else 0.0
    return GaussianFit(
        amplitude=fitted["amplitude"] * volume,
        height=float(fitted["height"]) * scale,
        center=(
            start.center_y + (fitted["centery"] - _ORIGIN) * start.sigma_y,
            start.center_x + (fitted["centerx"] - _ORIGIN) * start.sigma_x,
        ),
        sigma_y=fitted["sigmay"] * start.sigma_y,
        sigma_x=fitted["sigmax"] * start.sigma_x,
        correlation=correlation,
        background=(fitted["level"] - _ORIGIN) * scale if background else 0.0,
        r_squared=float(result.rsquared),
        standard_errors=GaussianErrors(
            amplitude=errors["amplitude"] * volume,
            height=float(errors["height"]) * scale,
            center=(errors["centery"] * start.sigma_y, errors["centerx"] * start.sigma_x),
            sigma_y=errors["sigmay"] * start.sigma_y,
            sigma_x=errors["sigmax"] * start.sigma_x,
            correlation=errors["slant"] * (1 - correlation**2) if rotated else None,
            background=errors["level"] * scale if background else None,
            r_squared=None,
            source="residuals",
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
    correlation: float = 0.0
    background: float = 0.0


def _start(data: _Array, rotated: bool, background: bool) -> _Start:
    """Return starting values: of several moment estimates the one with the least squared residual."""
    if background:
        # The lowest tenth of the pixels is hardly any of the bell.
        below = float(np.quantile(data, 0.1))
        return replace(_start(data - below, rotated, False), background=below)
    rows, columns = np.arange(data.shape[0], dtype=np.float64), np.arange(data.shape[1], dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    best, most_explained = None, 0.0
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
                if overlap > 0 and norm > 0 and overlap**2 / norm > most_explained:
                    most_explained = overlap**2 / norm
                    best = _Start(overlap / norm, center_y, center_x, float(sigma_y), float(sigma_x))
    if best is None:
        raise GaussianFitError("the Gaussian fit cannot start: the map has no positive peak")
    if rotated:
        return replace(best, correlation=_slant(data - low - 0.25 * (high - low), best))
    return best


def _slant(data: _Array, start: _Start) -> float:
    """Return the correlation of rows and columns under a map, where the map is above zero."""
    weight = np.clip(data, 0, None)
    y = np.arange(data.shape[0])[:, None] - start.center_y
    x = np.arange(data.shape[1])[None, :] - start.center_x
    squares = float((weight * y**2).sum()) * float((weight * x**2).sum())
    return float(np.clip((weight * y * x).sum() / math.sqrt(squares), -0.95, 0.95)) if squares > 0 else 0.0


def _check_fit(result: Any) -> None:
    """Raise unless lmfit converged, at a bell, with standard errors for every parameter."""
    if not result.success:
        # lmfit's own message is about tolerances when the evaluations ran out.
        reason = "" if result.aborted else f": {result.message}"
        raise GaussianFitError(f"the Gaussian fit did not converge in {result.nfev} evaluations{reason}")
    varied = [name for name, parameter in result.params.items() if parameter.vary or parameter.expr]
    errors = [result.params[name].stderr for name in varied]
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
