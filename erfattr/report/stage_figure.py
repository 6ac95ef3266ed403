"""Stages of networks in one figure of a journal's width: the effective receptive field at depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from erfattr._checks import check_positive_int, describe
from erfattr.metrics.statistics import MapStatistics
from erfattr.receptive_field.field import ReceptiveField
from erfattr.report._figure_text import SMALL, fit_into, millimetres, wrapped, write
from erfattr.report._map_image import Array, Colors, choose_colors, draw_image, drawn_values, scientific
from erfattr.report.noise_banner import noise_in_words

Maps = Mapping[str, Mapping[str, Any]]
Fields = Mapping[str, Mapping[str, ReceptiveField]]

_MM = 1 / 25.4
# Points, as `SMALL`.
_FONT = 7.0
# Millimetres: margins, gaps and lines of text; a panel below the smallest shows nothing.
_LEFT, _RIGHT, _GAP, _TITLE, _LINE, _BAR = 4.6, 1.6, 1.6, 3.6, 2.6, 11.0
_SMALLEST = 11.0
# Of a panel's width: what an inset takes, about.
_INSET = 0.36
# Dots per inch of the file at least: what journals ask for.
_DPI = 300
_THIN: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="black")]


@dataclass(frozen=True)
class _Panel:
    """One map of the figure.

    Attributes:
        model: Of which network.
        stage: Its layer.
        values: What is drawn, (H, W).
        center: The unit's projected centre.
        bounds: The box of its theoretical receptive field, not clipped.
        words: That it is mostly noise; empty where it is not.
        n_images: Over how many images; ``None``: not known.
    """

    model: str
    stage: str
    values: Array
    center: tuple[float, float]
    bounds: tuple[int, int, int, int] | None
    words: str
    n_images: int | None

    @property
    def box_is_inside(self) -> bool:
        if self.bounds is None:
            return False
        top, left, bottom, right = self.bounds
        height, width = self.values.shape
        # A box of the image's own size says no more than the image's frame.
        smaller = bottom - top + 1 < height or right - left + 1 < width
        return min(top, left) >= 0 and bottom < height and right < width and smaller

    @property
    def trf(self) -> str:
        """The size of the theoretical receptive field; empty where it is not known."""
        if self.bounds is None:
            return ""
        rows, columns = self.bounds[2] - self.bounds[0] + 1, self.bounds[3] - self.bounds[1] + 1
        return f"TRF {rows}" if rows == columns else f"TRF {rows}×{columns}"  # noqa: RUF001


def draw_stages(
    maps: Maps,
    fields: Fields | None = None,
    *,
    width: float = 170.0,
    zoom: int | None = 32,
    shared_scale: bool = True,
    norm: Normalize | str | None = None,
    cmap: Colormap | str | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """Draw maps of stages x networks in one figure of a given width: a row for each network.

    Every panel has a letter, its layer's name, the box of its unit's theoretical receptive field (TRF) where
    that lies inside the image, and an inset with the pixels about the unit's projected centre; every row has
    a bar of so many pixels. All maps are divided by their own mean and share one colour scale, linear or
    logarithmic by the rule of `plot_map`; the figure says which it is, and whatever else is needed to read
    it. Each inset has a scale of its own, from 0 to its largest pixel, which the figure says as well. No
    letter is smaller than 6 pt.

    Args:
        maps: for each network its layers' maps: `MapStatistics` or (H, W). Rows may differ in length.
        fields: for each network its layers' receptive fields, as ``receptive_fields`` gives them; for TRFs.
        width: of the figure in millimetres: 85 to 90 for a column, 170 to 180 for a page.
        zoom: height and width of the insets in pixels; None for no insets. Maps of less than twice that
            have none.
        shared_scale: whether all maps share one colour scale; if not, the figure says so.
        norm: "linear" or "log", or a ``matplotlib.colors.Normalize``; None for the rule.
        cmap: a colour map of matplotlib or its name.
        notes: further sentences below the figure, such as which weights a network has.

    Returns:
        The figure, as high as it needs to be. `erfattr.report.paper_files.save_for_print` writes it with its
        fonts inside.

    Raises:
        TypeError: a map, ``width``, ``zoom``, ``norm`` or ``cmap`` is of another kind.
        ValueError: no map; a map that is not (H, W), not finite or of no positive mean; ``zoom`` below 1; a
            ``width`` that leaves a panel less than 11 mm.

    Example:
        >>> import torch
        >>> figure = draw_stages({"one": {"layer1": torch.ones(64, 64)}}, width=85)
        >>> round(float(figure.get_figwidth()) * 25.4, 6)
        85.0
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)):
        raise TypeError(f"width: expected millimetres, got {describe(width)}")
    if zoom is not None:
        check_positive_int("zoom", zoom)
    rows = [
        [_panel(model, stage, given, fields) for stage, given in stages.items()]
        for model, stages in maps.items()
    ]
    if not rows or not all(rows):
        raise ValueError(f"maps: expected at least one map of each network, got {_counted(maps)}")
    side = _side(width, max(map(len, rows)))
    panels = [panel for row in rows for panel in row]
    if shared_scale:
        shared = choose_colors([panel.values for panel in panels], norm=norm, cmap=cmap)
        colors = {id(panel): shared for panel in panels}
    else:
        colors = {id(panel): choose_colors([panel.values], norm=norm, cmap=cmap) for panel in panels}
    with rc_context({"font.size": _FONT, "axes.linewidth": 0.5, "mathtext.default": "regular"}):
        return _drawn(rows, colors, width, side, zoom, shared_scale, notes)


