"""Conditions are read as they are said."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from erfattr.cli.options.conditions import Condition, condition


@pytest.mark.parametrize(
    ("text", "expected", "again"),
    [
        ("L1 > 0.2", Condition(None, "L1", ">", 0.2), "L1 > 0.2"),
        ("output:contrast<=1e-1", Condition("output", "contrast", "<=", 0.1), "output: contrast <= 0.1"),
        ("layer4.0: sigma_y < 30", Condition("layer4.0", "sigma_y", "<", 30.0), "layer4.0: sigma_y < 30"),
    ],
)
def test_read(text: str, expected: Condition, again: str) -> None:
    found = condition(text)
    assert found == expected
    assert str(found) == again
    assert condition(str(found)) == found


@pytest.mark.parametrize("text", ["", "L1", "L3 > 2", "L1 > two", "L1 = 2", "import os", "L1 > 0.2 or 1"])
def test_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected NUMBER > LIMIT"):
        condition(text)


@pytest.mark.parametrize(
    ("sign", "below", "equal", "above"),
    [
        (">", False, False, True),
        (">=", False, True, True),
        ("<", True, False, False),
        ("<=", True, True, False),
    ],
)
def test_comparison(sign: str, below: bool, equal: bool, above: bool) -> None:
    of = Condition(None, "L1", sign, 1.0)
    assert (of.holds(0.5), of.holds(1.0), of.holds(1.5)) == (below, equal, above)
