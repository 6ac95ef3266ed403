"""``erfattr rf``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erfattr.cli import main


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_rf_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rf", "resnet18") == 0
    rows = {line.split("  ", maxsplit=1)[0]: line for line in capsys.readouterr().out.splitlines()}
    words = " ".join(rows["layer4"].split())
    assert words == "layer4 7 435 32 (3, 3): (96, 96) -121..313 -121..313 exact"
    assert run("rf", "demo", "--layer", "layer1", "--size", "64,96", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["input_size"] == [64, 96]
    assert found["layers"]["layer1"]["size"] == [43, 43]
    assert found["layers"]["layer1"]["output_size"] == [16, 24]


def test_layer_that_is_not_there_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rf", "resnet18", "--layer", "layer9") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("erfattr rf: error: ")
    assert "layer9" in error


UNUSED_LAYER = """
from torch import nn

def build():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model[0].unused = nn.Identity()
    return model
"""


def test_layer_without_a_map_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "with_unused.py").write_text(UNUSED_LAYER)
    monkeypatch.chdir(tmp_path)
    assert run("rf", "with_unused:build", "--layer", "0.unused") == 2
    assert "--layer: '0.unused' has no spatial map" in capsys.readouterr().err
