"""How the pixels of a map become a picture: the unit they are drawn in, their colours and the colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LogNorm, Normalize, SymLogNorm, TwoSlopeNorm
from matplotlib.image import AxesImage
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from torch import Tensor

from erfattr._checks import as_map, as_numbers, describe
from erfattr.metrics.statistics import MapStatistics

Array = npt.NDArray[np.float64]
Limits = tuple[float, float]

# Perceptually uniform and readable with colour-vision deficiencies; the second one for values about a middle.
CMAP = "magma"
DIVERGING_CMAP = "PuOr_r"
# White lines with a black outline are seen on every colour of the map.
OUTLINE: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="black")]
# Share of the mass that may lie in pixels brighter than the colours of a linear scale.
CLIPPED = 0.02
# A share from which on the picture itself says that it is clipped.
NOTED = 0.03
# A linear scale leaves a map dark where fewer pixels than this share of all reach a tenth of its end.
_LIT, _DARK = 0.1, 0.02
# A logarithmic scale begins where the fainter pixels hold this share of the mass, at most 4 decades down.
_FAINT, _DECADES = 1e-3, 1e-4


@dataclass(frozen=True)
class Colors:
    """How values become colours.

    Attributes:
        norm: From value to 0..1.
        cmap: From there to a colour.
        words: What the colour bar says of it; empty for a linear scale that reaches every value.
        clipped: Share of the mass in pixels beyond the colours, 0..1; for a logarithmic scale above them.
    """

    norm: Normalize
    cmap: Colormap
    words: str
    clipped: float


def as_array(values: Tensor) -> Array:
    return values.detach().cpu().double().numpy()


def drawn_values(name: str, value: Any, relative: bool = True) -> tuple[Array, str]:
    """Return what is drawn of a map, the argument ``name``, and what its unit is called."""
    values = as_array(as_map(name, value.mean if isinstance(value, MapStatistics) else value))
    if not relative:
        return values, "sensitivity"
    mean = values.mean()
    if mean <= 0:
        raise ValueError(f"{name}: expected a positive mean (or relative=False), got {mean:g}")
    return values / mean, "sensitivity relative to mean"


def new_axes() -> Axes:
    """Return the axes of a new figure of pyplot, which a notebook shows."""
    return new_row(1)[0]


def new_row(count: int) -> list[Axes]:
    """Return so many axes beside each other in a new figure of pyplot."""
    from matplotlib import pyplot  # only here: nothing else touches its global state

    figure = pyplot.figure(figsize=(5.2 * count, 4.4), layout="constrained")
    return list(figure.subplots(1, count, squeeze=False)[0])


def choose_colors(
    maps: Sequence[Array],
    *,
    limits: Any = None,
    norm: Normalize | str | None = None,
    cmap: Colormap | str | None = None,
) -> Colors:
    """Return the colours of maps that share them.

    The scale is linear from 0 to the value above which 2 % of the mass lies. Where that leaves a map dark,
    because few pixels hold the mass, it is logarithmic. Two-sided if something is negative.

    Args:
        maps: Values as they are drawn.
        limits: (lowest, highest) of the colours; ``None``: by the rule above.
        norm: ``"linear"``, ``"log"``, or a `matplotlib.colors.Normalize`; ``None``: by the rule above, or
            linear between ``limits``.
        cmap: A colour map of matplotlib or its name.

    Raises:
        TypeError: ``norm`` is something else, or ``limits`` are no numbers.
        ValueError: ``norm`` or ``cmap`` has an unknown name; ``limits`` that are not in order, that a
            `Normalize` has already, or that a logarithmic scale cannot have.
    """
    pooled = np.concatenate([values.ravel() for values in maps])
    ends = None if limits is None else _limits(limits)
    if isinstance(norm, Normalize):
        if ends is not None:
            raise ValueError(
                f"limits: expected None beside a norm, which has its own, got {describe(limits)}"
            )
        if not norm.scaled():
            norm = copy(norm)
            norm.autoscale_None(pooled)
        scale, words = norm, _of_norm(norm)
    elif norm not in (None, "linear", "log"):
        error = ValueError if isinstance(norm, str) else TypeError
        raise error(f"norm: expected 'linear', 'log', a matplotlib Normalize or None, got {describe(norm)}")
    else:
        scale, words = _scale(maps, pooled, ends, norm)
    two_sided = scale.vmin is not None and scale.vmax is not None and scale.vmin < 0 < scale.vmax
    chosen = _colormap(cmap, DIVERGING_CMAP if two_sided else CMAP)
    clipped = _beyond(pooled, scale)
    if isinstance(scale, (LogNorm, SymLogNorm)):
        clipped = _beyond(pooled, scale, below=False)
    elif clipped > 0 and limits is None:
        words = ", ".join(filter(None, (words, f"{100 * clipped:.2g} % of the mass beyond the colours")))
    return Colors(scale, chosen, words, clipped)


def _scale(
    maps: Sequence[Array], pooled: Array, ends: Limits | None, kind: str | None
) -> tuple[Normalize, str]:
    """Return a norm of erfattr's own, and what it is called where it is not linear."""
    sizes = np.sort(np.abs(pooled))[::-1]
    signed = bool(pooled.min() < 0) if ends is None else ends[0] < 0 < ends[1]
    highest = _linear_end(sizes) if ends is None else ends[1]
    if kind != "linear":
        lowest, top = (_faintest(sizes), float(sizes[0])) if ends is None else ends
        dark = ends is None and any(np.mean(np.abs(values) > _LIT * highest) < _DARK for values in maps)
        # Less than a decade is no range to draw in logarithms.
        useful = 0 < lowest <= top / 10
        if kind == "log" and (lowest <= 0 or top <= 0) and not signed:
            raise ValueError(f"limits: expected positive ones for a logarithmic scale, got {ends}")
        if kind == "log" or (dark and useful):
            if signed:
                least = lowest if ends is None else top * _DECADES
                return SymLogNorm(least, vmin=-top, vmax=top), "logarithmic on both sides"
            return LogNorm(lowest, top), "logarithmic"
    if ends is not None:
        return (TwoSlopeNorm(0, *ends) if signed else Normalize(*ends)), ""
    return (TwoSlopeNorm(0, -highest, highest) if signed else Normalize(0.0, highest)), ""


