"""Types of arguments."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

import pytest

from erfattr.cli.options.arguments import index_or, pair, positive, size, unit


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (positive, "12", 12),
        (pair, "3,4", (3, 4)),
        (pair, "-1, 0", (-1, 0)),
        (size, "64", (64, 64)),
        (size, "64,96", (64, 96)),
        (unit, "center", "center"),
        (unit, "0,5", (0, 5)),
        (index_or("mean", "label"), "label", "label"),
        (index_or("mean", "label"), "7", 7),
    ],
)
def test_value(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (positive, "0", "expected a positive integer, got '0'"),
        (positive, "1.5", "expected a positive integer, got '1.5'"),
        (pair, "3", "expected two integers I,J, got '3'"),
        (pair, "1,2,3", "expected two integers I,J, got '1,2,3'"),
        (size, "a,b", "expected two integers I,J, got 'a,b'"),
        (size, "-3", "expected a positive integer, got '-3'"),
        (unit, "centre", "expected two integers I,J, got 'centre'"),
        (index_or("mean", "label"), "max", "expected mean, label or an index, got 'max'"),
    ],
)
def test_word_that_does_not_serve(read: Callable[[str], Any], text: str, message: str) -> None:
    with pytest.raises(ArgumentTypeError) as raised:
        read(text)
    assert str(raised.value) == message
