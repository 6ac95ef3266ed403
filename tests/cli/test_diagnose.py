"""``erfattr diagnose``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erfattr.cli import main


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_tables_figure_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "diagnosis"
    words = ("--expected", "--size", 96, "--all-layers-only", "--output", output)
    assert run("diagnose", "demo", *words, "--images", "embedded", "--count", 4) == 0
    printed = capsys.readouterr().out
    assert "demo (architecture alone)" in printed
    assert "contrast without it" in printed
    result = json.loads((output / "result.json").read_text())
    assert result["record"]["command"][:3] == ["erfattr", "diagnose", "demo"]
    assert result["sources"]["sources"][0]["layer"] == "conv1"
    assert result["measured"]["n_images"] == 4
    assert (output / "diagnosis.png").stat().st_size > 10_000
    assert (output / "tables.txt").read_text().splitlines()[0] in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("swin_t", "--weights", "none", "--size", 64), "attention"),
        (("demo", "--layer", "layer9"), "--layer: the "),
        (("demo", "--unit", "99,0"), "--unit: expected a position inside the 7 x 7 map"),
        (("demo", "--images", "embedded", "--count", 1), "--count: expected at least 2 images"),
    ],
)
def test_errors_are_one_line_that_names_the_option(
    words: tuple[object, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("diagnose", *words, "--output", tmp_path / "out") == 2
    (error,) = capsys.readouterr().err.splitlines()[-1:]
    assert error.startswith("erfattr diagnose: error: ")
    assert message in error
    assert not (tmp_path / "out").exists()
