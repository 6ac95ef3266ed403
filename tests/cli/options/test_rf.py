"""What ``erfattr rf`` takes."""

from __future__ import annotations

from argparse import Namespace

import pytest

from erfattr.cli._main import command_parser


def parse(*words: str) -> Namespace:
    return command_parser().parse_args(["rf", *words])


def test_defaults() -> None:
    expected = {
        "command": "rf",
        "model": ["vgg16"],
        "size": (224, 224),
        "channels": None,
        "layer": None,
        "depth": None,
        "json": False,
        "csv": False,
        "tiling": False,
    }
    assert vars(parse("vgg16")) == expected


def test_sides() -> None:
    assert parse("vgg16", "--size", "64").size == (64, 64)
    assert parse("vgg16", "--size", "64,96").size == (64, 96)
    assert parse("vgg16", "--size", "64", "96").size == (64, 96)
    options = parse("--size", "64", "vgg16", "--channels", "2")
    assert (options.model, options.size, options.channels) == (["vgg16"], (64, 64), 2)


@pytest.mark.parametrize("words", [("-m", "vgg16"), ("--model", "vgg16"), ("--model=vgg16",), ("vgg16",)])
def test_model_with_and_without_its_option(words: tuple[str, ...]) -> None:
    assert parse(*words, "--json").model == ["vgg16"]
    assert parse("--depth", "1", *words).model == ["vgg16"]
    assert parse("-m", "vgg16", "resnet18", "--layer", "x").model == ["vgg16", "resnet18"]


def test_model_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse()
    assert "the following arguments are required: model" in capsys.readouterr().err
