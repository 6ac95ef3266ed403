"""How many pixels a fraction is, at halves above all, and which pixels rank first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from erfattr.metrics.ranking import first_pixels, pixel_count

VALUES = torch.tensor([[3.0, 1.0, 3.0], [2.0, 3.0, 1.0]])


@pytest.mark.parametrize(
    ("fraction", "pixels", "expected"),
    [
        # Halves go up, whether the number below them is even or odd.
        (0.5, 1, 1),
        (0.5, 9, 5),
        (0.5, 11, 6),
        (0.25, 2, 1),
        (0.25, 6, 2),
        (0.45, 10, 5),
        (0.35, 10, 4),
        # Halves in decimals that the product of floating-point numbers misses: 0.29 * 50 is below 14.5.
        (0.3, 45, 14),
        (0.29, 50, 15),
        (0.7, 45, 32),
        (0.145, 100, 15),
        (1e-05, 50_000, 1),
        # Beside a half.
        (0.4999999999999999, 1, 0),
        (0.5000000000000001, 1, 1),
        (0.49, 1, 0),
        (0.289, 50, 14),
        (0.291, 50, 15),
        # What was computed counts as the decimal that it shows: a sixth is a little too little.
        (1 / 6, 9, 1),
        (1 / 3, 3, 1),
        # Any type of number.
        (1, 7, 7),
        (1.0, 7, 7),
        (np.float64(0.3), 45, 14),
    ],
)
def test_a_fraction_of_pixels_is_rounded_as_it_is_written(
    fraction: float, pixels: int, expected: int
) -> None:
    assert pixel_count(fraction, pixels) == expected


@settings(max_examples=200, deadline=None)
@given(decimals=st.integers(1, 6), numerator=st.integers(1, 999_999), pixels=st.integers(1, 100_000))
def test_count_is_that_of_integers_where_the_fraction_has_few_decimals(
    decimals: int, numerator: int, pixels: int
) -> None:
    power = 10**decimals
    numerator = numerator % power or 1
    # Rounding numerator * pixels / power, a half up, without any fraction.
    whole, rest = divmod(numerator * pixels, power)
    assert pixel_count(float(f"{numerator}e-{decimals}"), pixels) == whole + (2 * rest >= power)


@pytest.mark.parametrize(
    ("fraction", "strongest", "expected"),
    [
        (0.5, True, [0, 2, 4]),
        (0.3, True, [0, 2]),  # 1.8, and the first two of three equal ones
        (0.7, True, [0, 2, 3, 4]),
        (0.25, False, [1, 5]),  # 1.5
        (0.5, False, [1, 3, 5]),
        (1.0, True, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_first_pixels_by_value_then_by_position(
    fraction: float, strongest: bool, expected: list[int]
) -> None:
    marked = first_pixels(VALUES, fraction, strongest=strongest)
    assert (marked.dtype, marked.shape) == (torch.bool, VALUES.shape)
    assert marked.flatten().nonzero()[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("strongest", "expected"), [(True, [1, 3, 5]), (False, [1, 3, 5])], ids=["strongest", "weakest"]
)
def test_all_of_a_mask_are_those_of_the_mask(strongest: bool, expected: list[int]) -> None:
    mask = torch.tensor([[False, True, False], [True, False, True]])
    marked = first_pixels(VALUES, 1, strongest=strongest, mask=mask)
    assert marked.flatten().nonzero()[:, 0].tolist() == expected
    assert mask.sum() == 3  # left as it was


def test_the_fraction_is_one_of_the_mask() -> None:
    mask = torch.tensor([[False, True, False], [True, False, True]])
    # Half of three pixels of the values 1, 2, 1 are two.
    assert first_pixels(VALUES, 0.5, mask=mask).flatten().nonzero()[:, 0].tolist() == [1, 3]
    assert first_pixels(VALUES, 0.5, strongest=False, mask=mask).flatten().nonzero()[:, 0].tolist() == [1, 5]


@pytest.mark.parametrize(
    ("values", "fraction", "mask", "error", "message"),
    [
        (VALUES, 0.05, None, ValueError, "fraction: expected at least one of 6 pixels, got 0.05"),
        (VALUES, 0.1, VALUES > 2, ValueError, "fraction: expected at least one of 3 pixels, got 0.1"),
        (VALUES, 0.5, VALUES > 9, ValueError, "fraction: expected at least one of 0 pixels, got 0.5"),
        (VALUES, 0, None, ValueError, r"fraction: expected a number in \(0, 1\], got 0"),
        (VALUES, "half", None, TypeError, r"fraction: expected a number in \(0, 1\], got 'half'"),
    ],
)
def test_bad_fractions(
    values: Tensor, fraction: Any, mask: Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        first_pixels(values, fraction, mask=mask)