def refuse_undrawable(stages: int, widths: Sequence[float], cmap: Colormap | str | None = None) -> None:
    """Raise what `draw_stages` would for so many stages a row, before maps are made.

    Raises:
        TypeError: ``cmap`` is no colour map.
        ValueError: a width is too small, or ``cmap`` an unknown name.
    """
    for width in widths:
        _side(width, stages)
    choose_colors([np.ones((1, 1))], cmap=cmap)


def _side(width: float, columns: int) -> float:
    """Return how wide a panel is, in millimetres."""
    side = (width - _LEFT - _RIGHT - (columns - 1) * _GAP) / columns
    if side < _SMALLEST or not math.isfinite(side):
        least = math.ceil(_SMALLEST * columns + _LEFT + _RIGHT + (columns - 1) * _GAP)
        raise ValueError(f"width: expected at least {least} mm for {columns} stages, got {width:g}")
    return side


def _panel(model: str, stage: str, given: Any, fields: Fields | None) -> _Panel:
    values, _ = drawn_values(f"maps[{model!r}][{stage!r}]", given)
    center = ((values.shape[0] - 1) / 2, (values.shape[1] - 1) / 2)
    field = {} if fields is None else fields.get(model, {})
    bounds = None
    if not isinstance(given, MapStatistics):
        return _Panel(model, stage, values, center, bounds, "", None)
    source = given.source
    if source is not None and source.unit is not None and stage in field:
        # Of another size where a layer is read as another grid.
        alike = field[stage].output_size == source.feature_size
        bounds = field[stage].bounds(source.unit) if alike else None
    if source is not None and source.center is not None:
        center = source.center
    return _Panel(model, stage, values, center, bounds, noise_in_words(given), given.n_images)


def _counted(maps: Maps) -> str:
    return ", ".join(f"{len(stages)} of {model!r}" for model, stages in maps.items()) or "none"


def _drawn(
    rows: Sequence[Sequence[_Panel]],
    colors: Mapping[int, Colors],
    width: float,
    side: float,
    zoom: int | None,
    shared_scale: bool,
    further: Sequence[str],
) -> Figure:
    """Draw all panels, top to bottom, at places in millimetres."""
    heights = [max(side * p.values.shape[0] / p.values.shape[1] for p in row) for row in rows]
    panels = [panel for row in rows for panel in row]
    insets = zoom is not None and any(_has_inset(panel, zoom) for panel in panels)
    figure = Figure(figsize=(width * _MM, 10), dpi=_DPI)
    banner = wrapped(figure, _banner(panels), width - 2 * _RIGHT - 2)
    said = [*_notes(panels, zoom if insets else None, shared_scale), *further]
    notes = wrapped(figure, said, width - 2 * _RIGHT)
    above = (len(banner) * _LINE + 2.0) if banner else 0.6
    below = (_BAR if shared_scale else 1.0) + len(notes) * _LINE + 1.0
    height = above + sum(heights) + len(rows) * _TITLE + (len(rows) - 1) * _GAP + below
    figure.set_size_inches(width * _MM, height * _MM)

    def place(left: float, top: float, wide: float, high: float) -> tuple[float, float, float, float]:
        return left / width, 1 - (top + high) / height, wide / width, high / height

    if banner:
        style = {"facecolor": "#F0E442", "edgecolor": "none", "pad": 1.5}
        write(figure, width / 2, 1.2, "\n".join(banner), width, height, ha="center", bbox=style)
    top, letters, image = above, iter(_letters(len(panels))), None
    for row, high in zip(rows, heights, strict=True):
        top += _TITLE
        write(figure, 1.2, top + high / 2, row[0].model, width, height, rotation=90, va="center", room=high)
        for column, panel in enumerate(row):
            left = _LEFT + column * (side + _GAP)
            tall = side * panel.values.shape[0] / panel.values.shape[1]
            ax = figure.add_axes(place(left, top, side, tall))
            image = draw_image(ax, panel.values, colors[id(panel)])
            _title(figure, next(letters), panel, left, top, side, width, height)
            _bare(ax, panel)
            corner = _inset(ax, panel, zoom, side, colors[id(panel)]) if insets and zoom else None
            alike = all(other.values.shape == row[0].values.shape for other in row)
            if column == 0 or not alike:
                _scale_bar(ax, panel, side, right=corner == "lower left")
        top += high + _GAP
    top -= _GAP
    if shared_scale and image is not None:
        # Not wider than a column's bar: the numbers on it are what it is for.
        long = min(0.7 * width, 80.0)
        _color_bar(figure, place((width - long) / 2, top + 2.0, long, 1.9), image, colors[id(panels[0])])
    write(figure, _RIGHT, height - len(notes) * _LINE - 0.8, "\n".join(notes), width, height)
    return figure


