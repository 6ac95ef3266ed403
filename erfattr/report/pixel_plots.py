"""Draw the pixels of a map one by one, each as large as the others.

The checkerboard is a pattern of single pixels, and a picture that gives one pixel of the map 2.1 pixels of
the screen draws some of them 2 and some 3 wide: a second pattern, which the map does not have. Images are
therefore drawn with nearest-neighbour interpolation (a smoothing one would hide the checkerboard instead),
and :func:`pixel_exact_dpi` finds the resolution at which each pixel is drawn equally large. The pixels of a
map are read off :func:`plot_zoom`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, MultipleLocator

from erfattr._checks import as_point, check_positive_int
from erfattr.report._map_image import (
    OUTLINE,
    Limits,
    choose_colors,
    draw_colorbar,
    draw_image,
    drawn_values,
    new_axes,
    note_clipped,
)


def plot_zoom(
    sensitivity_map: Any,
    center: tuple[float, float],
    size: int = 32,
    ax: Axes | None = None,
    *,
    parent: Axes | None = None,
    relative: bool = True,
    norm: Normalize | str | None = None,
    cmap: Colormap | str | None = None,
    colorbar: bool | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the pixels around a point one by one, large enough to see a checkerboard.

    The colours run from 0 to the largest value in the window. For an inset in a drawn map, pass
    ``map_ax.inset_axes((0.63, 0.63, 0.34, 0.34))`` as ``ax`` and the map's axes as ``parent``: its numbers
    are then drawn light, for the dark corner of a map, and its other words left out.

    Args:
        sensitivity_map: R, shape (H, W), or a `MapStatistics`.
        center: (y, x) in pixels about which to zoom. Where the window would leave the image it is moved
            inside.
        size: height and width of the window in pixels; at most the map is shown.
        ax: where to draw; may be an inset; None for a new figure of pyplot.
        parent: axes of the whole map, in which the window is to be framed; None for no frame.
        relative: draw R / mean(R), with the mean of the whole map.
        norm: "linear" or "log" for that kind of scale, or a ``matplotlib.colors.Normalize``; None for linear.
        cmap: a colour map of matplotlib or its name.
        colorbar: whether to add a colour bar; None adds one unless ``ax`` is an inset of ``parent``.
        title: what to write above the window; None for the rows and columns that it shows, unless ``ax`` is
            an inset of ``parent``.

    Returns:
        ``ax``, in the pixel coordinates of the whole map.

    Raises:
        TypeError: ``sensitivity_map``, ``center`` or ``size`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W) or not finite, or has no positive mean to be relative
            to; ``center`` is not two finite numbers; ``size`` is below 1.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = plot_zoom(torch.ones(64, 64), center=(20, 60), size=16, ax=Figure().subplots())
        >>> tuple(ax.images[0].get_extent())
        (47.5, 63.5, 27.5, 11.5)
    """
    values, label = drawn_values("sensitivity_map", sensitivity_map, relative)
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
    limits: Limits | None = None
    if norm in (None, "linear"):
        limits = (-max(-lowest, highest), max(-lowest, highest)) if lowest < 0 else (0.0, highest or 1.0)
    colors = choose_colors([window], limits=limits, norm=norm, cmap=cmap)
    ax = new_axes() if ax is None else ax
    image = draw_image(ax, window, colors, origin=(starts[0], starts[1]))
    note_clipped(ax, colors.clipped)
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
            text.set_path_effects(OUTLINE)
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
                path_effects=OUTLINE,
            )
        )
    if colorbar or (colorbar is None and not inset):
        draw_colorbar([ax], image, label, [window], words=colors.words)
    return ax


def pixel_exact_dpi(ax: Axes, scale: int = 2) -> float:
    """Return the resolution at which every pixel of the image in ``ax`` is ``scale`` pixels wide in the file.

    Pass it to ``figure.savefig(..., dpi=...)``. It holds for the figure as it is now, so draw everything
    first.

    Args:
        ax: axes with a map that one of these modules drew, in its figure.
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
        >>> from erfattr.report.map_plots import plot_map
        >>> ax = Figure(figsize=(5, 5)).add_axes((0.1, 0.1, 0.8, 0.8))
        >>> ax = plot_map(torch.ones(200, 200), ax, colorbar=False)
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


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure at the resolution that draws all pixels of its first map equally large."""
    # A map's pixel must be a whole number of the file's, or scaling draws a grid of its own.
    dpi = pixel_exact_dpi(figure.axes[0])
    # That has laid the figure out, which takes most of the time of a figure and does not depend on the dpi.
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    try:
        figure.savefig(path, dpi=dpi)
    finally:
        figure.set_layout_engine(engine)
