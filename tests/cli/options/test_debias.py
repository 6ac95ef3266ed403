"""What ``erfattr debias`` takes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import get_args

import pytest
from torch import nn

from erfattr.cli._main import command_parser
from erfattr.cli.debias import _explainer
from erfattr.cli.options.debias import Method


def parse(*words: str) -> Namespace:
    return command_parser().parse_args(["debias", *words])


def test_defaults() -> None:
    options = parse()
    assert (options.image, options.target) == ([], "predicted")
    assert (options.method, options.samples) == ("saliency", 16)
    assert (options.mode, options.period, options.epsilon, options.map) == ("phase", None, 0.1, None)
    assert (options.images, options.count) == ("embedded", None)


def test_images_stand_before_the_options() -> None:
    options = parse("a.png", "b.png", "--target", "5", "--map", "output.npy")
    assert (options.image, options.target) == ([Path("a.png"), Path("b.png")], 5)
    assert options.map == Path("output.npy")
    options = parse("--size", "48", "80", "--std", "0.5", "a.png")
    assert (options.image, options.size, options.std) == ([Path("a.png")], (48, 80), (0.5,))


@pytest.mark.parametrize("method", get_args(Method))
def test_every_method_is_one_of_captum(method: Method) -> None:
    explainer = _explainer(method, nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 3)
    assert method.replace("-", "") in f"{type(explainer.method).__name__} smoothgrad".lower()
    assert list(explainer.settings.values())[:1] in ([], [3])


def test_a_class_has_an_index(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--target", "dog")
    assert "argument --target: expected predicted or an index, got 'dog'" in capsys.readouterr().err
