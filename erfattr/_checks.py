"""Argument checks used by more than one module, and the words that arguments take.

Each check says what was expected and what came. Importing this module imports no torch, so that the command
line, which offers the words and checks its numbers, shows its help at once.
"""

from __future__ import annotations

import difflib
import math
import numbers
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Rectify = Literal["relu", "abs", "none"]
ToleranceOf = Literal["pixels", "L1", "L2"]
Precision = Literal["float32", "float64", "bfloat16"]
Mode = Literal["phase", "local", "global"]


def describe(value: object) -> str:
    """Say what ``value`` is, short enough for an error message."""
    # What is a tensor or a module has imported torch; a word of the command line has not.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {str(value.dtype).removeprefix('torch.')}"
    # An array of NumPy or of another library; its numbers say nothing in one line.
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        return f"an array of shape {shape} and dtype {value.dtype}"
    text = " ".join(repr(value).split())
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{text} ({type(value).__name__})"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return '; nearest: a, b' for the names of ``known`` nearest to ``name``, or an empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(nearest)}" if nearest else ""


def is_int(value: object) -> bool:
    """Whether a value is an integer, of Python or NumPy, and not a truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def as_int(value: Any) -> Any:
    """Return an integer of NumPy as one of Python, tuples of them too, and anything else as it came."""
    if isinstance(value, tuple):
        return tuple(as_int(part) for part in value)
    return int(value) if is_int(value) else value


def check_module(name: str, value: Any) -> None:
    """Raise unless ``value`` is a ``torch.nn.Module``."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {describe(value)}")


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {expected}, got {describe(value)}")


def check_bool(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")


def check_int(name: str, value: Any) -> None:
    """Raise unless ``value`` is an integer."""
    _check_int(name, value, "an integer", -math.inf)


def check_non_negative_int(name: str, value: Any) -> None:
    """Raise unless ``value`` is an integer of at least 0."""
    _check_int(name, value, "an integer of at least 0", 0)


def check_positive_int(name: str, value: Any) -> None:
    """Raise unless ``value`` is an integer of at least 1."""
    _check_int(name, value, "a positive integer", 1)


def _check_int(name: str, value: Any, expected: str, lowest: float) -> None:
    # True and False are integers to Python, and a mistake here.
    if not is_int(value):
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")
    if value < lowest:
        raise ValueError(f"{name}: expected {expected}, got {value}")


def check_fraction(name: str, value: Any) -> None:
    """Raise unless ``value`` is a number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number in (0, 1], got {describe(value)}")
    if not 0 < value <= 1:
        raise ValueError(f"{name}: expected a number in (0, 1], got {value}")


def check_not_negative(name: str, values: Tensor) -> None:
    """Raise unless no value of a tensor is below zero."""
    lowest = values.min().item()
    if lowest < 0:
        raise ValueError(f"{name}: expected no negative values, got a minimum of {lowest:g}")


def as_numbers(name: str, values: Any, count: int | None = None) -> tuple[float, ...]:
    """Return ``count`` finite numbers as floats, or at least one if ``count`` is None."""
    several, finite = "a sequence of numbers", "finite numbers"
    if count is not None:
        several, finite = f"{count} numbers", f"{count} finite numbers"
    try:
        floats = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected {several}, got {describe(values)}") from error
    wrong_count = not floats if count is None else len(floats) != count
    if wrong_count or not all(math.isfinite(number) for number in floats):
        raise ValueError(f"{name}: expected {finite}, got {describe(values)}")
    return floats


def as_point(name: str, value: Any) -> tuple[float, float]:
    """Return a point (y, x) as two finite floats."""
    point = as_numbers(name, value)
    if len(point) != 2:
        raise ValueError(f"{name}: expected (y, x), got {describe(value)}")
    return point[0], point[1]


def as_map(name: str, value: Any, *, batched: bool = False) -> Tensor:
    """Return ``value`` as a finite floating-point tensor of shape (H, W), or (..., H, W) if ``batched``.

    NumPy arrays and nested lists are taken as well; a floating-point tensor is returned as it came.
    """
    import torch

    expected = "a map of shape (..., H, W)" if batched else "a map of shape (H, W)"
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(getattr(value, "mean", None), torch.Tensor):
            given = type(value).__name__
            raise TypeError(f"{name}: expected {expected}, got {given}; the map is its .mean") from error
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}") from error
    if tensor.ndim < 2 or (tensor.ndim > 2 and not batched):
        raise ValueError(f"{name}: expected {expected}, got shape {tuple(tensor.shape)}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {describe(tensor)}")
    if not tensor.is_floating_point():
        tensor = tensor.double()
    if tensor.numel() == 0:
        raise ValueError(
            f"{name}: expected {expected} with at least one pixel, got shape {tuple(tensor.shape)}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"{name}: expected finite values, got {int((~torch.isfinite(tensor)).sum())} that are not"
        )
    return tensor
