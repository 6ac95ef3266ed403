"""What is measured on a GPU: packed, rehearsed on the processor, and written onto its page."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def packer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = importlib.import_module("pack_for_gpu")
    monkeypatch.setattr(module, "PACKED", tmp_path / "packed")
    (tmp_path / "packed").mkdir()
    return module


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("write_gpu_page")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of 60 images, 300 wide and 240 high."""
    root = tmp_path / "photographs"
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for index in range(60):
            coarse = torch.randint(0, 256, (8, 10, 3), generator=generator).byte().numpy()
            image = Image.fromarray(coarse).resize((300, 240))
            image.save(root / name / f"image_{index:04d}.jpg")
    return root


def test_images_are_packed_small_and_the_same_every_time(packer: Any, photographs: Path) -> None:
    packer.pack_images(photographs, 50)
    file = packer.PACKED / "caltech101.zip"
    first = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        with archive.open("caltech101/cat/image_0000.webp") as content:
            assert Image.open(content).size == (245, 196)
    assert len(names) == 120
    packer.pack_images(photographs, 50)
    assert file.read_bytes() == first
    assert [path.name for path in packer.PACKED.iterdir()] == ["caltech101.zip"]


def test_what_is_too_large_is_not_left_there(packer: Any, photographs: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(packer, "LARGEST", 1000)
    with pytest.raises(SystemExit, match=r"--quality: 50 gives .* MiB, expected 0 at most"):
        packer.pack_images(photographs, 50)
    assert list(packer.PACKED.iterdir()) == []


def test_an_unknown_part_is_refused() -> None:
    script = ["bash", str(ROOT / "scripts" / "on_gpu.sh"), "sped"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("tests, speed, attack, training[=SECONDS], got sped")


@pytest.mark.slow
def test_rehearsal(packer: Any, photographs: Path, tmp_path: Path) -> None:
    packer.pack_images(photographs, 50)
    out, work = tmp_path / "out", tmp_path / "work"
    settings = {"OUT": out, "WORK": work, "CARRIED": packer.PACKED, "PYTHON": sys.executable}
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    script = [
        "bash",
        str(ROOT / "scripts" / "on_gpu.sh"),
        "--rehearse",
        "tests=300",
        "speed=300",
        "attack",
        "training",
    ]
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert set(found) == {"tests", "speed", "attack", "training"}
    assert found["tests"]["failures"] == found["tests"]["errors"] == 0
    assert found["tests"]["tests"] > 20
    assert {row["model"] for row in found["speed"]["rows"]} == {"resnet50", "convnext_tiny"}
    assert found["training"]["pairs"]["padded_fresh"]["seeds"] == [0, 1]
    # A second call repeats nothing that is there.
    before = (out / "training.json").read_text()
    again = subprocess.run(
        [*script[:3], "tests", "training"], capture_output=True, text=True, env=environment
    )
    assert "=== tests: results are there" in again.stdout
    rows = [json.loads(text)["rows"] for text in (before, (out / "training.json").read_text())]
    assert rows[0] == rows[1]


def test_the_page_is_what_the_results_make_of_its_template(writer: Any) -> None:
    assert writer.page() == writer.PAGE.read_text(encoding="utf-8"), "run scripts/write_gpu_page.py"


def test_the_page_says_what_was_not_measured(writer: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(writer, "RESULTS", tmp_path)
    page = writer.page()
    assert page.count("ot yet measured") == 4
    assert re.findall(r"\d+\.\d+ (?:%|ms)", page) == []


def test_a_changed_number_shows(writer: Any, monkeypatch: Any) -> None:
    found = writer.results()
    before = writer.page()
    found["speed"]["rows"][2]["ms_an_image"] *= 3
    monkeypatch.setattr(writer, "results", lambda: found)
    assert writer.page() != before


def test_results_hold_no_path_of_a_machine(writer: Any) -> None:
    for path in writer.RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r'"/|"file:|/home/|/tmp/', text) == []
