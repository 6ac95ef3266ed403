"""Calibrations in files come back to the last bit, and nothing else passes for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from erfattr import Calibration, DebiasedAttribution, load_calibration, save_calibration
from erfattr.attr.calibration import calibrate


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 5)).double()


@pytest.fixture
def calibration(model: nn.Module) -> Calibration:
    images = torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return calibrate(IntegratedGradients(model), images, target=2, n_steps=3)


def test_every_number_comes_back(tmp_path: Path, calibration: Calibration) -> None:
    save_calibration(calibration, tmp_path / "map.pt")
    found = load_calibration(str(tmp_path / "map.pt"))
    for name in ("mean", "standard_error", "group_means"):
        assert torch.equal(getattr(found.statistics, name), getattr(calibration.statistics, name))
    assert found.statistics.group_sizes == (1,) * 6
    assert (found.statistics.n_images, found.statistics.source) == (6, calibration.statistics.source)
    assert (found.method, found.settings) == (
        "IntegratedGradients(multiplies by inputs)",
        {"n_steps": "3 (int)"},
    )
    assert found.weights_sha256 == calibration.weights_sha256
    assert [path.name for path in tmp_path.iterdir()] == ["map.pt"]


def test_loaded_calibration_serves_its_model_and_no_other(
    tmp_path: Path, model: nn.Module, calibration: Calibration
) -> None:
    save_calibration(calibration, tmp_path / "map.pt")
    loaded = load_calibration(tmp_path / "map.pt")
    image = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    first, second = (
        DebiasedAttribution(IntegratedGradients(model), one, period=2).attribute(image, target=2, n_steps=3)
        for one in (calibration, loaded)
    )
    assert torch.equal(first, second)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1  # type: ignore[operator, index]
    with pytest.raises(ValueError, match="calibrated for a model with weights"):
        DebiasedAttribution(IntegratedGradients(model), loaded, period=2)


def test_bad_files_and_places(tmp_path: Path, calibration: Calibration) -> None:
    with pytest.raises(TypeError, match="calibration: expected a Calibration"):
        save_calibration(calibration.statistics, tmp_path / "map.pt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path: expected a file in a folder that is there"):
        save_calibration(calibration, tmp_path / "missing" / "map.pt")
    with pytest.raises(ValueError, match="path: expected a file in a folder that is there"):
        save_calibration(calibration, tmp_path)
    with pytest.raises(ValueError, match="cannot be read as a calibration"):
        load_calibration(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no calibration")
    with pytest.raises(ValueError, match="is no calibration that this version of erfattr wrote"):
        load_calibration(tmp_path / "text.pt")
    torch.save({"state": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no calibration"):
        load_calibration(tmp_path / "other.pt")
