"""What ``erfattr diagnose`` takes, and how it helps."""

from __future__ import annotations

import pytest

from erfattr.cli._main import command_parser


def test_defaults_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    options = command_parser().parse_args(["diagnose", "resnet18"])
    assert (options.model, options.layer, options.unit, options.images) == (
        "resnet18",
        "last",
        "center",
        None,
    )
    with pytest.raises(SystemExit):
        command_parser().parse_args(["diagnose", "--help"])
    assert "erfattr diagnose resnet18 --weights none --expected" in " ".join(capsys.readouterr().out.split())
