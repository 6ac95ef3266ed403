"""The scripts of ``examples/paper``: what they write, that they go on, and that no row is made up."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from erfattr.models import DemoNet, ModelInfo

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "paper"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script by its name, as Python does that runs it."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def written(folder: Path, name: str) -> list[dict[str, Any]]:
    assert (folder / f"{name}.csv").is_file()
    assert (folder / f"{name}.png").stat().st_size > 10_000
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())["rows"]
    return rows


def test_figure_2_counts_how_often_pixels_are_read(tmp_path: Path, script: Any) -> None:
    script("figure2").main(["--output", str(tmp_path)])
    counts = {(row["kernel"], row["stages"]): row["counts"] for row in written(tmp_path, "figure2")}
    assert counts[1, 1] == "0 1"
    assert counts[3, 1] == "1 2 4"
    assert counts[7, 1] == "9 12 16"
    assert counts[3, 2] == "1 2 3 4 6 9"
    assert [counts[kernel, 2] for kernel in (2, 4, 8)] == ["1", "16", "256"]


def test_figure_3_shows_equal_outputs(tmp_path: Path, script: Any) -> None:
    script("figure3").main(["--output", str(tmp_path)])
    rows = written(tmp_path, "figure3")
    assert [row["size"] for row in rows] == [224, 225, 223]
    assert all(row["largest_relative_difference"] <= 1e-5 for row in rows)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, script: Any) -> list[tuple[str, str]]:
    """Stand in for networks that take long: a small one at random, and no weights to be had."""
    calls: list[tuple[str, str]] = []

    def load_model(name: str, weights: str, **_: Any) -> tuple[nn.Module, ModelInfo]:
        calls.append((name, weights))
        if weights != "none":
            raise FileNotFoundError("weights")
        torch.manual_seed(0)
        info = ModelInfo(name, "random initialisation, seed 0", "", (0, 0, 0), (1, 1, 1), 224, 0)
        return DemoNet(10).eval(), info

    monkeypatch.setattr(script("table1"), "load_model", load_model)
    return calls


def test_table_1_says_what_is_not_there_and_goes_on(
    tmp_path: Path, script: Any, loads: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", "resnet18", "--count", "2", "--output", str(tmp_path)]
    script("table1").main(words)
    absent, fresh = written(tmp_path, "table1")
    assert absent == {
        "model": "resnet18",
        "weights": "IMAGENET1K_V1 not available",
        "trf": 435,
        "images": 0,
    }
    assert (fresh["trf"], fresh["images"]) == (435, 2)
    assert fresh["sigma_x"] > 0
    printed = capsys.readouterr().out
    assert "435 (paper 435, +0)" in printed
    assert "paper 76.5" not in printed  # a random network's sizes are not held against trained ones
    before = len(loads)
    script("table1").main(words)
    # The row that is there is read, the one that could not be made is tried again.
    assert loads[before:] == [("resnet18", "none"), ("resnet18", "IMAGENET1K_V1")]
    assert written(tmp_path, "table1") == [absent, fresh]


def test_table_1_holds_trained_networks_against_the_paper(script: Any) -> None:
    row = {
        "model": "resnet18",
        "weights": "torchvision ResNet18_Weights.IMAGENET1K_V1",
        "trf": 435,
        "images": 5794,
        "sigma_x": 77.0,
        "sigma_y": 73.0,
        "r_squared": 0.9,
    }
    assert script("table1").line(row)[3:] == [
        "435 (paper 435, +0)",
        "77.0 (paper 76.5, +0.5)",
        "73.0 (paper 73.7, -0.7)",
        "0.900 (paper 0.908, -0.008)",
    ]


def test_table_1_at_the_papers_scale_needs_its_photographs(tmp_path: Path, script: Any) -> None:
    with pytest.raises(SystemExit, match="CUB_200_2011"):
        script("table1").main(["--scale", "paper", "--output", str(tmp_path)])


def test_rows_of_other_settings_are_made_anew(tmp_path: Path, script: Any) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"value": len(made)}

    paper = script("paper")
    assert paper.resumed_rows(tmp_path, {"count": 1}, {"a": make}) == [{"value": 1}]
    assert paper.resumed_rows(tmp_path, {"count": 1}, {"a": make}) == [{"value": 1}]
    assert paper.resumed_rows(tmp_path, {"count": 2}, {"a": make}) == [{"value": 2}]
