"""What ``erfattr figure`` takes, and how it helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from erfattr.cli._main import command_parser


def test_defaults_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    options = command_parser().parse_args(["figure", "resnet18", "demo"])
    assert (options.models, options.layers, options.stages) == (["resnet18", "demo"], [], 4)
    assert (options.width, options.format, options.zoom) == ([170.0], ["pdf", "png"], 32)
    assert options.output == Path("erfattr-figure")
    with pytest.raises(SystemExit):
        command_parser().parse_args(["figure", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "erfattr figure resnet18 swin_t --weights none" in printed
    assert "(default:erfattr-figure)" in printed.replace(" ", "")  # lines break at hyphens


def test_networks_behind_their_option_are_no_values_of_another() -> None:
    words = ["figure", "--weights", "none", "-m", "resnet18", "demo", "--layers", "layer2"]
    options = command_parser().parse_args(words)
    assert (options.models, options.weights, options.layers) == (["resnet18", "demo"], ["none"], [["layer2"]])