def _letters(count: int) -> list[str]:
    """Return a, b, ... z, aa, ab, ..."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return [
        (alphabet[index // 26 - 1] if index >= 26 else "") + alphabet[index % 26] for index in range(count)
    ]


def _bare(ax: Axes, panel: _Panel) -> None:
    """Leave the image with its box: what the numbers of an axis would say, the bar of pixels says."""
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    if panel.box_is_inside and panel.bounds is not None:
        top, left, bottom, right = panel.bounds
        box = Rectangle(
            (left - 0.5, top - 0.5),
            right - left + 1,
            bottom - top + 1,
            fill=False,
            edgecolor="white",
            linestyle="--",
            linewidth=0.7,
            path_effects=_THIN,
        )
        box.set_gid("trf")
        ax.add_patch(box)


def _has_inset(panel: _Panel, zoom: int) -> bool:
    return bool(min(panel.values.shape) >= 2 * zoom)


def _inset(ax: Axes, panel: _Panel, zoom: int, side: float, colors: Colors) -> str | None:
    """Draw the pixels about the centre into the corner that holds the least of the map; return which."""
    if not _has_inset(panel, zoom):
        return None
    height, width = panel.values.shape
    y, x = (
        min(max(math.ceil(middle - zoom / 2), 0), length - zoom)
        for middle, length in zip(panel.center, (height, width), strict=True)
    )
    window = panel.values[y : y + zoom, x : x + zoom]
    # So many of the file's dots for each pixel of the window, a whole number.
    scale = _scale(side, width)
    each = max(1, round(_INSET * width * scale / zoom))
    # Smaller where it would hide the frame of its pixels or the box, unless it cannot help it.
    rims = [min(y, x, height - y - zoom, width - x - zoom)]
    if panel.box_is_inside and panel.bounds is not None:
        top, left, bottom, right = panel.bounds
        rims.append(min(top, left, height - 1 - bottom, width - 1 - right))
    for rim in rims:
        room = math.floor((rim - 0.05 * width) * scale / zoom)
        each = min(each, room) if room >= each / 2 else each
    pixels, margin = zoom * each / scale, round(0.03 * width)
    covered = math.ceil(pixels) + margin
    parts = {
        "lower right": panel.values[height - covered :, width - covered :],
        "upper right": panel.values[:covered, width - covered :],
        "lower left": panel.values[height - covered :, :covered],
        "upper left": panel.values[:covered, :covered],
    }
    corner = min(parts, key=lambda name: float(abs(parts[name]).sum()))
    left = width - margin - pixels if "right" in corner else margin
    bottom = height - margin - pixels if "upper" in corner else margin
    inset = ax.inset_axes((left / width, bottom / height, pixels / width, pixels / height))
    largest = float(abs(window).max()) or 1.0
    limits = (-largest, largest) if window.min() < 0 else (0.0, largest)
    draw_image(inset, window, choose_colors([window], limits=limits, cmap=colors.cmap), origin=(y, x))
    inset.set(xticks=[], yticks=[], xlabel="", ylabel="")
    inset.spines[:].set_color("white")
    inset.spines[:].set_linewidth(0.7)
    frame = Rectangle((x - 0.5, y - 0.5), zoom, zoom, fill=False, edgecolor="white", linewidth=0.5)
    frame.set_path_effects(_THIN)
    ax.add_patch(frame)
    return corner


def _scale(side: float, pixels: int) -> int:
    """Return how many dots of the file a pixel of the map is wide, for at least 300 dpi."""
    return max(1, math.ceil(_DPI * side * _MM / pixels))


def _scale_bar(ax: Axes, panel: _Panel, side: float, *, right: bool) -> None:
    """Draw a bar as long as the largest power of two that is at most 0.3 of the image's width."""
    height, width = panel.values.shape
    length = 2 ** max(0, math.floor(math.log2(0.3 * width)))
    thick, margin = 0.5 * width / side, 0.05 * width
    left = width - 0.5 - margin - length if right else margin - 0.5
    bar = Rectangle((left, height - 0.5 - margin - thick), length, thick, facecolor="white", linewidth=0)
    bar.set_path_effects(_THIN)
    bar.set_gid("scale bar")
    ax.add_patch(bar)
    ax.text(
        left + length / 2,
        height - 0.5 - margin - 1.8 * thick,
        f"{length} px",
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color="white",
        path_effects=_THIN,
    )


