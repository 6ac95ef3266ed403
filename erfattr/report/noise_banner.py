"""Say in a figure itself that a map is mostly noise, so that no picture of it travels without the words."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from erfattr.metrics.precision import images_for, relative_error
from erfattr.metrics.statistics import MapStatistics

# From this relative standard error of the median pixel on, a map is called mostly noise: half its pixels are
# not known to be above zero by two standard errors.
MOSTLY_NOISE = 0.5
# What the banner says how to reach, as reports do.
_WANTED = 0.1


def noise_in_words(statistics: MapStatistics) -> str:
    """Say that a map is mostly noise, and how many images it takes; empty where it is not.

    It is where the standard error of its median pixel (`relative_error`) is half of its value or more: then
    half the pixels are not told from zero by two standard errors.

    Args:
        statistics: The map.

    Raises:
        TypeError: it is no `MapStatistics`.

    Example:
        Two images of 1 and 3 everywhere: the mean is 2, its standard error 1.

        >>> import torch
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> statistics = StreamingStatistics(groups=2)
        >>> statistics.update(torch.tensor([1.0, 3.0])[:, None, None].expand(2, 4, 4))
        >>> noise_in_words(statistics.result())
        'mostly noise: 2 images, median pixel ± 50 %; for ± 10 % about 50 images'
    """
    count = statistics.n_images if isinstance(statistics, MapStatistics) else 0
    if count == 1:
        return "one image: its own gradient, not yet a map of the network"
    error = relative_error(statistics)
    if error < MOSTLY_NOISE or not math.isfinite(error):
        return ""
    needed = images_for(error, count, _WANTED)
    return (
        f"mostly noise: {count} images, median pixel ± {100 * error:.0f} %; for ± 10 % about {needed} images"
    )


def draw_banner(ax: Axes, words: str) -> None:
    """Write words across the top of a picture, dark on yellow; nothing where there are none."""
    if words:
        ax.text(
            0.5,
            0.985,
            words.replace("; ", "\n"),
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize="small",
            color="black",
            bbox={
                "facecolor": "#F0E442",
                "edgecolor": "black",
                "linewidth": 0.6,
                "boxstyle": "square,pad=0.25",
            },
            zorder=10,
        )
