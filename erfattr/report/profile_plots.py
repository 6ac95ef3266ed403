"""Draw what is taken from a map: its profile with the fitted Gaussian, and its phase profile."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, MultipleLocator

from erfattr._checks import as_map, check_choice, describe
from erfattr.metrics.gaussian_fit import GaussianFit
from erfattr.metrics.imbalance import phase_contrast
from erfattr.report._map_image import DIVERGING_CMAP, as_array, draw_colorbar, draw_image, drawn_values


def plot_gaussian_fit(
    ax: Axes,
    sensitivity_map: Any,
    fit: GaussianFit,
    axis: str = "x",
    *,
    profile: str = "mean",
) -> Axes:
    """Draw a profile of a map with the fitted Gaussian over it.

    Both are divided by the map's mean. With ``profile="mean"`` each point is the mean over a column
    (``axis="x"``) or row (``"y"``), of the map and of the fit alike, so that noise averages out and only the
    part of a checkerboard that repeats along the drawn axis is seen. ``profile="center"`` cuts along the
    pixels nearest to the fitted centre.

    Args:
        ax: where to draw.
        sensitivity_map: the fitted map R, shape (H, W).
        fit: what ``fit_gaussian(map)`` returned.
        axis: "x" for one point per column, "y" for one per row.
        profile: "mean" or "center".

    Returns:
        ``ax`` with two lines, the map and the fit, and a dotted one at the fitted centre if it is inside.

    Raises:
        TypeError: ``sensitivity_map`` is not numeric, ``fit`` is not a :class:`GaussianFit`.
        ValueError: ``sensitivity_map`` is not (H, W), not finite or has no positive mean; the fit is of
            another map's shape; ``axis`` or ``profile`` is none of the choices.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from erfattr.metrics.gaussian_fit import fit_gaussian
        >>> y, x = torch.arange(32.0)[:, None], torch.arange(32.0)
        >>> R = torch.exp(-((y - 12) ** 2 + (x - 20) ** 2) / (2 * 4**2))
        >>> ax = plot_gaussian_fit(Figure().subplots(), R, fit_gaussian(R))
        >>> round(float(ax.lines[2].get_xdata()[0]), 3)
        20.0
    """
    if not isinstance(fit, GaussianFit):
        raise TypeError(f"fit: expected what fit_gaussian returns, got {describe(fit)}")
    check_choice("axis", axis, ("x", "y"))
    check_choice("profile", profile, ("mean", "center"))
    values, label = drawn_values("sensitivity_map", sensitivity_map)
    if values.shape != fit.shape:
        raise ValueError(f"fit: expected a fit of this map of shape {values.shape}, got one of {fit.shape}")
    mean = as_map("sensitivity_map", sensitivity_map).double().mean().item()
    rows, columns = np.arange(values.shape[0])[:, None], np.arange(values.shape[1])[None, :]
    fitted = fit.evaluate(rows, columns).numpy() / mean
    across, along = (0, 1) if axis == "x" else (1, 0)
    if profile == "mean":
        points, curve = values.mean(axis=across), fitted.mean(axis=across)
        name = f"map, mean over {'rows' if axis == 'x' else 'columns'}"
    else:
        index = min(max(round(fit.center[across]), 0), values.shape[across] - 1)
        points, curve = values.take(index, axis=across), fitted.take(index, axis=across)
        name = f"map, {'row' if axis == 'x' else 'column'} {index}"
    sigma = fit.sigma_x if axis == "x" else fit.sigma_y
    error = fit.standard_errors.sigma_x if axis == "x" else fit.standard_errors.sigma_y
    # Two colours of the Okabe-Ito palette, and a thin line under a thick one: told apart in grey as well.
    positions = np.arange(values.shape[along])
    ax.plot(positions, points, color="#0072B2", linewidth=0.9, label=name)
    ax.plot(
        positions,
        curve,
        color="#D55E00",
        linewidth=2.2,
        label=rf"Gaussian, $\sigma_{axis}$ = {sigma:.1f} ± {error:.1g} px",
    )
    middle, peak = fit.center[along], max(points.max(), curve.max())
    if -0.5 <= middle <= values.shape[along] - 0.5:
        ax.plot(
            (middle, middle),
            (0, peak),
            color="0.4",
            linestyle=":",
            linewidth=1.2,
            label=f"fitted centre {middle:.1f}",
        )
    ax.set_xlim(-0.5, values.shape[along] - 0.5)
    # Room above the curves, or the legend would lie on the peak.
    ax.set_ylim(0, peak * 1.42)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("column x (pixel)" if axis == "x" else "row y (pixel)")
    ax.set_ylabel(label)
    ax.set_title(f"Gaussian fit, $R^2$ = {fit.r_squared:.3f}")
    ax.legend(loc="upper right", fontsize="small", frameon=False)
    return ax


def plot_phase_profile(ax: Axes, profile: Any, *, colorbar: bool = True, title: str | None = None) -> Axes:
    """Draw a phase profile: how much stronger or weaker than their surroundings the pixels of each phase are.

    The colours are centred at 1, no difference, and reach equally far to both sides.

    Args:
        ax: where to draw.
        profile: what ``phase_profile`` returned, shape (period, period), mean 1.
        colorbar: whether to add a colour bar.
        title: what to write above; None for the contrast.

    Returns:
        ``ax``: phase b of the columns along x, phase a of the rows downwards.

    Raises:
        TypeError: ``profile`` is not numeric.
        ValueError: ``profile`` is not two-dimensional, not finite, or its mean is not 1.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = plot_phase_profile(Figure().subplots(), torch.tensor([[1.5, 0.5], [0.5, 1.5]]))
        >>> ax.images[0].get_clim()
        (0.5, 1.5)
    """
    contrast = phase_contrast(profile)
    values = as_array(as_map("profile", profile))
    # A flat profile has no range of its own.
    reach = float(np.abs(values - 1).max()) or 1.0
    image = draw_image(ax, values, (1 - reach, 1 + reach), cmap=DIVERGING_CMAP)
    rows, columns = values.shape
    ax.set_xlabel(f"column modulo {columns}")
    ax.set_ylabel(f"row modulo {rows}")
    for axis, length in ((ax.xaxis, columns), (ax.yaxis, rows)):
        axis.set_major_locator(MultipleLocator(max(1, 2 ** math.floor(math.log2(length) - 2))))
    if title is None:
        title = f"phase profile, contrast {contrast:.3g}"
    ax.set_title(title)
    if colorbar:
        draw_colorbar([ax], image, "sensitivity relative to local mean", [values], robust=False)
    return ax
