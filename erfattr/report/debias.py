"""Debiased attributions of single images as figure, NPY and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from erfattr._files import environment, write_json, writing
from erfattr.report.debias_figure import DebiasedImage, GridChange, draw_debiased, grid_change
from erfattr.report.figures import draw_figures
from erfattr.report.pixel_plots import save_figure


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
        period: Of the grid; ``None``: not known.
        heading: What to write above the figure.

    Returns:
        The files: for each image ``NAME_image.npy`` (3, H, W), 0..1, ``NAME_raw.npy`` and
        ``NAME_debiased.npy`` (C, H, W), ``NAME_difference.npy`` (H, W): sizes after less sizes before, in the
        attributions' unit; ``sensitivity_map.npy``; ``debiased.png``; ``result.json``, with the grid's
        contrast before and after, of all images and of each.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: no image, or two of one name.
    """
    names = [image.name for image in images]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"images: expected images of different names, got {names or 'none'}")
    change = grid_change(images, period)
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
        described = {
            image.name: {
                "target": image.target,
                "class": image.explained,
                "grid": _numbers(grid_change([image], period)),
            }
            for image in images
        }
        result = {
            "record": record,
            "environment": environment(),
            "grid": _numbers(change),
            "images": described,
        }
        write_json(stage / "result.json", result)
        written = [path.name for path in stage.iterdir()]

    def draw(path: Path) -> None:
        save_figure(draw_debiased(images, sensitivity_map, period, heading, change), path)

    written += draw_figures(Path(folder), {"debiased.png": draw})
    return [Path(folder) / name for name in sorted(written)]


def _numbers(change: GridChange | None) -> dict[str, Any] | None:
    return None if change is None else change.numbers()
