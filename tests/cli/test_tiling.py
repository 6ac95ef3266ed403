"""``erfattr tiling`` and ``erfattr rf --tiling``, run as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from erfattr.cli import main

UNET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)
        self.norm = nn.Identity()

    def forward(self, x):
        return self.norm(self.up(self.down(x).relu()))

def build():
    return Net()

def normed():
    model = Net()
    model.norm = nn.InstanceNorm2d(2)
    return model
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tiled_networks.py").write_text(UNET)
    monkeypatch.chdir(tmp_path)
    return "tiled_networks"


def test_rf_says_halo_and_alignment(networks: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rf", f"{networks}:build", "--tiling", "--size", "100000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # Of the transposed convolution a unit reads one unit below beyond its own, which reads 1 row above.
    assert lines[0] == (
        "halo 4 x 4 pixels, tiles begin at multiples of 2 x 2 pixels, and are at least 10 x 10 pixels"
    )
    assert lines[1].startswith("the worst unit reads 3 rows above and 2 below its period")
    assert lines[2] == "exact: tiles, put together, equal the whole image"
    assert main(["rf", f"{networks}:normed", "--tiling", "--size", "64", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["exact"], said["halo"]) == (False, [4, 4])
    assert "no finite halo is exact: the whole image is seen by native_batch_norm in 'norm'" in said["note"]
    assert main(["rf", "resnet18", "--tiling", "--layer", "layer1"]) == 0
    assert capsys.readouterr().out.startswith("halo 24 x 24 pixels, tiles begin at multiples of 4 x 4")


def test_error_over_the_halo(
    networks: str, noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tiling", f"{networks}:build", "--images", str(noise), "--size", "48", "--output", "found"]
    assert main([*words, "--count", "2"]) == 0
    out = capsys.readouterr().out
    assert "exact: tiles, put together, equal the whole image" in out
    record = json.loads((tmp_path / "found" / "tiling.json").read_text())
    halos = [entry["halo"] for entry in record["errors"]]
    assert halos == [[0, 0], [2, 2], [4, 4]]
    largest = [entry["largest"] for entry in record["errors"]]
    assert largest[0] > 0.05
    assert largest[2] < 1e-6  # float32
    assert record["command"][:3] == ["erfattr", "tiling", f"{networks}:build"]
    assert record["images"]["count"] == 2
    with Image.open(tmp_path / "found" / "tiling.png") as figure:
        assert figure.size == (900, 600)


def test_coverage_and_errors(networks: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tiling", f"{networks}:build", "--size", "64", "--count", "1"]
    assert main([*words, "--coverage", "0.6", "--output", "found"]) == 0
    assert "% of the effective receptive field; on 1 images" in capsys.readouterr().out
    assert main(["tiling", "resnet18", "--weights", "none", "--count", "1", "--output", "other"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "expected an output with positions" in error
    assert not Path("other").exists()
