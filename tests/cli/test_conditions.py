"""``--fail-if`` ends a run with status 3 where a number lies beyond a limit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erfattr.cli import main
from erfattr.cli._conditions import _VALUES, not_measured, that_hold
from erfattr.cli.options.conditions import NUMBERS, condition


@pytest.mark.parametrize(
    ("conditions", "status", "said"),
    [
        (["L1 > 1000"], 0, ""),
        (["L1 > 0.001"], 3, "--fail-if: output: L1 is 0."),
        (["output: contrast < 1000", "error >= 0"], 3, "--fail-if: output: contrast is "),
    ],
)
def test_status(
    conditions: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["map", "--size", "64", "--count", "6", "--layers", "output", "-q", "-o", str(tmp_path)]
    assert main([*words, "--fail-if", *conditions]) == status
    assert said in capsys.readouterr().out
    assert (tmp_path / "result.json").exists()  # written before it is judged


def test_what_cannot_be_measured_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["map", "--size", "64", "--count", "1", "--layers", "output", "-q", "-o", str(tmp_path)]
    assert main([*words, "--fail-if", "L1 > 0.2"]) == 2
    # Older libraries may be warned of before it.
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "erfattr map: error: --fail-if: L1 of output could not be measured"
    assert (tmp_path / "result.json").exists()


def test_a_map_that_lacks_the_number_is_named() -> None:
    without: Any = SimpleNamespace(phase=None)
    measured: Any = SimpleNamespace(phase=SimpleNamespace(corrected_contrast=0.3))
    maps = [("features.0", without), ("output", measured)]
    asked = [condition("contrast > 0.2")]
    assert not_measured(asked, maps) == ["features.0: contrast could not be measured, and was not compared"]
    assert that_hold(asked, maps) == ["output: contrast is 0.3, > 0.2"]
    assert not_measured([condition("output: contrast > 0.2")], maps) == []


def test_every_number_that_is_named_can_be_had() -> None:
    assert set(_VALUES) == set(NUMBERS)


def test_a_map_that_is_not_made_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "--layers", "output", "--fail-if", "layer4: L1 > 0.2"]) == 2
    assert "--fail-if: expected a map of --layers (output), got 'layer4'" in capsys.readouterr().err
