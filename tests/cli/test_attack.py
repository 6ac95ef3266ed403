"""``erfattr attack``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from erfattr import DeadPixelMap, demo_model, sample_images, strong_pixels
from erfattr.cli import main
from erfattr.datasets.preprocessing import standardize
from erfattr.models.demo import demo_record

SMALL = ("--size", 32, "--count", 6, "--population", 20, "--generations", 3)


def run(*words: object) -> int:
    return main(["attack", *(str(word) for word in words)])


def test_embedded_images_are_changed_in_one_strong_pixel_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erfattr._progress._LINES_EVERY", 0.0)  # lines of short work too
    assert run(*SMALL, "--fraction", 0.25, "--output", tmp_path) == 0
    model, images = demo_model(), sample_images(6, 32)
    strong = strong_pixels(DeadPixelMap(model).attribute(images), 0.25)
    originals = (sample_images(6, 32, normalize=False) * 255).round().to(torch.uint8)
    result = json.loads((tmp_path / "result.json").read_text())
    classes = demo_record()["classes"]
    successes = 0
    for index in range(6):
        attacked = result["images"][f"embedded_{index}"]
        ((y, x),) = attacked["positions"]
        assert strong[y, x]
        file = tmp_path / f"embedded_{index}_adversarial.png"
        assert file.exists() == attacked["success"]
        if not attacked["success"]:
            continue
        successes += 1
        changed = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert (changed != originals[index]).any(0).nonzero().tolist() == [[y, x]]
        assert attacked["colors"] == [
            {"before": originals[index, :, y, x].tolist(), "after": changed[:, y, x].tolist()}
        ]
        # Read again from its file the image has another label: the one that was reported.
        with torch.no_grad():
            answers = model(torch.stack([images[index], standardize(changed)]))
        assert [classes[answer] for answer in answers.argmax(1)] == [attacked["before"], attacked["after"]]
        assert attacked["before"] != attacked["after"]
    assert 0 < successes == result["summary"]["successes"]
    assert result["summary"]["attacked"] == 6
    assert (tmp_path / "contact_sheet.png").stat().st_size > 10_000
    shown = capsys.readouterr()
    assert f"the attack succeeded on {successes} of 6 images" in shown.out
    assert f"{successes} succeeded" in shown.err
    assert str(tmp_path / "contact_sheet.png") in shown.out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image of each of two classes, which are not those of the demo network."""
    images = (sample_images(2, 40, normalize=False) * 255).byte().permute(0, 2, 3, 1).numpy()
    for name, image in zip(("a/1.png", "b/2.png"), images, strict=True):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "images" / name)
    return tmp_path / "images"


def test_images_that_have_another_label_already_are_not_attacked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*SMALL, "--images", folder, "--target", "label", "--aim", "all", "--output", out) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["summary"]["already_adversarial"] == 2
    assert result["summary"]["success_rate"] is None
    assert result["images"]["0000_1"]["queries"] == 1
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "result.json"]
    assert "2 not attacked, since the goal was reached before" in capsys.readouterr().out


def test_class_to_reach_several_pixels_and_a_map_from_a_file(folder: Path, tmp_path: Path) -> None:
    sensitivity = torch.zeros(32, 32, dtype=torch.float64)
    sensitivity[10:14, 20:24] = 1
    np.save(tmp_path / "map.npy", sensitivity.numpy())
    out = tmp_path / "out"
    words = (
        "--images",
        folder,
        "--reach",
        5,
        "--pixels",
        3,
        "--map",
        tmp_path / "map.npy",
        "--fraction",
        1 / 64,
    )
    assert run(*SMALL, *words, "--output", out) == 0
    result = json.loads((out / "result.json").read_text())
    for attacked in result["images"].values():
        assert len({tuple(position) for position in attacked["positions"]}) == 3
        assert all(10 <= y < 14 and 20 <= x < 24 for y, x in attacked["positions"])
        assert attacked["success"] == (attacked["after"] == demo_record()["classes"][5])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--reach", 5, "--target", "label"), "--reach: expected without --target label"),
        (("--reach", 500), "--reach: expected classes from 0 to 100, got 500"),
        (("--target", "label"), '--target: "label" needs a folder of images'),
        (("--map", "missing.npy"), "--map: there is no file missing.npy"),
        (("--fraction", 0.0001), "--fraction: expected at least one of 1024 pixels, got 0.0001"),
        (("--model", "resnet1"), "--model: expected 'demo'"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    words: tuple[object, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*SMALL, *words, "--output", out) == 2
    shown = capsys.readouterr()
    assert f"erfattr attack: error: {message}" in shown.err
    assert not out.exists()
