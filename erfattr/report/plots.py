"""Draw maps, zooms, fits and phase profiles: every function takes an Axes and returns an Axes.

Nothing here touches pyplot's global state: make a ``matplotlib.figure.Figure``, pass its axes, save it. The
figures in these pages are made so::

    figure = Figure(figsize=(6, 5), layout="constrained")
    ax = plot_map(figure.subplots(), R, center=(96, 96))
    figure.savefig("map.png", dpi=pixel_exact_dpi(ax, scale=3))

The checkerboard is a pattern of single pixels, and a picture that gives one pixel of the map 2.1 pixels of
the screen draws some of them 2 and some 3 wide: a second pattern, which the map does not have. Images are
therefore drawn with nearest-neighbour interpolation (a smoothing one would hide the checkerboard instead),
and :func:`pixel_exact_dpi` finds the resolution at which each pixel is drawn equally large. The pixels of a
map are read off :func:`plot_zoom`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator, MultipleLocator
from matplotlib.transforms import ScaledTranslation

from erfattr._checks import as_map, as_numbers, as_point, check_choice, check_positive_int, describe
from erfattr.metrics.gaussian_fit import GaussianFit
from erfattr.metrics.imbalance import phase_contrast
from erfattr.report._map_image import (
    DIVERGING_CMAP,
    Limits,
    as_array,
    color_limits,
    draw_colorbar,
    draw_image,
    drawn_values,
)

# White lines with a black outline are seen on every colour of the map.
_OUTLINE: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="black")]


def plot_map(
    ax: Axes,
    map: Any,  # noqa: A002
    *,
    unit: tuple[int, int] | None = None,
    center: tuple[float, float] | None = None,
    bounds: tuple[float, float, float, float] | None = None,
    relative: bool = True,
    limits: Limits | None = None,
    colorbar: bool = True,
    title: str | None = None,
) -> Axes:
    """Draw a map with its unit's projected centre and the box of its theoretical receptive field (TRF).

    The colours run from 0 to the 99.5th percentile, so that a few extreme pixels do not leave the rest dark;
    the colour bar says so. A map with negative values gets a two-sided scale about 0 instead.

    Args:
        ax: where to draw.
        map: sensitivity map, shape (H, W).
        unit: (i, j) of the unit in its feature map; for the legend only.
        center: the unit's projected centre (y, x) in pixels.
        bounds: the TRF's (y0, x0, y1, x1) in pixels, both ends included, as ``ReceptiveField.bounds`` gives
            it. It may go beyond the image; the box is then clipped, and the legend says so.
        relative: draw map / mean(map), whose colours mean the same for every network; False draws the map as
            is.
        limits: (lowest, highest) value of the colours, in the unit drawn; None for the rule above.
        colorbar: whether to add a colour bar.
        title: what to write above the map.

    Returns:
        ``ax``: its image spans the pixels' edges (-0.5 to W - 0.5), row 0 on top.

    Raises:
        TypeError: ``map``, ``center``, ``bounds``, ``unit`` or ``limits`` is not numeric.
        ValueError: ``map`` is not (H, W) or not finite, or has no positive mean to be relative to; the
            numbers in ``center``, ``bounds``, ``unit`` or ``limits`` are too few, too many, not finite, or
            not in order; the box lies outside the image altogether.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = plot_map(Figure().subplots(), torch.tensor([[1.0, 3.0], [2.0, 2.0]]), center=(1, 0))
        >>> ax.images[0].get_array().tolist()
        [[0.5, 1.5], [1.0, 1.0]]
    """
    values, label = drawn_values(map, relative)
    if unit is not None:
        unit_y, unit_x = as_numbers("unit", unit, 2)
    if center is not None:
        center_y, center_x = as_point("center", center)
    box = None if bounds is None else _Box(bounds, values.shape)
    chosen = color_limits([values]) if limits is None else _limits(limits)

    image = draw_image(ax, values, chosen)
    if center is not None:
        name = f"projected centre ({center_y:g}, {center_x:g})"
        if unit is not None:
            name = f"unit ({unit_y:g}, {unit_x:g}), {name}"
        ax.plot(
            center_x,
            center_y,
            linestyle="none",
            marker="+",
            markersize=11,
            markeredgewidth=1.6,
            color="white",
            path_effects=_OUTLINE,
            label=name,
            clip_on=False,
        )
    if box is not None:
        ax.add_patch(
            Rectangle(
                (box.left, box.top),
                box.right - box.left,
                box.bottom - box.top,
                fill=False,
                edgecolor="white",
                linestyle="--",
                linewidth=1.4,
                path_effects=_OUTLINE,
                label=box.label,
            )
        )
    # A centre in the padding outside the image must not stretch the axes.
    ax.set_xlim(-0.5, values.shape[1] - 0.5)
    ax.set_ylim(values.shape[0] - 0.5, -0.5)
    if center is not None or box is not None:
        # Below the axes: over the map a legend would hide pixels. On grey, or its white marks would be lost.
        # The numbers and the word under the axes take three and a half lines of text, however high the map.
        below = ScaledTranslation(0, -3.5 * rcParams["font.size"] / 72, ax.figure.figure.dpi_scale_trans)
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=ax.transAxes + below,
            facecolor="0.75",
            edgecolor="none",
            fontsize="small",
            borderaxespad=0,
        )
    if title is not None:
        ax.set_title(title)
    if colorbar:
        draw_colorbar([ax], image, label, [values], robust=limits is None)
    return ax


def plot_zoom(
    ax: Axes,
    map: Any,  # noqa: A002
    center: tuple[float, float],
    size: int = 32,
    *,
    parent: Axes | None = None,
    relative: bool = True,
    colorbar: bool | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the pixels around a point one by one, large enough to see a checkerboard.

    The colours run from 0 to the largest value in the window. For an inset in a drawn map, pass
    ``map_ax.inset_axes((0.63, 0.63, 0.34, 0.34))`` as ``ax`` and the map's axes as ``parent``: its numbers
    are then drawn light, for the dark corner of a map, and its other words left out.

    Args:
        ax: where to draw; may be an inset.
        map: sensitivity map, shape (H, W).
        center: (y, x) in pixels about which to zoom. Where the window would leave the image it is moved
            inside.
        size: height and width of the window in pixels; at most the map is shown.
        parent: axes of the whole map, in which the window is to be framed; None for no frame.
        relative: draw map / mean(map), with the mean of the whole map.
        colorbar: whether to add a colour bar; None adds one unless ``ax`` is an inset of ``parent``.
        title: what to write above the window; None for the rows and columns that it shows, unless ``ax`` is
            an inset of ``parent``.

    Returns:
        ``ax``, in the pixel coordinates of the whole map.

    Raises:
        TypeError: ``map``, ``center`` or ``size`` is not numeric.
        ValueError: ``map`` is not (H, W) or not finite, or has no positive mean to be relative to; ``center``
            is not two finite numbers; ``size`` is below 1.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = plot_zoom(Figure().subplots(), torch.ones(64, 64), center=(20, 60), size=16)
        >>> tuple(ax.images[0].get_extent())
        (47.5, 63.5, 27.5, 11.5)
    """
    values, label = drawn_values(map, relative)
    point = as_point("center", center)
    check_positive_int("size", size)
    starts, stops = [], []
    for middle, length in zip(point, values.shape, strict=True):
        shown = min(size, length)
        # The window holds whole pixels; of an even number, the one more lies before the centre.
        start = min(max(math.ceil(middle - shown / 2), 0), length - shown)
        starts.append(start)
        stops.append(start + shown)
    window = values[starts[0] : stops[0], starts[1] : stops[1]]
    lowest, highest = float(window.min()), float(window.max())
    limits = (-max(-lowest, highest), max(-lowest, highest)) if lowest < 0 else (0.0, highest or 1.0)
    image = draw_image(ax, window, limits, origin=(starts[0], starts[1]))
    for axis in (ax.xaxis, ax.yaxis):
        # Multiples of eight where they fit: the strides of networks are powers of two.
        axis.set_major_locator(MultipleLocator(8) if 16 <= size <= 64 else MaxNLocator(6, integer=True))
        axis.set_minor_locator(MultipleLocator(1) if size <= 32 else MultipleLocator(8))
    inset = parent is not None and ax in parent.child_axes
    if inset:
        ax.set_xlabel("")
        ax.set_ylabel("")
        ax.tick_params(which="both", color="white", labelcolor="white", labelsize="small")
        for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            text.set_path_effects(_OUTLINE)
        ax.spines[:].set_color("white")
    elif title is None:
        title = f"rows {starts[0]}–{stops[0] - 1}, columns {starts[1]}–{stops[1] - 1}"  # noqa: RUF001
    if title is not None:
        ax.set_title(title, fontsize="medium")
    if parent is not None:
        parent.add_patch(
            Rectangle(
                (starts[1] - 0.5, starts[0] - 0.5),
                stops[1] - starts[1],
                stops[0] - starts[0],
                fill=False,
                edgecolor="white",
                linewidth=1.2,
                path_effects=_OUTLINE,
            )
        )
    if colorbar or (colorbar is None and not inset):
        draw_colorbar([ax], image, label, [window], robust=False)
    return ax


