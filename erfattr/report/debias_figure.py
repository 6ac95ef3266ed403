"""Debiased attributions as one figure: before and after at one zoom and scale, and what became of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from erfattr.metrics.grid_contrast import GridContrast, grid_contrast
from erfattr.report._map_image import (
    OUTLINE,
    Array,
    as_array,
    choose_colors,
    draw_colorbar,
    draw_image,
    drawn_values,
)
from erfattr.report.profile_plots import plot_phase_profile, profile_limits

# Millimetres.
_WIDTH, _LEFT, _PANEL, _GAP, _TITLE = 170.0, 2.5, 28.0, 2.2, 4.6
_TOP, _LAST = 15.0, 25.0
_MM = 1 / 25.4


@dataclass(frozen=True)
class DebiasedImage:
    """One image with its attributions before and after.

    Attributes:
        name: What the files of this image are called.
        image: (3, H, W), 0..1.
        raw: (C, H, W): the method's attributions.
        debiased: (C, H, W): the same, debiased.
        target: The class that was explained.
        label: Its name; empty where it is not known.
    """

    name: str
    image: Tensor
    raw: Tensor
    debiased: Tensor
    target: int
    label: str = ""

    @property
    def explained(self) -> str:
        """The class, by its name where it is known."""
        return self.label or f"class {self.target}"

    def strengths(self) -> tuple[Tensor, Tensor]:
        """Return the mean absolute values over channels, (H, W), raw and debiased."""
        return self.raw.abs().mean(0).double(), self.debiased.abs().mean(0).double()


@dataclass(frozen=True)
class GridChange:
    """The grid in attributions before they were debiased and after.

    Attributes:
        before: Of the raw attributions.
        after: Of the debiased ones.
        n_images: Over how many images the strengths were averaged.
    """

    before: GridContrast
    after: GridContrast
    n_images: int

    @property
    def sentence(self) -> str:
        """What became of the grid, in words."""
        many = "this image" if self.n_images == 1 else f"{self.n_images} images"
        numbers = (
            f"phase contrast {self.before.contrast:.3f} before, {self.after.contrast:.3f} after; noise alone "
            f"gives {self.after.noise_floor:.3f}"
        )
        if not self.before.is_told:
            verdict = "no grid is told from noise, before or after: more images would show one"
            if self.after.is_told:
                verdict = "no grid is told from noise before, but one after"
        elif not self.after.is_told:
            verdict = "a grid before; after it, none that is told from noise"
        else:
            before, left = self.before.without_noise, self.after.without_noise
            share = f"{100 * left / before:.0f} %" if before > 0 else "some"
            verdict = f"a grid before; after it, {share} of its contrast is left"
        return f"{many}: {verdict} ({numbers})"

    def numbers(self) -> dict[str, Any]:
        """Return the contrasts and their floors, for JSON."""
        return {
            "phase_contrast_before": self.before.contrast,
            "phase_contrast_after": self.after.contrast,
            "noise_floor_before": self.before.noise_floor,
            "noise_floor_after": self.after.noise_floor,
            "told_from_noise_before": self.before.is_told,
            "told_from_noise_after": self.after.is_told,
            "sentence": self.sentence,
        }


def grid_change(images: Sequence[DebiasedImage], period: int | None) -> GridChange | None:
    """Measure the grid of images' attributions, averaged with the same weight, before and after.

    Args:
        images: At least one, all of one size.
        period: Of the grid; ``None``: not known.

    Returns:
        The change; ``None`` without a period, and where a phase profile cannot be taken: an image smaller
        than the period, attributions of zeros.
    """
    if period is None or period < 2:
        return None
    with suppress(ValueError):
        before, after = (
            torch.stack([_of_mean_one(image.strengths()[index].cpu()) for image in images]).mean(0)
            for index in (0, 1)
        )
        return GridChange(grid_contrast(before, period), grid_contrast(after, period), len(images))
    return None


def _of_mean_one(strength: Tensor) -> Tensor:
    mean = strength.mean()
    return strength / mean if float(mean) > 0 else strength


def draw_debiased(
    images: Sequence[DebiasedImage],
    sensitivity_map: Any,
    period: int | None,
    heading: str | None = None,
    change: GridChange | None = None,
) -> Figure:
    """Draw each image with its attributions, whole and pixel by pixel, and what became of the grid.

    A row for each image: the image, raw and debiased, and the same window of both, two periods wide, about
    their strongest pixels; strengths relative to the raw attribution's mean, in one scale. The last row: the
    sensitivity map and its pixels, the phase profile of all images before and after in one scale, and both
    contrasts beside what noise alone gives. The headline says it in words.

    Args:
        images: At least one, all of one size.
        sensitivity_map: Map R, (H, W), of that size or another.
        period: Of the grid; ``None``: not known, windows are 32 wide.
        heading: What to write above all.
        change: What `grid_change` gave for these images, if it is there already.
    """
    if change is None:
        change = grid_change(images, period)
    height, width = images[0].raw.shape[1:]
    tall = _PANEL * height / width
    bottom = 6.0
    high = _TOP + len(images) * (tall + _TITLE + _GAP) + _TITLE + _LAST + bottom
    window = 2 * (period or 16)
    with rc_context({"font.size": 7, "axes.titlesize": 7, "axes.titlepad": 3.0}):
        figure = Figure(figsize=(_WIDTH * _MM, high * _MM), dpi=200)

        def place(left: float, top: float, wide: float, long: float) -> Axes:
            return figure.add_axes((left / _WIDTH, 1 - (top + long) / high, wide / _WIDTH, long / high))

        top = _TOP
        for image in images:
            top += _TITLE
            row = [place(_LEFT + index * (_PANEL + _GAP), top, _PANEL, tall) for index in range(5)]
            _draw_row(row, image, window)
            top += tall + _GAP
        top += _TITLE
        # Where a colour bar stands between them, there is more room.
        last = [place(left, top + 1.0, 24.0, 24.0) for left in (4.0, 31.0, 70.0, 102.0, 142.0)]
        _draw_map(last[:2], sensitivity_map, window)
        _draw_change(last[2:], change)
        if heading:
            figure.text(0.5, 1 - 1.6 / high, heading, ha="center", va="top", fontsize=7, color="0.3")
        words = "the grid was not measured: its period is not known" if change is None else change.sentence
        verdict, _, numbers = words.partition(" (")
        figure.text(0.5, 1 - 5.4 / high, verdict, ha="center", va="top", fontsize=9, fontweight="bold")
        figure.text(0.5, 1 - 9.9 / high, numbers.rstrip(")"), ha="center", va="top", fontsize=7)
    return figure


def _draw_row(axes: Sequence[Axes], debiased_image: DebiasedImage, window: int) -> None:
    raw, debiased = (as_array(values) for values in debiased_image.strengths())
    scale = raw.mean() or 1.0  # an attribution of zeros has no scale
    raw, debiased = raw / scale, debiased / scale
    colors = choose_colors([raw, debiased])
    photograph = debiased_image.image.permute(1, 2, 0).cpu().numpy()
    axes[0].imshow(photograph, interpolation="nearest")
    # From the left edge on: what is too long for the panel is cut at its end, not at both.
    axes[0].set_title(_short(f"{debiased_image.name}: {debiased_image.explained}"), loc="left")
    top, left = _strongest(raw, window)
    rows, columns = slice(top, top + window), slice(left, left + window)
    for ax, values, title in ((axes[1], raw, "raw"), (axes[2], debiased, "debiased")):
        draw_image(ax, values, colors)
        frame = Rectangle(
            (left - 0.5, top - 0.5), window, window, fill=False, edgecolor="white", linewidth=0.8
        )
        frame.set_path_effects(OUTLINE)
        ax.add_patch(frame)
        ax.set_title(title)
    for ax, values, title in ((axes[3], raw, "raw, pixels"), (axes[4], debiased, "debiased, pixels")):
        image = draw_image(ax, values[rows, columns], colors, origin=(top, left))
        ax.set_title(title)
    for ax in axes:
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    label = "attribution / raw mean"
    draw_colorbar([axes[4]], image, label, [raw, debiased])


def _strongest(values: Array, window: int) -> tuple[int, int]:
    """Return where the window begins that holds most of a map."""
    height, width = (max(1, length - window + 1) for length in values.shape)
    sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    below, right = np.minimum(y + window, values.shape[0]), np.minimum(x + window, values.shape[1])
    held = sums[below, right] - sums[y, right] - sums[below, x] + sums[y, x]
    top, left = np.unravel_index(int(held.argmax()), held.shape)
    return int(top), int(left)


def _draw_map(axes: Sequence[Axes], sensitivity_map: Any, window: int) -> None:
    values, _ = drawn_values("sensitivity_map", sensitivity_map)
    top, left = (max(0, (length - window) // 2) for length in values.shape)
    pixels = values[top : top + window, left : left + window]
    colors = choose_colors([values])
    draw_image(axes[0], values, colors)
    image = draw_image(axes[1], pixels, colors, origin=(top, left))
    for ax, title in zip(axes, ("map R / mean(R)", "its middle"), strict=True):
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
        ax.set_title(title)
    draw_colorbar([axes[1]], image, "", [values])


def _draw_change(axes: Sequence[Axes], change: GridChange | None) -> None:
    if change is None:
        for ax in axes:
            ax.set_axis_off()
        return
    limits = profile_limits([change.before.profile, change.after.profile])
    for ax, found, when in zip(axes, (change.before, change.after), ("before", "after"), strict=False):
        plot_phase_profile(
            found.profile, ax, limits=limits, colorbar=when == "after", title=f"phase profile {when}"
        )
        ax.set(xlabel="", ylabel="")
    # The bar's label is the same as in every phase profile; here the title and the page say it.
    axes[1].child_axes[-1].set_ylabel("")
    bars = axes[2]
    values = [change.before.contrast, change.after.contrast]
    floors = [change.before.noise_floor, change.after.noise_floor]
    bars.bar(["before", "after"], values, color=["#D55E00", "#0072B2"], width=0.6)
    for index, (value, floor) in enumerate(zip(values, floors, strict=True)):
        bars.plot((index - 0.42, index + 0.42), (floor, floor), color="black", linewidth=1.4)
        bars.text(index, max(value, floor), f"{value:.3f}", ha="center", va="bottom")
    bars.set_ylim(0, 1.2 * max(*values, *floors, 1e-9))
    bars.set_title("contrast, line: noise")
    bars.set_yticks([])  # the numbers stand at the bars
    bars.spines[["top", "right", "left"]].set_visible(False)


def _short(words: str, longest: int = 23) -> str:
    return words if len(words) <= longest else words[: longest - 1] + "…"
