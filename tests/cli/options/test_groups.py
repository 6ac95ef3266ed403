"""Groups of options that commands share, and how their help is shown."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from erfattr.cli.options.groups import (
    HelpFormatter,
    image_options,
    model_options,
    run_options,
    training_options,
)


def parser_of(*parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(parents=parents, formatter_class=HelpFormatter)


def help_of(*parents: argparse.ArgumentParser) -> str:
    return " ".join(parser_of(*parents).format_help().split())


def test_defaults() -> None:
    options = parser_of(
        model_options(), image_options(count=10), run_options("somewhere", seed="noise")
    ).parse_args([])
    assert vars(options) == {
        "model": "demo",
        "weights": None,
        "images": "embedded",
        "count": 10,
        "size": None,
        "channels": None,
        "mean": None,
        "std": None,
        "workers": 0,
        "strict": False,
        "batch_size": None,
        "device": "auto",
        "seed": 0,
        "output": Path("somewhere"),
        "overwrite": False,
        "quiet": False,
    }


def test_default_is_told_once_and_only_where_there_is_one() -> None:
    shown = help_of(model_options(), image_options(), run_options("somewhere", seed="noise"))
    assert "seed of noise (default: 0)" in shown
    assert "(default: the model's own)" in shown
    assert "take so many images (default: all)" in shown
    assert "take so many images (default: 10)" in help_of(image_options(count=10))
    for word in ("(default: None)", "(default: False)", ") (default:"):
        assert word not in shown


def test_groups_have_titles() -> None:
    shown = parser_of(image_options("templates"), run_options("somewhere", seed="noise")).format_help()
    assert "\ntemplates:\n" in shown
    assert "\nrun:\n" in shown


def test_training_needs_a_recipe_and_images(capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of(training_options())
    with pytest.raises(SystemExit):
        parser.parse_args(["--model", "resnet18"])
    assert "the following arguments are required: --recipe, --data" in capsys.readouterr().err
    words = ("--recipe", "micro_object", "--data", "photos", "--set", "epochs=2", "size=64")
    options = parser.parse_args(words)
    assert (options.set, options.devices, options.no_progress) == (["epochs=2", "size=64"], 1, False)
