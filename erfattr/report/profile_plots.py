"""Draw what is taken from a map: its profile with the fitted Gaussian, and its phase profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.ticker import MaxNLocator, MultipleLocator

from erfattr._checks import as_map, check_choice, describe
from erfattr.metrics.gaussian_fit import GaussianFit
from erfattr.metrics.imbalance import phase_contrast
from erfattr.metrics.statistics import MapStatistics
from erfattr.report._map_image import (
    DIVERGING_CMAP,
    Limits,
    as_array,
    choose_colors,
    draw_colorbar,
    draw_image,
    drawn_values,
    new_axes,
    scientific,
)

# A Gaussian that explains less of the variance over pixels than this is not drawn as what describes a map.
DESCRIBES = 0.5


def plot_gaussian_fit(
    sensitivity_map: Any,
    fit: GaussianFit,
    axis: str = "x",
    ax: Axes | None = None,
    *,
    profile: str = "mean",
) -> Axes:
    """Draw a profile of a map with the fitted Gaussian over it.

    A fit that explains less than half of the map's variance over pixels (R squared below 0.5) is no
    description of it: it is drawn thin and dashed, labelled with its R squared, and no sigma is claimed.

    Both are divided by the map's mean. With ``profile="mean"`` each point is the mean over a column
    (``axis="x"``) or row (``"y"``), of the map and of the fit alike, so that noise averages out and only the
    part of a checkerboard that repeats along the drawn axis is seen. ``profile="center"`` cuts along the
    pixels nearest to the fitted centre.

    Args:
        sensitivity_map: the fitted map R, shape (H, W), or its `MapStatistics`.
        fit: what ``fit_gaussian(map)`` returned.
        axis: "x" for one point per column, "y" for one per row.
        ax: where to draw; None for a new figure of pyplot.
        profile: "mean" or "center".

    Returns:
        ``ax`` with two lines, the map and the fit, and a dotted one at the fitted centre if it is inside and
        the fit describes the map.

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
        >>> ax = plot_gaussian_fit(R, fit_gaussian(R), ax=Figure().subplots())
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
    given = sensitivity_map.mean if isinstance(sensitivity_map, MapStatistics) else sensitivity_map
    mean = as_map("sensitivity_map", given).double().mean().item()
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
    describes = fit.r_squared >= DESCRIBES
    claim = rf"Gaussian, $\sigma_{axis}$ = {sigma:.1f} ± {error:.1g} px"
    if not describes:
        claim = rf"Gaussian, no description ($R^2$ = {fit.r_squared:.2f})"
    ax = new_axes() if ax is None else ax
    # Two colours of the Okabe-Ito palette, and a thin line under a thick one: told apart in grey as well.
    positions = np.arange(values.shape[along])
    ax.plot(positions, points, color="#0072B2", linewidth=0.9, label=name)
    ax.plot(
        positions,
        curve,
        color="#D55E00",
        linewidth=2.2 if describes else 1.2,
        linestyle="-" if describes else "--",
        label=claim,
    )
    middle, peak = fit.center[along], max(points.max(), curve.max())
    if describes and -0.5 <= middle <= values.shape[along] - 0.5:
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
    scientific(ax.yaxis)
    ax.set_title(
        f"Gaussian fit, $R^2$ = {fit.r_squared:.3f}"
        if describes
        else f"no Gaussian: $R^2$ = {fit.r_squared:.2f}, below {DESCRIBES:g}"
    )
    ax.legend(loc="upper right", fontsize="small", frameon=False)
    return ax


def plot_phase_profile(
    profile: Any,
    ax: Axes | None = None,
    *,
    limits: Limits | None = None,
    norm: Normalize | str | None = None,
    cmap: Colormap | str | None = None,
    colorbar: bool = True,
    title: str | None = None,
) -> Axes:
    """Draw a phase profile: how much stronger or weaker than their surroundings the pixels of each phase are.

    The colours are centred at 1, no difference. They reach equally far to both sides, but not below 0, which
    no ratio of sensitivities is.

    Args:
        profile: what ``phase_profile`` returned, shape (period, period), mean 1.
        ax: where to draw; None for a new figure of pyplot.
        limits: (lowest, highest) value of the colours, such as `profile_limits` of several profiles; None for
            the rule above.
        norm: "linear" or "log" for that kind of scale, or a ``matplotlib.colors.Normalize``; None for the
            rule above.
        cmap: a colour map of matplotlib or its name.
        colorbar: whether to add a colour bar.
        title: what to write above; None for the contrast.

    Returns:
        ``ax``: phase b of the columns along x, phase a of the rows downwards.

    Raises:
        TypeError: ``profile`` is not numeric; ``norm`` or ``cmap`` is none.
        ValueError: ``profile`` is not two-dimensional, not finite, or its mean is not 1.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = plot_phase_profile(torch.tensor([[1.5, 0.5], [0.5, 1.5]]), Figure().subplots())
        >>> ax.images[0].get_clim()
        (0.5, 1.5)
    """
    contrast = phase_contrast(profile)
    values = as_array(as_map("profile", profile))
    if norm is None:
        lowest, highest = profile_limits([values]) if limits is None else limits
        about_one = lowest < 1 < highest
        norm, limits = TwoSlopeNorm(1, lowest, highest) if about_one else Normalize(lowest, highest), None
    colors = choose_colors([values], limits=limits, norm=norm, cmap=DIVERGING_CMAP if cmap is None else cmap)
    ax = new_axes() if ax is None else ax
    image = draw_image(ax, values, colors)
    rows, columns = values.shape
    ax.set_xlabel(f"column modulo {columns}")
    ax.set_ylabel(f"row modulo {rows}")
    for axis, length in ((ax.xaxis, columns), (ax.yaxis, rows)):
        axis.set_major_locator(MultipleLocator(max(1, 2 ** math.floor(math.log2(length) - 2))))
    if title is None:
        title = f"phase profile, contrast {contrast:.3g}"
    ax.set_title(title)
    if colorbar:
        draw_colorbar([ax], image, "sensitivity relative to local mean", [values])
    return ax


def profile_limits(profiles: Sequence[Any]) -> Limits:
    """Return the colours' range that phase profiles share: about 1, equally far, and not below 0.

    Example:
        >>> import torch
        >>> profile_limits([torch.tensor([[0.75, 1.25]]), torch.tensor([[0.0, 3.0], [0.5, 0.5]])])
        (0.0, 3.0)
    """
    reach = max(float(np.abs(as_array(as_map("profiles", profile)) - 1).max()) for profile in profiles)
    # Flat profiles have no range of their own.
    reach = reach or 1.0
    return max(0.0, 1 - reach), 1 + reach