def plot_map_row(
    axes: Sequence[Axes],
    maps: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    shared_scale: bool = False,
    relative: bool = True,
    colorbar: bool = True,
) -> tuple[Axes, ...]:
    """Draw maps side by side, as in Figure 1 of the paper.

    By default every map has its own colours, from 0 to its own 99.5th percentile: that shows each shape, but
    equal colours in two maps are not equal values. ``shared_scale=True`` gives all the range of the pooled
    pixels and one colour bar: that compares values, and leaves a flat map next to a peaked one dark.

    Args:
        axes: one Axes for each map, of one figure.
        maps: sensitivity maps, each of shape (H, W); sizes may differ.
        titles: one for each map, or None.
        shared_scale: whether the maps share one colour scale.
        relative: draw each map / its own mean; False draws the maps as they are.
        colorbar: whether to add colour bars.

    Returns:
        The axes.

    Raises:
        TypeError: a map is not numeric.
        ValueError: no maps; not one Axes and one title for each map; a map is not (H, W), not finite, or has
            no positive mean to be relative to.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> maps = [torch.ones(4, 4), torch.ones(8, 8)]
        >>> axes = plot_map_row(Figure().subplots(1, 2), maps, ["before", "after"])
        >>> [ax.get_title() for ax in axes]
        ['before', 'after']
    """
    places, maps = list(np.ravel(np.asarray(axes, dtype=object))), list(maps)
    names = [None] * len(maps) if titles is None else list(titles)
    if not maps:
        raise ValueError("maps: expected at least one map, got none")
    if len(places) != len(maps):
        raise ValueError(f"axes: expected one for each of {len(maps)} maps, got {len(places)}")
    if len(names) != len(maps):
        raise ValueError(f"titles: expected one for each of {len(maps)} maps, got {len(names)}")
    drawn = [drawn_values(map, relative) for map in maps]  # noqa: A001
    values, label = [value for value, _ in drawn], drawn[0][1]
    shared = color_limits(values) if shared_scale else None
    for ax, value, name in zip(places, values, names, strict=True):
        image = draw_image(ax, value, shared or color_limits([value]))
        if name is not None:
            ax.set_title(name)
        if colorbar and not shared_scale:
            draw_colorbar([ax], image, label, [value], robust=True)
    for ax in places[1:]:
        ax.set_ylabel("")
    if colorbar and shared_scale:
        draw_colorbar(places, image, label, values, robust=True)
    return tuple(places)


