"""How the pixels of a map become a picture: the unit they are drawn in, their colours and the colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.image import AxesImage
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from erfattr._checks import as_map

Array = npt.NDArray[np.float64]
Limits = tuple[float, float]

# Perceptually uniform and readable with colour-vision deficiencies; the second one for values about a middle.
CMAP = "magma"
DIVERGING_CMAP = "PuOr_r"
# White lines with a black outline are seen on every colour of the map.
OUTLINE: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="black")]
# Share of the pixels, in percent, that the colours of a whole map resolve.
PERCENTILE = 99.5


def as_array(values: Tensor) -> Array:
    return values.detach().cpu().double().numpy()


def drawn_values(name: str, value: Any, relative: bool = True) -> tuple[Array, str]:
    """Return what is drawn of a map, the argument ``name``, and what its unit is called."""
    values = as_array(as_map(name, value))
    if not relative:
        return values, "sensitivity"
    mean = values.mean()
    if mean <= 0:
        raise ValueError(f"{name}: expected a positive mean (or relative=False), got {mean:g}")
    return values / mean, "sensitivity relative to mean"


def color_limits(maps: Sequence[Array]) -> Limits:
    """Return the range of colours: 0 to the 99.5th percentile, two-sided if something is negative."""
    pooled = np.concatenate([values.ravel() for values in maps])
    highest = float(np.percentile(np.abs(pooled), PERCENTILE))
    # Nearly all zeros: the percentile is zero and the few others are the picture.
    highest = highest or float(np.abs(pooled).max()) or 1.0
    return (-highest, highest) if pooled.min() < 0 else (0.0, highest)


def draw_image(
    ax: Axes,
    values: Array,
    limits: Limits,
    *,
    origin: tuple[int, int] = (0, 0),
    cmap: str | None = None,
) -> AxesImage:
    """Draw pixels with their centres at integers, from ``origin`` on."""
    top, left = origin
    norm: Normalize = Normalize(*limits)
    if cmap is None:
        two_sided = limits[0] < 0 < limits[1]
        cmap = DIVERGING_CMAP if two_sided else CMAP
        norm = TwoSlopeNorm(0, *limits) if two_sided else norm
    image = ax.imshow(
        values,
        cmap=cmap,
        norm=norm,
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


def draw_colorbar(
    axes: Sequence[Axes], image: AxesImage, label: str, maps: Sequence[Array], *, robust: bool
) -> None:
    """Add a colour bar whose ends say which values lie beyond the colours."""
    lowest, highest = image.get_clim()
    above = any(values.max() > highest for values in maps)
    below = any(values.min() < lowest for values in maps)
    extend = ("both" if below else "max") if above else ("min" if below else "neither")
    if robust and (above or below):
        label += f"\n(colours end at percentile {PERCENTILE:g})"
    if len(axes) == 1:
        # Beside the image and as high as it: a layout engine's own bar is shorter, or its label is cut.
        place = axes[0].inset_axes((1.03, 0.0, 0.05, 1.0))
        bar = axes[0].figure.colorbar(image, cax=place, extend=extend)
    else:
        bar = axes[0].figure.colorbar(image, ax=list(axes), extend=extend, fraction=0.046, pad=0.02)
    bar.set_label(label)