def _title(
    figure: Figure, letter: str, panel: _Panel, left: float, top: float, side: float, *size: float
) -> None:
    """Write letter and layer above a panel, and the size of its TRF where there is room."""
    bold = write(figure, left, top - 0.7, letter, *size, va="bottom", fontweight="bold", fontsize=_FONT)
    begin = millimetres(bold) + 0.9
    trf = None
    if panel.trf:
        trf = write(figure, left + side, top - 0.7, panel.trf, *size, ha="right", va="bottom", color="0.3")
    name = write(figure, left + begin, top - 0.7, panel.stage, *size, va="bottom")
    if trf is not None and begin + millimetres(name) + 1.0 + millimetres(trf) > side:
        trf.remove()
    fit_into(name, side - begin)


def _color_bar(figure: Figure, place: tuple[float, float, float, float], image: Any, colors: Colors) -> None:
    ax = figure.add_axes(place)
    values = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    lowest, highest = image.get_clim()
    above = any(array is not None and array.max() > highest for array in values)
    below = any(array is not None and array.min() < lowest for array in values)
    extend = ("both" if below else "max") if above else ("min" if below else "neither")
    bar = figure.colorbar(image, cax=ax, orientation="horizontal", extend=extend)
    if not isinstance(colors.norm, LogNorm):
        scientific(bar.ax.xaxis)
    bar.ax.tick_params(labelsize=SMALL, length=2, width=0.5, pad=1.5)
    bar.ax.tick_params(which="minor", length=1.2, width=0.4)
    bar.ax.xaxis.get_offset_text().set_fontsize(SMALL)
    words = f" ({colors.words})" if colors.words else ""
    bar.set_label(f"sensitivity relative to each map's mean{words}", fontsize=SMALL, labelpad=1.5)


def _banner(panels: Sequence[_Panel]) -> list[str]:
    """Say which panels are mostly noise."""
    noisy = [
        (letter, panel) for letter, panel in zip(_letters(len(panels)), panels, strict=True) if panel.words
    ]
    if not noisy:
        return []
    names = ", ".join(letter for letter, _ in noisy) if len(noisy) < len(panels) else "all panels"
    if len({panel.words for _, panel in noisy}) == 1:
        return [f"{names}: {noisy[0][1].words}"]
    counts = sorted({panel.n_images for _, panel in noisy if panel.n_images is not None})
    said = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"{names}: mostly noise, {said} images are too few"]


def _notes(panels: Sequence[_Panel], zoom: int | None, shared_scale: bool) -> list[str]:
    """Say what is needed to read the figure."""
    found = []
    counts = sorted({panel.n_images for panel in panels if panel.n_images is not None})
    if counts:
        said = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        found.append(f"Maps over {said} images.")
    if not shared_scale:
        found.append("Each panel has a colour scale of its own: colours do not compare between panels.")
    if zoom is not None:
        found.append(f"Insets: {zoom} × {zoom} pixels about the centre, each from 0 to its maximum.")  # noqa: RUF001
    if any(panel.box_is_inside for panel in panels):
        found.append("Dashed: theoretical receptive field (TRF).")
    return found
