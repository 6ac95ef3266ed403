"""``erfattr report``, run as a user runs it."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from erfattr.cli import main

SMALL = ("--images", "embedded", "--count", 8, "--size", 64)
NETWORKS = """
import torch
from torch import nn


def without_positions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4))


def of_pixels():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1))
"""


def run(*words: object) -> int:
    return main([str(word) for word in words])


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r'id="page-data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module of small networks."""
    (tmp_path / "page_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    return "page_networks"


def test_page_of_the_demo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "demo.html"
    assert run("report", "demo", *SMALL, "-o", page) == 0
    printed = capsys.readouterr().out
    assert "Are there enough images?" in printed
    assert "not computed" not in printed
    assert f"written to {page} ({page.stat().st_size:,} bytes)" in printed
    data = data_of(page)
    rows = data["numbers"][0]["maps"]
    assert list(rows) == ["stride 2", "stride 4", "stride 8", "stride 16", "stride 32", "output"]
    assert rows["stride 32"]["layer"] == "layer4"
    assert rows["output"]["n_images"] == 8
    assert data["record"]["command"][:3] == ["erfattr", "report", "demo"]
    of_network = data["record"]["networks"]["demo"]
    assert of_network["model"]["weights_sha256"]
    assert of_network["images"]["count"] == 8
    assert len(data["saliency"]) == 2
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "image 1, " in text
    assert "of layer4, since the output has no positions:" in text


def test_a_network_beside_its_padded_self(tmp_path: Path) -> None:
    page = tmp_path / "pair.html"
    words = (
        "--variants",
        "original",
        "padded",
        "--without",
        "grid",
        "saliency",
        "tiles",
        "--layers",
        "layer2",
    )
    assert run("report", "demo", *SMALL, *words, "-o", page) == 0
    data = data_of(page)
    assert [entry["name"] for entry in data["numbers"]] == ["demo", "demo, padded"]
    first, second = (data["record"]["networks"][name]["model"] for name in ("demo", "demo, padded"))
    assert first["weights_sha256"] != second["weights_sha256"]
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert 'id="differences"' in text
    assert text.count("Not computed: it was not asked for.") == 6


def test_parts_that_cannot_be_computed_say_why(
    networks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run("report", f"{networks}:without_positions", f"{networks}:of_pixels", *SMALL, "-o", page) == 0
    printed = capsys.readouterr().out
    assert "not computed: last stage: no module of the Sequential gives a feature map" in printed
    assert "not computed: tiles: expected an output with positions" in printed
    assert "not computed: saliency: expected a classifier" in printed
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "Not computed: no module of the Sequential gives a feature map" in text
    assert "This network has no such map." in text  # the other one has stages


def test_one_layer_that_cannot_be_mapped_leaves_the_others(networks: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    # The unit lies outside the second layer's map of 16 x 16.
    words = ("--layers", "0", "2", "output", "--unit", "20,20", "--without", "grid", "saliency", "tiles")
    assert run("report", f"{networks}:of_pixels", *SMALL, *words, "-o", page) == 0
    assert list(data_of(page)["numbers"][0]["maps"]) == ["0", "output"]
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "Not computed: expected a position inside the 16 x 16 map of layer '2', got (20, 20)." in text


def test_a_layer_of_one_network_alone(networks: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("--layers", "layer1", "--without", "fields", "grid", "saliency", "tiles")
    assert run("report", "demo", f"{networks}:of_pixels", *SMALL, *words, "-o", page) == 0
    found = html.unescape(page.read_text(encoding="utf-8"))
    assert "Not computed: the Sequential has no layer 'layer1'." in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "demo"), "MODEL: expected different networks"),
        (("nothing",), "MODEL: expected "),
        (("demo", "--layers", "layer9"), "--layers: the DemoNet has no layer 'layer9'"),
        (("demo", "--variants", "nothing"), "--variants: expected one of original, padded"),
        (("demo", "--weights", "none", "none"), "--weights: expected one for all networks, or one for each"),
        (("demo", "--layers", "output", "output"), "--layers: expected different ones"),
        (("demo", "--target", "3", "--layers", "stages"), "--target: expected only with output"),
    ],
)
def test_errors_are_one_line_that_names_the_option(
    words: tuple[object, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", *words, *SMALL, "-o", tmp_path / "page.html") == 2
    (error,) = capsys.readouterr().err.splitlines()[-1:]
    assert error.startswith("erfattr report: error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_strict_stops_at_an_image_that_cannot_be_read(
    noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(noise / "cat", folder)
    (folder / "broken.png").write_text("no image")
    words = ("--images", folder, "--size", 64, "--without", "fields", "grid", "saliency", "tiles")
    assert run("report", "demo", *words, "--strict", "-o", tmp_path / "page.html") == 2
    assert "broken.png cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
    assert run("report", "demo", *words, "--layers", "layer1", "-o", tmp_path / "page.html") == 0
    images = data_of(tmp_path / "page.html")["record"]["networks"]["demo"]["images"]
    assert list(images["unreadable"]) == [str(folder / "broken.png")]
    assert len(images["files"]) == 21


def test_a_file_that_is_there_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    monkeypatch.setattr("erfattr.cli.report.chosen_network", pytest.fail)
    assert run("report", "demo", "-o", page) == 2
    assert "--output: " in capsys.readouterr().err
    assert page.read_text() == "mine"
