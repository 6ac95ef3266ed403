"""Draw maps as a whole, one or several side by side: every function takes an Axes and returns an Axes.

In a notebook ``plot_map(R)`` is enough. Given an Axes, nothing here touches pyplot's global state: make a
``matplotlib.figure.Figure``, pass its axes, save it. The figures in these pages are made so::

    figure = Figure(figsize=(6, 5), layout="constrained")
    ax = plot_map(R, figure.subplots(), center=(96, 96))
    figure.savefig("map.png", dpi=pixel_exact_dpi(ax, scale=3))

Single pixels are read off `erfattr.report.pixel_plots`, which also says why the resolution matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from erfattr._checks import as_numbers, as_point, describe
from erfattr.metrics.statistics import MapStatistics
from erfattr.report._map_image import (
    OUTLINE,
    Limits,
    choose_colors,
    draw_colorbar,
    draw_image,
    drawn_values,
    new_axes,
    new_row,
    note_clipped,
)
from erfattr.report.noise_banner import draw_banner, noise_in_words


def plot_map(
    sensitivity_map: Any,
    ax: Axes | None = None,
    *,
    unit: tuple[int, int] | None = None,
    center: tuple[float, float] | None = None,
    bounds: tuple[float, float, float, float] | None = None,
    relative: bool = True,
    limits: Limits | None = None,
    norm: Normalize | str | None = None,
    cmap: Colormap | str | None = None,
    colorbar: bool = True,
    title: str | None = None,
) -> Axes:
    """Draw a map with its unit's projected centre and the box of its theoretical receptive field (TRF).

    The colours run from 0 to the value above which 2 % of the mass lies, so that a few extreme pixels do not
    leave the rest dark. Of a map whose mass few pixels hold (less than 2 % of them reach a tenth of that
    value) that would show nothing: there the scale is logarithmic. The colour bar says which it is, and what
    lies beyond the colours; from 3 % of the mass on the picture itself says so. A map with negative values
    gets a two-sided scale about 0.

    Args:
        sensitivity_map: R, shape (H, W), or a `MapStatistics`: then unit and centre are its source's unless
            given, and a banner says so where the map is mostly noise.
        ax: where to draw; None for a new figure of pyplot.
        unit: (i, j) of the unit in its feature map; for the legend only.
        center: the unit's projected centre (y, x) in pixels.
        bounds: the TRF's (y0, x0, y1, x1) in pixels, both ends included, as ``ReceptiveField.bounds`` gives
            it. It may go beyond the image; the box is then clipped, and the legend says so.
        relative: draw R / mean(R), whose colours mean the same for every network; False draws the map as
            is.
        limits: (lowest, highest) value of the colours, in the unit drawn; None for the rule above.
        norm: "linear" or "log" for that kind of scale, or a ``matplotlib.colors.Normalize``; None for the
            rule above.
        cmap: a colour map of matplotlib or its name.
        colorbar: whether to add a colour bar.
        title: what to write above the map.

    Returns:
        ``ax``: its image spans the pixels' edges (-0.5 to W - 0.5), row 0 on top.

    Raises:
        TypeError: ``sensitivity_map``, ``center``, ``bounds``, ``unit`` or ``limits`` is not numeric;
            ``norm`` or ``cmap`` is none.
        ValueError: ``sensitivity_map`` is not (H, W) or not finite, or has no positive mean to be relative
            to; the numbers in ``center``, ``bounds``, ``unit`` or ``limits`` are too few, too many, not
            finite, or not in order; the box lies outside the image altogether; ``norm`` or ``cmap`` is an
            unknown name, or ``norm`` has limits of its own beside ``limits``.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = plot_map(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), Figure().subplots(), center=(1, 0))
        >>> ax.images[0].get_array().tolist()
        [[0.5, 1.5], [1.0, 1.0]]
    """
    values, label = drawn_values("sensitivity_map", sensitivity_map, relative)
    banner = ""
    if isinstance(sensitivity_map, MapStatistics):
        banner = noise_in_words(sensitivity_map)
        if sensitivity_map.source is not None:
            unit = sensitivity_map.source.unit if unit is None else unit
            center = sensitivity_map.source.center if center is None else center
    if unit is not None:
        unit_y, unit_x = as_numbers("unit", unit, 2)
    if center is not None:
        center_y, center_x = as_point("center", center)
    box = None if bounds is None else _Box(bounds, values.shape)
    colors = choose_colors([values], limits=limits, norm=norm, cmap=cmap)

    ax = new_axes() if ax is None else ax
    image = draw_image(ax, values, colors)
    note_clipped(ax, colors.clipped)
    draw_banner(ax, banner)
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
            path_effects=OUTLINE,
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
                path_effects=OUTLINE,
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
        draw_colorbar([ax], image, label, [values], words=colors.words)
    return ax


def plot_map_row(
    maps: Sequence[Any],
    axes: Sequence[Axes] | None = None,
    titles: Sequence[str] | None = None,
    *,
    shared_scale: bool = False,
    relative: bool = True,
    norm: Normalize | str | None = None,
    cmap: Colormap | str | None = None,
    colorbar: bool = True,
) -> tuple[Axes, ...]:
    """Draw maps side by side, as in Figure 1 of the paper.

    By default every map has its own colours, by the rule of `plot_map`: that shows each shape, but equal
    colours in two maps are not equal values, and the colour bars say so. ``shared_scale=True`` gives all one
    scale and one colour bar: that compares values.

    Args:
        maps: sensitivity maps, each of shape (H, W), or `MapStatistics`; sizes may differ.
        axes: one Axes for each map, of one figure; None for a new figure of pyplot.
        titles: one for each map, or None.
        shared_scale: whether the maps share one colour scale.
        relative: draw each map / its own mean; False draws the maps as they are.
        norm: as of `plot_map`.
        cmap: as of `plot_map`.
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
        >>> axes = plot_map_row(maps, Figure().subplots(1, 2), ["before", "after"])
        >>> [ax.get_title() for ax in axes]
        ['before', 'after']
    """
    maps = list(maps)
    if not maps:
        raise ValueError("maps: expected at least one map, got none")
    names = [None] * len(maps) if titles is None else list(titles)
    if len(names) != len(maps):
        raise ValueError(f"titles: expected one for each of {len(maps)} maps, got {len(names)}")
    # What `Figure.subplots` returns is an array, of two dimensions for more than one row.
    places: list[Axes] = [] if axes is None else list(np.ravel(np.asarray(axes, dtype=object)))
    if axes is not None and len(places) != len(maps):
        raise ValueError(f"axes: expected one for each of {len(maps)} maps, got {len(places)}")
    drawn = [drawn_values("maps", sensitivity_map, relative) for sensitivity_map in maps]
    label = drawn[0][1]
    pictures = [picture for picture, _ in drawn]
    if shared_scale:
        chosen = [choose_colors(pictures, norm=norm, cmap=cmap)] * len(maps)
    else:
        chosen = [choose_colors([picture], norm=norm, cmap=cmap) for picture in pictures]
    if axes is None:
        places = new_row(len(maps))
    own = len(maps) > 1 and not isinstance(norm, Normalize)
    for ax, given, picture, name, colors in zip(places, maps, pictures, names, chosen, strict=True):
        image = draw_image(ax, picture, colors)
        note_clipped(ax, colors.clipped)
        draw_banner(ax, noise_in_words(given) if isinstance(given, MapStatistics) else "")
        if name is not None:
            ax.set_title(name)
        if colorbar and not shared_scale:
            words = ", ".join(filter(None, ("own scale" if own else "", colors.words)))
            draw_colorbar([ax], image, label, [picture], words=words)
    for ax in places[1:]:
        ax.set_ylabel("")
    if colorbar and shared_scale:
        draw_colorbar(places, image, label, pictures, words=chosen[0].words)
    return tuple(places)


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
