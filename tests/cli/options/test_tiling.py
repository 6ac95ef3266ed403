"""What ``erfattr tiling`` takes, and its defaults."""

from __future__ import annotations

import pytest

from erfattr.cli._main import command_parser


def test_defaults() -> None:
    options = command_parser().parse_args(["tiling", "demo"])
    assert (options.model, options.images, options.count, options.coverage) == ("demo", "embedded", 4, 1.0)
    assert (options.layer, options.select, options.points) == (None, None, 8)


def test_wrong_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_parser().parse_args(["tiling", "demo", "--points", "0"])
    assert "--points: expected a positive integer" in capsys.readouterr().err