def plot_gaussian_fit(
    ax: Axes,
    map: Any,  # noqa: A002
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
        map: the fitted map, shape (H, W).
        fit: what ``fit_gaussian(map)`` returned.
        axis: "x" for one point per column, "y" for one per row.
        profile: "mean" or "center".

    Returns:
        ``ax`` with two lines, the map and the fit, and a dotted one at the fitted centre if it is inside.

    Raises:
        TypeError: ``map`` is not numeric, ``fit`` is not a :class:`GaussianFit`.
        ValueError: ``map`` is not (H, W), not finite or has no positive mean; the fit is of another map's
            shape; ``axis`` or ``profile`` is none of the choices.

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
    values, label = drawn_values(map, relative=True)
    if values.shape != fit.shape:
        raise ValueError(f"fit: expected a fit of this map of shape {values.shape}, got one of {fit.shape}")
    mean = as_map("map", map).double().mean().item()
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


def pixel_exact_dpi(ax: Axes, scale: int = 2) -> float:
    """Return the resolution at which every pixel of the image in ``ax`` is ``scale`` pixels wide in the file.

    Pass it to ``figure.savefig(..., dpi=...)``. It holds for the figure as it is now, so draw everything
    first.

    Args:
        ax: axes with one of the images of this module, in its figure.
        scale: width of a map's pixel in pixels of the file.

    Returns:
        Dots per inch.

    Raises:
        TypeError: ``scale`` is not an integer.
        ValueError: ``scale`` is below 1; ``ax`` has no image.

    Example:
        The axes fill 0.8 of 5 inches, 4 inches for 200 pixels: 100 dpi for 2 pixels each.

        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = Figure(figsize=(5, 5)).add_axes((0.1, 0.1, 0.8, 0.8))
        >>> ax = plot_map(ax, torch.ones(200, 200), colorbar=False)
        >>> round(pixel_exact_dpi(ax, scale=2), 6)
        100.0
    """
    check_positive_int("scale", scale)
    if not ax.images:
        raise ValueError("ax: expected axes with an image, got none")
    # Twice: axes in a subfigure know that, and it knows the figure.
    figure = ax.figure.figure
    figure.draw_without_rendering()
    pixels = abs(ax.get_xlim()[1] - ax.get_xlim()[0])
    inches = ax.get_window_extent().width / figure.dpi
    return float(scale * pixels / inches)


class _Box:
    """A TRF box cut to the image, edges of pixels, with the words that say what was cut."""

    def __init__(self, bounds: Any, shape: tuple[int, ...]) -> None:
        top, left, bottom, right = as_numbers("bounds", bounds, 4)
        if bottom < top or right < left:
            raise ValueError(f"bounds: expected (y0, x0, y1, x1) in this order, got {describe(bounds)}")
        height, width = shape
        self.top, self.bottom = max(top, 0) - 0.5, min(bottom, height - 1) + 0.5
        self.left, self.right = max(left, 0) - 0.5, min(right, width - 1) + 0.5
        if self.bottom <= self.top or self.right <= self.left:
            raise ValueError(
                f"bounds: expected a box that meets the {height} x {width} image, got {describe(bounds)}"
            )
        self.label = f"TRF {bottom - top + 1:g} × {right - left + 1:g}"  # noqa: RUF001
        if top < 0 or left < 0 or bottom > height - 1 or right > width - 1:
            covers = (self.top, self.left, self.bottom, self.right) == (-0.5, -0.5, height - 0.5, width - 0.5)
            self.label += ", larger than the image" if covers else ", clipped to the image"


def _limits(limits: Any) -> Limits:
    lowest, highest = as_numbers("limits", limits, 2)
    if lowest >= highest:
        raise ValueError(f"limits: expected (lowest, highest) in this order, got {describe(limits)}")
    return lowest, highest
