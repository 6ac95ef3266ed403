"""Types of arguments: each reads a word, or says what it expected."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable


def positive(text: str) -> int:
    """Read a positive integer."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return value


def pair(text: str) -> tuple[int, int]:
    """Read two integers, ``I,J``."""
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"expected two integers I,J, got {text!r}") from None
    return first, second


def size(text: str) -> tuple[int, int]:
    """Read (H, W) from ``S`` or ``H,W``."""
    return pair(text) if "," in text else (positive(text), positive(text))


def unit(text: str) -> str | tuple[int, int]:
    """Read ``center``, or a position ``I,J``."""
    return text if text == "center" else pair(text)


def index_or(*words: str) -> Callable[[str], str | int]:
    """Return a type that reads one of these words, or the index of a class."""

    def read(text: str) -> str | int:
        try:
            return text if text in words else int(text)
        except ValueError:
            raise ArgumentTypeError(f"expected {', '.join(words)} or an index, got {text!r}") from None

    return read
