"""How results show themselves: the picture of each, and the HTML that a notebook makes of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import singledispatch
from html import escape
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from erfattr._checks import describe
from erfattr.metrics.corrected_imbalance import Comparison, Estimate
from erfattr.metrics.gaussian_fit import GaussianFit
from erfattr.metrics.grid_contrast import GridContrast
from erfattr.metrics.precision import relative_error
from erfattr.metrics.significance import PhaseEstimate
from erfattr.metrics.statistics import MapStatistics
from erfattr.receptive_field.field import ReceptiveField, ReceptiveFields
from erfattr.report._map_image import new_axes
from erfattr.report.map_plots import plot_map
from erfattr.report.profile_plots import DESCRIBES, plot_gaussian_fit, plot_phase_profile

# Inches and dots of a picture in a notebook: small, it is stored in the file with the notebook.
_SIZE, _DOTS = (4.0, 3.3), 90
_ROWS = 500


@singledispatch
def plot(result: object, ax: Axes | None = None, **options: Any) -> Axes:  # noqa: ARG001
    """Draw a result: what its ``plot`` does.

    Args:
        result: A result of erfattr.
        ax: Where to draw; ``None`` for a new figure of pyplot.
        **options: Further arguments of what draws it.

    Raises:
        TypeError: there is no picture of such a thing.
    """
    raise TypeError(f"result: expected a result of erfattr, got {describe(result)}")


@plot.register
def _(result: MapStatistics, ax: Axes | None = None, **options: Any) -> Axes:
    source = result.source
    if "title" not in options and source is not None:
        unit = "" if source.unit is None else f", unit {source.unit}"
        options["title"] = f"{source.layer}{unit}, {result.n_images} images"
    return plot_map(result, ax, **options)


@plot.register
def _(result: GaussianFit, ax: Axes | None = None, sensitivity_map: Any = None, **options: Any) -> Axes:
    """Draw the bell, or with its map the profiles of both."""
    if sensitivity_map is not None:
        return plot_gaussian_fit(sensitivity_map, result, ax=ax, **options)
    rows, columns = (torch.arange(length) for length in result.shape)
    bell = result.evaluate(rows[:, None], columns[None, :])
    claim = "" if result.r_squared >= DESCRIBES else ": no description of its map"
    title = f"Gaussian fit, $R^2$ = {result.r_squared:.3f}{claim}"
    return plot_map(bell, ax, **{"center": result.center, "relative": False, "title": title, **options})


@plot.register(PhaseEstimate)
@plot.register(GridContrast)
def _(result: Any, ax: Axes | None = None, **options: Any) -> Axes:
    return plot_phase_profile(result.profile, ax, **options)


@plot.register
def _(result: Estimate, ax: Axes | None = None, **options: Any) -> Axes:
    return _indices({f"{result.n_images} images": result}, ax, **options)


@plot.register
def _(result: Comparison, ax: Axes | None = None, **options: Any) -> Axes:
    ax = _indices({"first": result.first, "second": result.second}, ax, **options)
    ax.set_title(result.sentence, fontsize="small", wrap=True)
    return ax


def _indices(estimates: Mapping[str, Estimate], ax: Axes | None, **options: Any) -> Axes:
    """Draw indices with their errors, as they were before the noise was taken off, and the noise floor."""
    ax = new_axes() if ax is None else ax
    names = list(estimates)
    for index, estimate in enumerate(estimates.values()):
        first = index == 0
        ax.bar(index, estimate.uncorrected, width=0.55, color="0.85", label="as it is" if first else None)
        ax.errorbar(
            index,
            estimate.value,
            estimate.standard_error,
            **{"color": "#0072B2", "marker": "o", "capsize": 4, **options},
            label="without the noise" if first else None,
        )
        floor = estimate.noise_floor
        ax.plot(
            (index - 0.35, index + 0.35),
            (floor, floor),
            color="black",
            linestyle="--",
            label="noise floor" if first else None,
        )
    order, normalize = (getattr(estimates[names[0]], name) for name in ("order", "normalize"))
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.7, len(names) - 0.3)
    ax.set_ylabel(f"L{order} of R / mean(R)" if normalize == "mean" else f"L{order}")
    ax.legend(fontsize="small", frameon=False)
    return ax


@plot.register
def _(result: ReceptiveField, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw the image's frame, the box that the centre unit depends on, and its centre."""
    ax = new_axes() if ax is None else ax
    height, width = result.input_size
    ax.add_patch(Rectangle((-0.5, -0.5), width, height, facecolor="0.9", edgecolor="0.4", label="image"))
    top, left, bottom, right = result.bounds()
    style = {"fill": False, "edgecolor": "#D55E00", "linewidth": 1.6, **options}
    size = f"{result.size[0]} × {result.size[1]}"  # noqa: RUF001
    box = Rectangle((left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, **style, label=f"TRF {size}")
    ax.add_patch(box)
    y, x = result.center()
    ax.plot(x, y, "+", color="#0072B2", markersize=10, label=f"centre ({y:g}, {x:g})")
    margin = 0.04 * max(height, width)
    ax.set_xlim(min(left, 0) - margin, max(right, width) + margin)
    ax.set_ylim(max(bottom, height) + margin, min(top, 0) - margin)
    ax.set_aspect("equal")
    ax.set_xlabel("column x (pixel)")
    ax.set_ylabel("row y (pixel)")
    ax.set_title(f"{result.layer or 'output'}: {result.status}")
    ax.legend(fontsize="small", loc="upper right")
    return ax


@plot.register
def _(result: ReceptiveFields, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw size and stride against depth."""
    ax = new_axes() if ax is None else ax
    found = list(result.values())
    depth = range(1, len(found) + 1)
    sizes = [max(field.size) for field in found]
    ax.plot(depth, sizes, **{"color": "#D55E00", "label": "receptive field", **options})
    local = [max(field.local_size) for field in found]
    if local != sizes:
        ax.plot(depth, local, color="#D55E00", linestyle=":", label="without what mixes all positions")
    ax.plot(depth, [max(map(float, field.stride)) for field in found], color="#0072B2", label="stride")
    if found:
        ax.axhline(max(found[0].input_size), color="0.5", linestyle="--", linewidth=1, label="image")
    ax.set_yscale("log", base=2)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer, in the order they finish")
    ax.set_ylabel("pixels")
    ax.legend(fontsize="small")
    return ax


def html(result: Any) -> str:
    """Return a table of the most important numbers, and a picture, as one piece of HTML without requests.

    A result that cannot be drawn, such as a map of zeros, has the table alone.
    """
    left = "style='text-align:left'"
    rows = "".join(
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(value)}</td></tr>"
        for name, value in _rows(result).items()
    )
    heading = f"<b>{escape(type(result).__name__)}</b>"
    return f"<div>{heading}<table>{rows}</table>{picture(result)}{_table(result)}</div>"


def picture(result: Any) -> str:
    """Return what ``plot`` draws as an image in HTML; empty where it cannot be drawn."""
    figure = Figure(figsize=_SIZE, dpi=_DOTS, layout="constrained")
    try:
        result.plot(figure.subplots())
    except ValueError:
        return ""
    with io.BytesIO() as file, io.BytesIO() as small:
        figure.savefig(file, format="png")
        # Noise is what PNG cannot pack: with 128 colours a map takes a third of the bytes.
        Image.open(file).convert("RGB").quantize(128).save(small, format="png", optimize=True)
        encoded = base64.b64encode(small.getvalue()).decode("ascii")
    return f'<img alt="{escape(repr(result), quote=True)}" src="data:image/png;base64,{encoded}">'


@singledispatch
def _rows(result: Any) -> dict[str, str]:
    """Return names and values of what the table shows."""
    return {"": result._in_words()}


@_rows.register
def _(result: MapStatistics) -> dict[str, str]:
    height, width = result.mean.shape
    found = {"map": f"{height} × {width} pixels, mean {float(result.mean.mean()):.3g}"}  # noqa: RUF001
    source = result.source
    if source is not None:
        found["of"] = source.layer if source.unit is None else f"{source.layer}, unit {source.unit}"
        if source.center is not None:
            found["centred on"] = f"({source.center[0]:g}, {source.center[1]:g})"
    found["images"] = str(result.n_images)
    if result.n_images > 1:
        found["median pixel"] = f"± {100 * relative_error(result):.0f} %"
    return found


@_rows.register
def _(result: ReceptiveField) -> dict[str, str]:
    return {
        "layer": result.layer or "output",
        "size": f"{result.size[0]} × {result.size[1]}",  # noqa: RUF001
        "stride": f"{result.stride[0]:g}, {result.stride[1]:g}",
        "map": f"{result.output_size[0]} × {result.output_size[1]}",  # noqa: RUF001
        "status": result.status,
        **({"note": result.note} if result.note else {}),
    }


@_rows.register
def _(result: GaussianFit) -> dict[str, str]:
    errors = result.standard_errors
    return {
        "sigma y": f"{result.sigma_y:.2f} ± {errors.sigma_y:.2g} px",
        "sigma x": f"{result.sigma_x:.2f} ± {errors.sigma_x:.2g} px",
        "centre": f"({result.center[0]:.1f}, {result.center[1]:.1f})",
        "R²": f"{result.r_squared:.3f}",
        "errors": f"from {errors.source}",
    }


def _table(result: Any) -> str:
    """Return the layers of a network, folded; nothing for another result."""
    if not isinstance(result, ReceptiveFields):
        return ""
    cells = [("layer", "size", "stride", "map", "status")]
    for name, field in list(result.items())[:_ROWS]:
        size, grid = (f"{y} × {x}" for y, x in (field.size, field.output_size))  # noqa: RUF001
        cells.append((name or "output", size, f"{max(map(float, field.stride)):g}", grid, field.status))
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    more = f"<p>and {len(result) - _ROWS} more</p>" if len(result) > _ROWS else ""
    return f"<details><summary>{len(result)} layers</summary><table>{lines}</table>{more}</details>"