def _linear_end(sizes: Array) -> float:
    """Return the least value that no more than 2 % of the mass is brighter than, of sizes that fall."""
    total = float(sizes.sum())
    if total == 0:
        return 1.0
    return float(sizes[np.searchsorted(np.cumsum(sizes), CLIPPED * total, side="right")])


def _faintest(sizes: Array) -> float:
    """Return where a logarithmic scale begins."""
    total = float(sizes.sum())
    if total == 0:
        return 0.0
    # Of the pixels that are bright enough to hold all but a thousandth of the mass the faintest.
    last = int(np.searchsorted(np.cumsum(sizes), (1 - _FAINT) * total))
    # Half of it, so that even an even ground under a few peaks is not the darkest colour of all.
    return max(float(sizes[min(last, len(sizes) - 1)]) / 2, _DECADES * float(sizes[0]))


def _beyond(pooled: Array, norm: Normalize, *, below: bool = True) -> float:
    """Return the share of the mass in pixels that lie beyond the colours."""
    outside = pooled > float(norm.vmax if norm.vmax is not None else np.inf)
    if below:
        outside |= pooled < float(norm.vmin if norm.vmin is not None else -np.inf)
    sizes = np.abs(pooled)
    total = float(sizes.sum())
    return float(sizes[outside].sum()) / total if total > 0 else 0.0


def _of_norm(norm: Normalize) -> str:
    if isinstance(norm, LogNorm):
        return "logarithmic"
    return "" if type(norm) in (Normalize, TwoSlopeNorm) else type(norm).__name__


def _colormap(cmap: Colormap | str | None, default: str) -> Colormap:
    if cmap is None:
        cmap = default
    if isinstance(cmap, str):
        if cmap not in colormaps:
            raise ValueError(f"cmap: expected the name of a matplotlib colour map, got {cmap!r}")
        cmap = colormaps[cmap]
    if not isinstance(cmap, Colormap):
        raise TypeError(f"cmap: expected a matplotlib colour map or its name, got {describe(cmap)}")
    # What a logarithm has no place for, zero above all, is as dark as the faintest.
    return cmap.with_extremes(bad=cmap(0.0))


def _limits(limits: Any) -> Limits:
    lowest, highest = as_numbers("limits", limits, 2)
    if lowest >= highest:
        raise ValueError(f"limits: expected (lowest, highest) in this order, got {describe(limits)}")
    return lowest, highest


def draw_image(ax: Axes, values: Array, colors: Colors, *, origin: tuple[int, int] = (0, 0)) -> AxesImage:
    """Draw pixels with their centres at integers, from ``origin`` on."""
    top, left = origin
    image = ax.imshow(
        values,
        cmap=colors.cmap,
        norm=colors.norm,
        interpolation="nearest",
        origin="upper",
        aspect="equal",
        extent=(left - 0.5, left + values.shape[1] - 0.5, top + values.shape[0] - 0.5, top - 0.5),
    )
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("column x (pixel)")
    ax.set_ylabel("row y (pixel)")
    return image


def note_clipped(ax: Axes, clipped: float) -> None:
    """Say in the picture itself that its colours leave out more than a few percent of the mass."""
    if clipped > NOTED:
        ax.text(
            0.5,
            0.02,
            f"{100 * clipped:.0f} % of the mass beyond the colours",
            transform=ax.transAxes,
            ha="center",
            va="bottom",
            color="white",
            fontsize="small",
            path_effects=OUTLINE,
        )


def draw_colorbar(
    axes: Sequence[Axes], image: AxesImage, label: str, maps: Sequence[Array], *, words: str = ""
) -> None:
    """Add a colour bar whose ends say which values lie beyond the colours.

    Args:
        axes: Those that share it.
        image: What is drawn.
        label: The unit.
        maps: The values that are drawn in these colours.
        words: What is said of the scale.
    """
    lowest, highest = image.get_clim()
    above = any(values.max() > highest for values in maps)
    below = any(values.min() < lowest for values in maps)
    extend = ("both" if below else "max") if above else ("min" if below else "neither")
    if len(axes) == 1:
        # Beside the image and as high as it: a layout engine's own bar is shorter, or its label is cut.
        place = axes[0].inset_axes((1.03, 0.0, 0.05, 1.0))
        bar = axes[0].figure.colorbar(image, cax=place, extend=extend)
    else:
        bar = axes[0].figure.colorbar(image, ax=list(axes), extend=extend, fraction=0.046, pad=0.02)
    if not isinstance(image.norm, (LogNorm, SymLogNorm)):
        scientific(bar.ax.yaxis)
    bar.set_label(f"{label}\n({words})" if words else label)


def scientific(axis: Axis) -> None:
    """Write the numbers of an axis as 2 with a factor of 10^-5 at its end, not as 0.00002."""
    formatter = ScalarFormatter(useMathText=True)
    formatter.set_powerlimits((-2, 3))
    axis.set_major_formatter(formatter)
