"""What ``erfattr compare`` takes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from erfattr.cli._main import command_parser
from erfattr.remedies.variants import VARIANTS
from erfattr.training.recipes import RECIPES


def parse(*words: str) -> Namespace:
    return command_parser().parse_args(["compare", *words])


def test_defaults() -> None:
    options = parse("--recipe", "micro_object", "--data", "photos")
    assert (options.variants, options.seeds, options.first_seed) == (None, 5, 0)
    assert (options.map_images, options.output) == (256, Path("erfattr-comparison"))


def test_help_names_recipes_and_variants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for name in RECIPES:
        assert name in shown
    for name, variant in VARIANTS.items():
        assert f"{name}: {variant.description}" in shown
