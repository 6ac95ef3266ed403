"""The files of debiased attributions: what is in them, and that they are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from erfattr.report.debias import DebiasedImage, draw_debiased, write_debiased


@pytest.fixture
def images() -> list[DebiasedImage]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for name in ("cat", "dog"):
        image, raw = torch.rand(2, 3, 32, 32, generator=generator)
        made.append(DebiasedImage(name, image, raw - 0.5, 2 * raw - 1, target=7))
    return made


def test_figure_shows_strengths_relative_to_the_raw_mean(images: list[DebiasedImage]) -> None:
    figure = draw_debiased(images, torch.ones(32, 32), period=8, heading="demo")
    axes = figure.axes[:10]
    assert [ax.get_title() for ax in axes[:5]] == [
        "cat, class 7",
        "raw",
        "debiased",
        "debiased - raw",
        "sensitivity map R / mean(R)",
    ]
    raw, after, change = (np.asarray(axes[column].images[0].get_array()) for column in (1, 2, 3))
    expected = images[0].raw.abs().mean(0).double().numpy()
    np.testing.assert_allclose(raw, expected / expected.mean(), rtol=1e-9)
    np.testing.assert_allclose(after, 2 * raw, rtol=1e-6)  # the fixture's doubling is in float32
    np.testing.assert_allclose(change, after - raw, rtol=1e-9)
    assert axes[1].images[0].get_clim() == axes[2].images[0].get_clim()
    low, high = axes[3].images[0].get_clim()
    assert low == -high
    np.testing.assert_array_equal(axes[0].images[-1].get_array(), images[0].image.permute(1, 2, 0))
    # Under the map its pixels one by one, two periods wide.
    assert axes[9].images[0].get_array().shape == (16, 16)  # type: ignore[union-attr]


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
    assert result["images"] == {"cat": {"target": 7}, "dog": {"target": 7}}
    assert (tmp_path / "out/debiased.png").stat().st_size > 10_000


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path, images: list[DebiasedImage]) -> None:
    with pytest.raises(ValueError, match="images: expected images of different names"):
        write_debiased(tmp_path / "out", [images[0], images[0]], torch.ones(32, 32), {})
    with pytest.raises(ValueError, match="images: expected images of different names, got none"):
        write_debiased(tmp_path / "out", [], torch.ones(32, 32), {})
    with pytest.raises(TypeError, match="record: expected what JSON can hold"):
        write_debiased(tmp_path / "out", images, torch.ones(32, 32), {"what": object()})
    assert not (tmp_path / "out").exists()
