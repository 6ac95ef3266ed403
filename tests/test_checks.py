"""Every check lets good values pass, and says of others what was expected and what came."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from erfattr._checks import (
    as_map,
    as_numbers,
    as_point,
    check_bool,
    check_choice,
    check_fraction,
    check_int,
    check_module,
    check_non_negative_int,
    check_not_negative,
    check_positive_int,
    describe,
    suggest,
)


def choice(name: str, value: Any) -> None:
    check_choice(name, value, ("none", 1, None))


def four_numbers(name: str, value: Any) -> tuple[float, ...]:
    return as_numbers(name, value, 4)


def maps(name: str, value: Any) -> torch.Tensor:
    return as_map(name, value, batched=True)


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (check_bool, [True, False]),
        (check_int, [-3, 0, 2]),
        (check_non_negative_int, [0, 2]),
        (check_positive_int, [1, 2**70]),
        (check_fraction, [1, 1.0, 1e-9]),
        (check_module, [nn.ReLU()]),
        (check_not_negative, [torch.zeros(2, 2), torch.tensor(3)]),
        (choice, ["none", 1, None]),
    ],
)
def test_good_values_pass(check: Callable[[str, Any], None], good: list[Any]) -> None:
    for value in good:
        check("option", value)


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (check_bool, 1, TypeError, "expected True or False, got 1 (int)"),
        (check_int, 2.0, TypeError, "expected an integer, got 2.0 (float)"),
        (check_int, True, TypeError, "expected an integer, got True (bool)"),
        (check_non_negative_int, "2", TypeError, "expected an integer of at least 0, got '2' (str)"),
        (check_non_negative_int, False, TypeError, "expected an integer of at least 0, got False (bool)"),
        (check_non_negative_int, -1, ValueError, "expected an integer of at least 0, got -1"),
        (check_positive_int, None, TypeError, "expected a positive integer, got None (NoneType)"),
        (check_positive_int, True, TypeError, "expected a positive integer, got True (bool)"),
        (check_positive_int, 0, ValueError, "expected a positive integer, got 0"),
        (check_fraction, "1", TypeError, "expected a number in (0, 1], got '1' (str)"),
        (check_fraction, True, TypeError, "expected a number in (0, 1], got True (bool)"),
        (check_fraction, 0, ValueError, "expected a number in (0, 1], got 0"),
        (check_fraction, 1.5, ValueError, "expected a number in (0, 1], got 1.5"),
        (check_fraction, math.nan, ValueError, "expected a number in (0, 1], got nan"),
        (check_module, nn.ReLU, TypeError, "expected a torch.nn.Module, got <class 'torch.nn.modules"),
        (
            check_not_negative,
            torch.tensor([1.0, -0.25]),
            ValueError,
            "expected no negative values, got a minimum of -0.25",
        ),
        (choice, "all", ValueError, "expected one of 'none', 1, None, got 'all' (str)"),
        (choice, True, ValueError, "expected one of 'none', 1, None, got True (bool)"),
        (as_numbers, [], ValueError, "expected finite numbers, got [] (list)"),
        (as_numbers, 3, TypeError, "expected a sequence of numbers, got 3 (int)"),
        (as_numbers, ["a"], TypeError, "expected a sequence of numbers, got ['a'] (list)"),
        (as_numbers, [math.inf], ValueError, "expected finite numbers, got [inf] (list)"),
        (four_numbers, (1, 2), ValueError, "expected 4 finite numbers, got (1, 2) (tuple)"),
        (four_numbers, None, TypeError, "expected 4 numbers, got None (NoneType)"),
        (as_point, (1, 2, 3), ValueError, "expected (y, x), got (1, 2, 3) (tuple)"),
        (as_map, "map", TypeError, "expected a map of shape (H, W), got 'map' (str)"),
        (as_map, [1, 2], ValueError, "expected a map of shape (H, W), got shape (2,)"),
        (as_map, torch.ones(1, 2, 2), ValueError, "expected a map of shape (H, W), got shape (1, 2, 2)"),
        (maps, torch.ones(2), ValueError, "expected a map of shape (..., H, W), got shape (2,)"),
        (
            as_map,
            torch.ones(2, 2, dtype=torch.bool),
            TypeError,
            "expected real numbers, got a tensor of shape (2, 2) and dtype bool",
        ),
        (
            as_map,
            torch.ones(0, 2),
            ValueError,
            "expected a map of shape (H, W) with at least one pixel, got shape (0, 2)",
        ),
        (
            as_map,
            [[math.nan, 1], [math.inf, 1]],
            ValueError,
            "expected finite values, got 2 that are not",
        ),
    ],
)
def test_messages(
    check: Callable[[str, Any], object], value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="^" + re.escape(f"option: {message}")):
        check("option", value)


def test_numbers_become_floats() -> None:
    assert as_numbers("option", np.array([1, 2])) == (1.0, 2.0)
    assert as_numbers("option", torch.tensor([1, 2]), 2) == (1.0, 2.0)
    assert as_point("option", [3, 4.5]) == (3.0, 4.5)


def test_a_floating_point_map_stays_itself_and_others_become_float64() -> None:
    values = torch.ones(2, 2)
    assert as_map("option", values) is values
    assert as_map("option", [[1, 2]]).dtype == torch.float64
    assert as_map("option", np.ones((1, 2), np.float32)).dtype == torch.float32
    assert maps("option", torch.ones(5, 1, 2)).shape == (5, 1, 2)


def test_values_are_described_shortly() -> None:
    assert describe(torch.ones(2, 3)) == "a tensor of shape (2, 3) and dtype float32"
    assert describe("a" * 100) == "'" + "a" * 56 + "... (str)"


def test_the_nearest_names_are_suggested() -> None:
    assert suggest("layr1", ["layer1", "layer2", "fc"]) == "; nearest: layer1, layer2"
    assert suggest("layr1", ["fc"]) == ""
