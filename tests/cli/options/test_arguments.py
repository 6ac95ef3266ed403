"""Types of arguments."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

import pytest

from erfattr.cli.options.arguments import (
    index_or,
    index_or_key,
    joined,
    layout,
    numbers,
    pair,
    positive,
    size,
    token_grid,
    unit,
)

SIDES = "expected one positive integer, or two for height and width"
LAYOUTS = (
    "expected channels-last, tokens:HxW or tokens:HxW+P for P prefix tokens, such as tokens:14x14 or "
    "tokens:14x14+1"
)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (positive, "12", 12),
        (pair, "3,4", (3, 4)),
        (pair, "-1, 0", (-1, 0)),
        (size, "64", (64, 64)),
        (size, "64,96", (64, 96)),
        (numbers, "0.5", (0.5,)),
        (numbers, "-0.5,1e-1,2", (-0.5, 0.1, 2.0)),
        (layout, "channels-last", "channels-last"),
        (layout, "tokens:14x7+1", "tokens:14x7+1"),
        (token_grid, "tokens:14x7+1", ((14, 7), 1)),
        (token_grid, "tokens:2x30", ((2, 30), 0)),
        (index_or_key, "12", 12),
        (index_or_key, "logits", "logits"),
        (index_or_key, "'12'", "12"),
        (index_or_key, '"0"', "0"),
        (index_or_key, "'", "'"),
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
        (size, "a,b", f"{SIDES}, got 'a,b'"),
        (size, "-3", f"{SIDES}, got '-3'"),
        (size, "0,8", f"{SIDES}, got '0,8'"),
        (size, "8,9,10", f"{SIDES}, got '8,9,10'"),
        (numbers, "0.5,x", "expected one number, or one for each channel, got '0.5,x'"),
        (layout, "channels_last", f"{LAYOUTS}, got 'channels_last'"),
        (layout, "tokens:14", f"{LAYOUTS}, got 'tokens:14'"),
        (layout, "tokens:0x14", f"{LAYOUTS}, got 'tokens:0x14'"),
        (layout, "tokens:14x14+", f"{LAYOUTS}, got 'tokens:14x14+'"),
        (unit, "centre", "expected two integers I,J, got 'centre'"),
        (index_or("mean", "label"), "max", "expected mean, label or an index, got 'max'"),
    ],
)
def test_word_that_does_not_serve(read: Callable[[str], Any], text: str, message: str) -> None:
    with pytest.raises(ArgumentTypeError) as raised:
        read(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("map --size 48 80 --plain", "map --size=48,80 --plain"),
        ("debias --size 96 photo.jpg", "debias --size=96 photo.jpg"),
        ("map --mean -0.5 0 1e-3 --std 2", "map --mean=-0.5,0,1e-3 --std=2"),
        ("map --mean -0.5,0,1", "map --mean=-0.5,0,1"),
        ("map --size=48 80", "map --size=48 80"),
        ("map --size --plain", "map --size --plain"),
        ("map --std nan inf", "map --std=nan,inf"),
        ("map --count 3 4", "map --count 3 4"),
    ],
)
def test_numbers_of_an_option_become_one_word(typed: str, expected: str) -> None:
    assert joined(typed.split()) == expected.split()
    assert joined(expected.split()) == expected.split()
