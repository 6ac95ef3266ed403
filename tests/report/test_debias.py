"""The files of debiased attributions: what is in them, and that they are whole or not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from erfattr.report.debias import write_debiased
from erfattr.report.debias_figure import DebiasedImage


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erfattr.report.debias.save_figure", lambda figure, path: None)


@pytest.fixture
def images() -> list[DebiasedImage]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for name in ("cat", "dog"):
        image, raw = torch.rand(2, 3, 32, 32, generator=generator)
        made.append(DebiasedImage(name, image, raw - 0.5, 2 * raw - 1, target=7))
    return made


def test_files(tmp_path: Path, images: list[DebiasedImage]) -> None:
    sensitivity = torch.rand(32, 32)
    files = write_debiased(tmp_path / "out", images, sensitivity, {"seed": 3})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in files)
    assert len(files) == 2 * 4 + 3
    np.testing.assert_array_equal(np.load(tmp_path / "out/dog_raw.npy"), images[1].raw)
    np.testing.assert_array_equal(np.load(tmp_path / "out/dog_debiased.npy"), images[1].debiased)
    np.testing.assert_array_equal(np.load(tmp_path / "out/cat_image.npy"), images[0].image)
    np.testing.assert_array_equal(np.load(tmp_path / "out/sensitivity_map.npy"), sensitivity)
    difference = np.load(tmp_path / "out/dog_difference.npy")
    np.testing.assert_allclose(difference, images[1].raw.abs().mean(0), rtol=1e-5)
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["record"] == {"seed": 3}
    assert result["images"]["dog"] == {"target": 7, "class": "class 7", "grid": None}
    assert result["grid"] is None  # without a period
    assert (tmp_path / "out/debiased.png").stat().st_size > 10_000


@pytest.mark.usefixtures("no_picture")
def test_record_has_the_grid_before_and_after(tmp_path: Path, images: list[DebiasedImage]) -> None:
    named = [replace(image, label="a cat") for image in images]
    write_debiased(tmp_path, named, torch.rand(32, 32), {}, period=8)
    result = json.loads((tmp_path / "result.json").read_text())
    # The fixture's attributions are doubled, which changes no profile.
    grid = result["grid"]
    assert grid["phase_contrast_before"] == pytest.approx(grid["phase_contrast_after"], rel=1e-6)
    assert grid["sentence"].startswith("2 images: ")
    assert result["images"]["cat"]["class"] == "a cat"
    assert result["images"]["cat"]["grid"]["sentence"].startswith("this image: ")


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path, images: list[DebiasedImage]) -> None:
    with pytest.raises(ValueError, match="images: expected images of different names"):
        write_debiased(tmp_path / "out", [images[0], images[0]], torch.ones(32, 32), {})
    with pytest.raises(ValueError, match="images: expected images of different names, got none"):
        write_debiased(tmp_path / "out", [], torch.ones(32, 32), {})
    with pytest.raises(TypeError, match="record: expected what JSON can hold"):
        write_debiased(tmp_path / "out", images, torch.ones(32, 32), {"what": object()})
    assert not (tmp_path / "out").exists()
