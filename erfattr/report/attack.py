"""Attacked images as PNG files, one contact sheet with the changed pixels circled, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from erfattr._files import environment, plain, writing

_COLUMNS = 5
_MOST = 40


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
    shown = sorted(images, key=lambda one: order[one.outcome])[:_MOST]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    if len(shown) < len(images):
        heading = f"{heading or ''}\n{len(shown)} of {len(images)} images, successes first"
    with plt.rc_context({"font.size": 9}):
        figure = Figure(figsize=(max(2.6 * columns, 7.0), 3.2 * rows + 0.6), dpi=150, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        figure.suptitle(heading or "")
        for ax, one in zip(axes, shown, strict=False):
            _draw(ax, one)
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
    names = [one.name for one in images]
    if not images or len(set(names)) < len(names):
        raise ValueError(f"images: expected images of different names, got {names or 'none'}")
    attacked = [one for one in images if not one.already_adversarial]
    summary = {
        "images": len(images),
        "already_adversarial": len(images) - len(attacked),
        "attacked": len(attacked),
        "successes": sum(one.success for one in attacked),
        "success_rate": sum(one.success for one in attacked) / len(attacked) if attacked else None,
        "queries": sum(one.queries for one in images),
    }
    described = {
        one.name: {key: value for key, value in vars(one).items() if key not in ("name", "image")}
        for one in images
    }
    with writing(folder) as stage:
        for one in attacked:
            if one.success:
                Image.fromarray(one.image.permute(1, 2, 0).numpy()).save(
                    stage / f"{one.name}_adversarial.png"
                )
        draw_attacks(images, heading).savefig(stage / "contact_sheet.png")
        result = plain(
            {"record": record, "environment": environment(), "summary": summary, "images": described}
        )
        (stage / "result.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        written = sorted(path.name for path in stage.iterdir())
    return [Path(folder) / name for name in written]


def _draw(ax: Axes, one: AttackedImage) -> None:
    height, width = one.image.shape[1:]
    ax.imshow(one.image.permute(1, 2, 0).numpy(), interpolation="nearest")
    for y, x in one.positions:
        ring = Circle((x, y), 0.06 * max(height, width), fill=False, edgecolor="white", linewidth=1.4)
        ring.set_path_effects([withStroke(linewidth=3, foreground="black")])
        # A pixel at the border has its whole ring all the same.
        ax.add_patch(ring).set_clip_on(False)
    lines = [f"{_short(one.before)}, {one.probability_before:.2f}"]
    if one.success:
        lines.append(f"now {_short(one.after)}, {one.probability_after:.2f}")
    elif one.already_adversarial:
        lines.append("not attacked")
    else:
        lines.append(f"withstood, {one.probability_after:.2f}")
    ax.set_title("\n".join(lines), fontsize="medium")
    ax.set_xticks([])
    ax.set_yticks([])


def _short(label: str) -> str:
    return label if len(label) <= 22 else label[:21] + "…"
