"""How large a map is, if it is a bell: a 2-D Gaussian fit (lmfit)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from erfattr._checks import as_map

_Array = npt.NDArray[np.float64]

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


def fit_gaussian(sensitivity_map: Any) -> GaussianFit:
    """Fit a 2-D Gaussian to a map by least squares with lmfit's ``Gaussian2dModel``.

    All pixels weigh the same and there is no background term, as in Tables 1 and 2 of the paper. The fit
    starts from the moments of the map above several thresholds, taking the start that is nearest to the map,
    so that neither a background nor a centre near the border leads it astray.

    Sigma measures the bell, not the map: a checkerboard or a plateau lowers ``r_squared`` and can leave sigma
    as it was. Where ``r_squared`` is low, read :func:`~erfattr.metrics.sizes.mass_squares` instead.

    Args:
        sensitivity_map: the map, shape (H, W), at least 3 x 3 pixels, any scale. A map wider than its image
            is fine as long as its curvature can be seen.

    Returns:
        :class:`GaussianFit`: amplitude, height, centre, sigmas, R squared and standard errors.

    Raises:
        TypeError: ``sensitivity_map`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, smaller than 3 x 3 or constant (all zeros
            as well).
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
    from lmfit.models import Gaussian2dModel

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
    start = _start(data)
    # Coordinates are fitted in units of the starting sigmas, with the starting centre away from 0: MINPACK
    # steps by a share of each parameter, so one near zero (a centre at pixel 0) would lose its derivative.
    rows = (np.arange(height, dtype=np.float64) - start.center_y) / start.sigma_y + _ORIGIN
    columns = (np.arange(width, dtype=np.float64) - start.center_x) / start.sigma_x + _ORIGIN
    model = Gaussian2dModel()
    parameters = model.make_params(
        amplitude=2 * math.pi * start.height, centery=_ORIGIN, centerx=_ORIGIN, sigmay=1, sigmax=1
    )
    result = model.fit(data, parameters, x=columns[None, :], y=rows[:, None], max_nfev=_MAX_EVALUATIONS)
    _check_fit(result)

    fitted = {name: parameter.value for name, parameter in result.params.items()}
    errors = {name: parameter.stderr for name, parameter in result.params.items()}
    volume = scale * start.sigma_y * start.sigma_x
    return GaussianFit(
        amplitude=fitted["amplitude"] * volume,
        # Not lmfit's own height parameter, which multiplies by 1 / (2 pi) rounded to seven digits.
        height=fitted["amplitude"] / (2 * math.pi * fitted["sigmay"] * fitted["sigmax"]) * scale,
        center=(
            start.center_y + (fitted["centery"] - _ORIGIN) * start.sigma_y,
            start.center_x + (fitted["centerx"] - _ORIGIN) * start.sigma_x,
        ),
        sigma_y=fitted["sigmay"] * start.sigma_y,
        sigma_x=fitted["sigmax"] * start.sigma_x,
        r_squared=float(result.rsquared),
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
