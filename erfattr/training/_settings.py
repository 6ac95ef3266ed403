"""What the fields of a recipe can be; each check names the field. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erfattr._checks import check_non_negative_int, check_positive_int, describe, is_int

# Beyond these a number is a slip of the finger: no image is so wide, no run so long.
_LARGEST_SIDE = 2**15
_MOST = 2**31 - 1


def check_count(name: str, value: Any, lowest: int) -> None:
    """Raise unless a value is an integer of at least ``lowest``, 0 or 1, that 32 bits hold."""
    check_positive_int(name, value) if lowest else check_non_negative_int(name, value)
    if value > _MOST:
        raise ValueError(f"{name}: expected at most {_MOST}, got {value}")


def check_side(name: str, value: Any) -> None:
    """Raise unless a value is the side of an image in pixels."""
    check_positive_int(name, value)
    if value > _LARGEST_SIDE:
        raise ValueError(f"{name}: expected at most {_LARGEST_SIDE} pixels, got {value}")


def check_number(name: str, value: Any, expected: str, is_good: Callable[[float], bool]) -> None:
    """Raise unless a value is a number in the range that ``expected`` says in words."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")
    if not is_good(value):
        raise ValueError(f"{name}: expected {expected}, got {describe(value)}")


def check_colors(colors: Any) -> None:
    """Raise unless these are two or more different colours."""
    good = (
        isinstance(colors, tuple)
        and all(
            isinstance(color, tuple)
            and len(color) == 3
            and all(is_int(level) and 0 <= level <= 255 for level in color)
            for color in colors
        )
        and len(set(colors)) == len(colors) >= 2
    )
    if not good:
        raise ValueError(
            "colors: expected two or more different ones of three integers from 0 to 255 each, got "
            f"{describe(colors)}"
        )
