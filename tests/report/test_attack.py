"""The contact sheet and the files of an attack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.patches import Circle
from PIL import Image

from erfattr.report.attack import AttackedImage, draw_attacks, write_attacks

PIXELS = torch.arange(3 * 8 * 6).view(3, 8, 6).to(torch.uint8)
ONE = AttackedImage(
    name="one",
    image=PIXELS,
    before="cat",
    after="dog",
    probability_before=0.75,
    probability_after=0.5,
    success=True,
    already_adversarial=False,
    queries=12,
    positions=[[2, 5], [7, 0]],
    colors=[{"before": [0, 0, 0], "after": [255, 0, 0]}] * 2,
)
FAILED = replace(ONE, name="two", after="cat", success=False)
SKIPPED = replace(
    ONE, name="three", after="cat", success=False, already_adversarial=True, positions=[], colors=[]
)


def test_sheet_circles_the_pixels_and_says_both_labels_successes_first() -> None:
    figure = draw_attacks([SKIPPED, FAILED, ONE], "a heading")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["cat, 0.75\nnow dog, 0.50", "cat, 0.75\nwithstood, 0.50", "cat, 0.75\nnot attacked"]
    circles = [[patch.center for patch in ax.patches if isinstance(patch, Circle)] for ax in figure.axes]
    assert circles == [[(5, 2), (0, 7)], [(5, 2), (0, 7)], []]
    assert figure.texts[0].get_text() == "a heading"
    assert np.array_equal(figure.axes[0].images[0].get_array(), PIXELS.permute(1, 2, 0))


def test_sheet_of_many_says_how_many_it_shows() -> None:
    figure = draw_attacks([replace(FAILED, name=str(index)) for index in range(41)] + [ONE])
    assert len([ax for ax in figure.axes if ax.images]) == 40
    assert "40 of 42 images" in figure.texts[0].get_text()
    assert figure.axes[0].get_title().endswith("now dog, 0.50")


def test_files_hold_the_exact_pixels_and_every_number(tmp_path: Path) -> None:
    written = write_attacks(tmp_path / "out", [ONE, FAILED, SKIPPED], {"command": ["erfattr"]})
    assert [path.name for path in written] == ["contact_sheet.png", "one_adversarial.png", "result.json"]
    assert np.array_equal(np.asarray(Image.open(written[1])), PIXELS.permute(1, 2, 0))
    result = json.loads(written[2].read_text())
    assert result["record"] == {"command": ["erfattr"]}
    assert result["summary"] == {
        "images": 3,
        "already_adversarial": 1,
        "attacked": 2,
        "successes": 1,
        "success_rate": 0.5,
        "queries": 36,
    }
    assert result["images"]["one"]["positions"] == [[2, 5], [7, 0]]
    assert result["images"]["three"]["already_adversarial"] is True


@pytest.mark.parametrize("images", [[], [ONE, ONE]])
def test_images_without_or_of_one_name_are_refused(images: list[AttackedImage], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images: expected images of different names"):
        write_attacks(tmp_path / "out", images, {})
    assert not (tmp_path / "out").exists()
