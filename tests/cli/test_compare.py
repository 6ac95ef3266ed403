"""``erfattr compare``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erfattr.cli import main

pytest.importorskip("lightning", reason="needs the extra train")

SMALL = ("--set", "epochs=1", "size=32", "stored_size=32", "map_size=96", "batch_size=16")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_compare_a_network_of_ones_own(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny_network.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1)\n"
        "    return nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("compare", "--model", "tiny_network:build", "--recipe", "micro_object_cpu", *SMALL)
    words = (
        *words,
        "--data",
        noise,
        "--seeds",
        2,
        "--first-seed",
        5,
        "--map-images",
        9,
        "--accelerator",
        "cpu",
    )
    assert run(*words, "--no-progress", "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in printed.splitlines()[:4]] == [
        "seed 5, original",
        "seed 5, padded_fresh",
        "seed 6, original",
        "seed 6, padded_fresh",
    ]
    assert "padded_fresh - original" in printed
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["seeds"] == [5, 6]
    parameters = {name: variant["parameters"] for name, variant in written["variants"].items()}
    assert parameters == {"original": 3 * 4 * 9 + 4 + 10, "padded_fresh": 3 * 4 * 16 + 4 + 10}
    assert (tmp_path / "out" / "curves.png").exists()
