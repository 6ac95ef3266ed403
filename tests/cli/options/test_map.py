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
    assert (options.layers, options.unit, options.target) == (["last", "output"], "center", "predicted")
    assert (options.precision, options.state, options.output) == (None, None, Path("erfattr-map"))
    assert (options.to_spatial, options.select) == (None, None)


@pytest.mark.parametrize(
    ("word", "target"), [("mean", "mean"), ("predicted", "predicted"), ("label", "label"), ("3", 3)]
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--channels", "2"), "argument --channels: invalid choice: 2 (choose from 1, 3, 4)"),
        (
            ("--size", "48", "0"),
            "argument --size: expected one positive integer, or two for height and width",
        ),
        (("--mean", "grey"), "argument --mean: expected one number, or one for each channel, got 'grey'"),
        (
            ("--to-spatial", "nhwc"),
            "argument --to-spatial: expected channels-last, tokens:HxW or tokens:HxW+P",
        ),
    ],
)
def test_words_that_do_not_serve(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_images_of_any_kind() -> None:
    options = parse("--size", "48", "80", "--channels", "4", "--mean", "-1", "0", "0", "0", "--std", "2")
    assert (options.size, options.channels) == ((48, 80), 4)
    assert (options.mean, options.std) == ((-1, 0, 0, 0), (2,))
