"""What ``erfattr train`` takes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from erfattr.cli._main import command_parser
from erfattr.remedies.variants import VARIANTS
from erfattr.training.recipes import RECIPES


def parse(*words: str) -> Namespace:
    return command_parser().parse_args(["train", *words])


def test_defaults() -> None:
    options = parse("--recipe", "micro_object", "--data", "photos")
    assert (options.variant, options.seed, options.output) == ("original", 0, Path("erfattr-training"))


def test_help_names_recipes_and_variants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for name, recipe in RECIPES.items():
        assert f"{name} ({recipe.task.replace('_', ' ')}, {recipe.epochs} epochs" in shown
    for name, variant in VARIANTS.items():
        assert f"{name}: {variant.description}" in shown
