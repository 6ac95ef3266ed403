"""Debiased attributions of single images as figure, NPY and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from erfattr._files import environment, write_json, writing
from erfattr.report._map_image import DIVERGING_CMAP, as_array, color_limits, draw_colorbar, draw_image
from erfattr.report.figures import draw_figures
from erfattr.report.map_plots import plot_map
from erfattr.report.pixel_plots import plot_zoom, save_figure


@dataclass(frozen=True)
class DebiasedImage:
    """One image with its attributions before and after.

    Attributes:
        name: What the files of this image are called.
        image: (3, H, W), 0..1.
        raw: (C, H, W): the method's attributions.
        debiased: (C, H, W): the same, debiased.
        target: The class that was explained.
    """

    name: str
    image: Tensor
    raw: Tensor
    debiased: Tensor
    target: int

    def strengths(self) -> tuple[Tensor, Tensor]:
        """Return the mean absolute values over channels, (H, W), raw and debiased."""
        return self.raw.abs().mean(0).double(), self.debiased.abs().mean(0).double()


def draw_debiased(
    images: Sequence[DebiasedImage], sensitivity_map: Any, period: int | None, heading: str | None = None
) -> Figure:
    """Draw original, raw, debiased and difference of each image, and the sensitivity map.

    All strengths are relative to the raw attribution's mean over the image; raw and debiased share their
    colours. The last column holds the map, and under it, where there is room, its pixels one by one.

    Args:
        images: At least one, all of one size.
        sensitivity_map: Map R, (H, W), of that size or another.
        period: Pixels of the map to show one by one, two periods wide; ``None`` for 32.
        heading: What to write above all.
    """
    with rc_context({"font.size": 9}):
        # All panels have one shape, so the places are known; a layout engine takes longer than all the rest.
        height = 3.6 * len(images) + 0.9
        figure = Figure(figsize=(21, height), dpi=150)
        axes = figure.subplots(len(images), 5, squeeze=False)
        figure.subplots_adjust(0.03, 0.5 / height, 0.95, 1 - 0.8 / height, wspace=0.5, hspace=0.25)
        figure.suptitle(heading or "")
        for row, image in zip(axes, images, strict=True):
            _draw_row(row, image)
        plot_map(axes[0, 4], sensitivity_map, title="sensitivity map R / mean(R)")
        middle = tuple(length // 2 for length in sensitivity_map.shape)
        for number, ax in enumerate(axes[1:, 4]):
            if number == 0:
                plot_zoom(ax, sensitivity_map, (middle[0], middle[1]), 2 * (period or 16))
            else:
                ax.set_axis_off()
        for ax in axes[:, 1:].flat:
            ax.set_ylabel("")
    return figure


def _draw_row(axes: Sequence[Axes], debiased_image: DebiasedImage) -> None:
    raw, debiased = (as_array(values) for values in debiased_image.strengths())
    scale = raw.mean() or 1.0  # an attribution of zeros has no scale
    raw, debiased = raw / scale, debiased / scale
    difference = debiased - raw
    limits = color_limits([raw])
    # Drawn as values first, for the pixels' coordinates and the ticks that all panels share.
    draw_image(axes[0], raw, limits).set_visible(False)
    axes[0].imshow(debiased_image.image.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    axes[0].set_title(f"{debiased_image.name}, class {debiased_image.target}")
    for ax, values, title in ((axes[1], raw, "raw"), (axes[2], debiased, "debiased")):
        image = draw_image(ax, values, limits)
        draw_colorbar([ax], image, "attribution relative to raw mean", [values], robust=True)
        ax.set_title(title)
    reach = color_limits([np.abs(difference)])[1]
    image = draw_image(axes[3], difference, (-reach, reach), cmap=DIVERGING_CMAP)
    draw_colorbar([axes[3]], image, "change relative to raw mean", [difference], robust=True)
    axes[3].set_title("debiased - raw")


def write_debiased(
    folder: str | Path,
    images: Sequence[DebiasedImage],
    sensitivity_map: Tensor,
    record: Mapping[str, Any],
    *,
    period: int | None = None,
    heading: str | None = None,
) -> list[Path]:
    """Write attributions, map, figure and record; every file is whole or not there.

    The figure comes last: if it cannot be drawn, it is left out with a `FigureWarning`.

    Args:
        folder: Where to; made if it is not there.
        images: At least one, each of another name.
        sensitivity_map: Map R, (H, W).
        record: What is needed to repeat the run; becomes ``record`` in the JSON file.
        period: See `draw_debiased`.
        heading: What to write above the figure.

    Returns:
        The files: for each image ``NAME_image.npy`` (3, H, W), 0..1, ``NAME_raw.npy`` and
        ``NAME_debiased.npy`` (C, H, W), ``NAME_difference.npy`` (H, W): what the figure shows of it, in the
        attributions' unit; ``sensitivity_map.npy``; ``debiased.png``; ``result.json``.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: no image, or two of one name.
    """
    names = [image.name for image in images]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"images: expected images of different names, got {names or 'none'}")
    with writing(folder) as stage:
        for image in images:
            raw, debiased = image.strengths()
            for what, values in (
                ("image", image.image),
                ("raw", image.raw),
                ("debiased", image.debiased),
                ("difference", debiased - raw),
            ):
                np.save(stage / f"{image.name}_{what}.npy", values.cpu().numpy())
        np.save(stage / "sensitivity_map.npy", sensitivity_map.cpu().numpy())
        described = {image.name: {"target": image.target} for image in images}
        write_json(
            stage / "result.json", {"record": record, "environment": environment(), "images": described}
        )
        written = [path.name for path in stage.iterdir()]

    def draw(path: Path) -> None:
        save_figure(draw_debiased(images, sensitivity_map, period, heading), path)

    written += draw_figures(Path(folder), {"debiased.png": draw})
    return [Path(folder) / name for name in sorted(written)]
