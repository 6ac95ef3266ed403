"""What ``erfattr map`` takes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from erfattr.cli._main import command_parser


def parse(*words: str) -> Namespace:
    return command_parser().parse_args(["map", *words])


def test_defaults_are_the_demo() -> None:
    options = parse()
    assert (options.command, options.model, options.images) == ("map", "demo", "embedded")
    assert (options.layers, options.unit, options.target) == (["last", "output"], "center", None)
    assert (options.precision, options.state, options.output) == (None, None, Path("erfattr-output"))


@pytest.mark.parametrize(
    ("word", "target"), [("mean", None), ("predicted", "predicted"), ("label", "label"), ("3", 3)]
)
def test_target(word: str, target: object) -> None:
    assert parse("--target", word).target == target


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--rectify", ("relu", "abs", "none")),
        ("--tolerance-of", ("pixels", "L1", "L2")),
        ("--precision", ("float32", "float64", "bfloat16")),
    ],
)
def test_choices(option: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for word in words:
        assert word in vars(parse(option, word)).values()
    with pytest.raises(SystemExit) as stop:
        parse(option, "other")
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"erfattr map: error: argument {option}: invalid choice: 'other'")
    assert all(word in error for word in words)
