"""Attacked images as PNG files, one contact sheet with the changed pixels circled, and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image
from torch import Tensor

from erfattr._files import environment, write_json, writing
from erfattr.report._map_image import OUTLINE
from erfattr.report.figures import draw_figures

_COLUMNS = 5
_SHOWN_AT_MOST = 40


@dataclass(frozen=True)
class AttackedImage:
    """One image before and after, as 8-bit files hold it.

    Attributes:
        name: What its file is called.
        image: (3, H, W) uint8, changed; unchanged where the image was not attacked.
        before: Label before.
        after: Label of ``image``.
        probability_before: Probability of ``before``, before.
        probability_after: Probability of ``after``, of ``image``.
        success: Whether the attack reached its goal, as 8-bit image.
        already_adversarial: Whether it was reached before.
        queries: Samples that the model was run on.
        positions: (y, x) of the changed pixels.
        colors: Their colours before and after, 0..255.
    """

    name: str
    image: Tensor
    before: str
    after: str
    probability_before: float
    probability_after: float
    success: bool
    already_adversarial: bool
    queries: int
    positions: list[list[int]]
    colors: list[dict[str, list[int]]]

    @property
    def outcome(self) -> str:
        """What came of it, in a word or two."""
        if self.already_adversarial:
            return "not attacked"
        return "success" if self.success else "withstood"


def draw_attacks(images: Sequence[AttackedImage], heading: str | None = None) -> Figure:
    """Draw the changed images with their pixels circled, successes first, at most 40.

    Args:
        images: At least one.
        heading: What to write above all.
    """
    order = {"success": 0, "withstood": 1, "not attacked": 2}
    shown = sorted(images, key=lambda image: order[image.outcome])[:_SHOWN_AT_MOST]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    if len(shown) < len(images):
        heading = f"{heading or ''}\n{len(shown)} of {len(images)} images, successes first"
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(max(2.6 * columns, 7.0), 3.2 * rows + 0.6), dpi=150, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        figure.suptitle(heading or "")
        for ax, image in zip(axes, shown, strict=False):
            _draw(ax, image)
        for ax in axes[len(shown) :]:
            ax.set_axis_off()
    return figure


def write_attacks(
    folder: str | Path,
    images: Sequence[AttackedImage],
    record: Mapping[str, Any],
    heading: str | None = None,
) -> list[Path]:
    """Write the adversarial images, the contact sheet and one JSON file, each whole or not at all.

    The sheet comes last: if it cannot be drawn, it is left out with a `FigureWarning`.

    Args:
        folder: Where to; made if it is not there.
        images: At least one, each of another name.
        record: What is needed to repeat the run; becomes ``record`` in the JSON file.
        heading: What to write above the sheet.

    Returns:
        The files: ``NAME_adversarial.png`` of each success, ``contact_sheet.png``, ``result.json``.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: no image, or two of one name.
    """
    names = [image.name for image in images]
    if not images or len(set(names)) < len(names):
        raise ValueError(f"images: expected images of different names, got {names or 'none'}")
    attacked = [image for image in images if not image.already_adversarial]
    successes = [image for image in attacked if image.success]
    summary = {
        "images": len(images),
        "already_adversarial": len(images) - len(attacked),
        "attacked": len(attacked),
        "successes": len(successes),
        "success_rate": len(successes) / len(attacked) if attacked else None,
        "queries": sum(image.queries for image in images),
    }
    described = {
        image.name: {key: value for key, value in vars(image).items() if key not in ("name", "image")}
        for image in images
    }
    with writing(folder) as stage:
        for image in successes:
            pixels = image.image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(stage / f"{image.name}_adversarial.png")
        result = {"record": record, "environment": environment(), "summary": summary, "images": described}
        write_json(stage / "result.json", result)
        written = [path.name for path in stage.iterdir()]
    sheet = {"contact_sheet.png": lambda path: draw_attacks(images, heading).savefig(path)}
    written += draw_figures(Path(folder), sheet)
    return [Path(folder) / name for name in sorted(written)]


def _draw(ax: Axes, attacked: AttackedImage) -> None:
    height, width = attacked.image.shape[1:]
    ax.imshow(attacked.image.permute(1, 2, 0).numpy(), interpolation="nearest")
    for y, x in attacked.positions:
        ring = Circle((x, y), 0.06 * max(height, width), fill=False, edgecolor="white", linewidth=1.4)
        ring.set_path_effects(OUTLINE)
        # A pixel at the border has its whole ring all the same.
        ax.add_patch(ring).set_clip_on(False)
    lines = [f"{_short(attacked.before)}, {attacked.probability_before:.2f}"]
    if attacked.success:
        lines.append(f"now {_short(attacked.after)}, {attacked.probability_after:.2f}")
    elif attacked.already_adversarial:
        lines.append("not attacked")
    else:
        lines.append(f"withstood, {attacked.probability_after:.2f}")
    ax.set_title("\n".join(lines), fontsize="medium")
    ax.set_xticks([])
    ax.set_yticks([])


def _short(label: str) -> str:
    return label if len(label) <= 22 else label[:21] + "…"
