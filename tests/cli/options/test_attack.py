"""What ``erfattr attack`` takes."""

from __future__ import annotations

from argparse import Namespace

import pytest

from erfattr.cli._main import command_parser


def parse(*words: str) -> Namespace:
    return command_parser().parse_args(["attack", *words])


def test_defaults() -> None:
    options = parse()
    assert (options.count, options.batch_size, options.target, options.reach) == (10, 64, "predicted", None)
    assert (options.aim, options.fraction, options.map, options.pixels) == ("strong", 0.25, None, 1)
    assert (options.population, options.generations) == (40, 9)


def test_help_tells_the_papers_search(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "try so many candidates a generation; the paper: 400 (default: 40)" in shown
    assert "run at most so many samples a forward pass (default: 64)" in shown
