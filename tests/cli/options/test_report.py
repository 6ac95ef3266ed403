"""What ``erfattr report`` takes."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from erfattr.cli.options.report import add, check


def parsed(words: Sequence[str]) -> Namespace:
    parser = ArgumentParser()
    commands = parser.add_subparsers()
    add(commands)
    options = parser.parse_args(["report", *words])
    check(options, commands.choices["report"].get_default)
    return options


def test_bare_words_are_models_and_defaults_make_a_whole_page() -> None:
    options = parsed(["demo", "resnet18"])
    assert options.models == ["demo", "resnet18"]
    assert options.output == Path("erfattr-report.html")
    assert (options.layers, options.variants, options.without) == (["stages", "output"], ["original"], [])
    assert (options.weights, options.images, options.count, options.overwrite) == (
        None,
        "embedded",
        None,
        False,
    )


def test_short_and_long_output_are_one() -> None:
    assert parsed(["demo", "-o", "a.html"]).output == parsed(["demo", "--output", "a.html"]).output


@pytest.mark.parametrize("weights", [["none"], ["none", "DEFAULT"]])
def test_weights_are_one_for_all_or_one_for_each(weights: list[str]) -> None:
    assert parsed(["demo", "resnet18", "--weights", *weights]).weights == weights


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "--weights", "x", "y", "z"], "--weights: expected one for all networks, or one for each"),
        (["a", "--layers", "last", "last"], "--layers: expected different ones, got last last"),
        (["a", "--variants", "padded", "padded"], "--variants: expected different ones"),
        (["a", "--layers", "output", "--unit", "1,1"], "--unit: expected only with another layer"),
        (["a", "--layers", "last", "--target", "1"], "--target: expected only with output"),
        (["a", "--strict"], "--strict: expected only with a folder of --images"),
    ],
)
def test_what_has_no_effect_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ArgumentTypeError, match=message):
        parsed(words)
