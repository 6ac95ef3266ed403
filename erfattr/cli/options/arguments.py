"""Types of arguments: each reads a word, or says what it expected."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_SEVERAL_MODELS = ("rf", "figure", "report")
_MODEL_FIRST = (*_SEVERAL_MODELS, "diagnose", "tiling")
_SEVERAL = ("--size", "--mean", "--std")
# What 64 bits hold, as torch counts.
_LARGEST = 2**63 - 1


def positive(text: str) -> int:
    """Read a positive integer."""
    return _integer(text, 1, "a positive integer")


def automatic(read: Callable[[str], int]) -> Callable[[str], int | None]:
    """Return a type that reads ``auto`` as ``None``, and all else as ``read`` does."""

    def either(text: str) -> int | None:
        return None if text == "auto" else read(text)

    return either


def not_negative(text: str) -> int:
    """Read an integer of at least 0."""
    return _integer(text, 0, "an integer of at least 0")


def is_positive(text: str) -> float:
    """Read a positive finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value


def random_seed(text: str) -> int:
    """Read a seed, as every generator of random numbers takes it."""
    return _integer(text, 0, "an integer from 0 to 2^63 - 1")


def _integer(text: str, lowest: int, expected: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= _LARGEST:
        raise ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def word(text: str) -> str:
    """Read a name, a path or another word that says something."""
    if not text.strip() or "\0" in text:
        raise ArgumentTypeError(f"expected a word, got {text!r}")
    return text


def file(text: str) -> Path:
    """Read the path of a file or a folder; an empty one would be the working folder."""
    if not text.strip() or "\0" in text:
        raise ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)


def pair(text: str) -> tuple[int, int]:
    """Read two integers, ``I,J``."""
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"expected two integers I,J, got {text!r}") from None
    return first, second


def joined(words: Iterable[str]) -> list[str]:
    """Return the words of a command line with the numbers of an option in one word: ``--size=48,80``.

    So an option takes one number or several, and leaves the words behind them, which argparse would take too.
    Where the model is a word without an option, ``--model NAME`` is that word.
    """
    words = _model_first(list(words))
    found: list[str] = []
    option = ""
    for word in words:
        if option and _is_numbers(word):
            found[-1] += ("=" if found[-1] == option else ",") + word
        else:
            option = word if word in _SEVERAL else ""
            found.append(word)
    return found


def _model_first(words: list[str]) -> list[str]:
    """Return the words with those of ``--model`` behind the command, where the model has no option.

    There, no option before them takes them for its own.
    """
    if not words or words[0] not in _MODEL_FIRST:
        return words
    models: list[str] = []
    others: list[str] = []
    of_model = False
    for word in words[1:]:
        if word in ("-m", "--model") or word.startswith("--model="):
            models += [word.removeprefix("--model=")] if "=" in word else []
            of_model = "=" not in word
        elif of_model and not word.startswith("-"):
            models.append(word)
            of_model = words[0] in _SEVERAL_MODELS
        else:
            of_model = False
            others.append(word)
    return [words[0], *models, *others]


def _is_numbers(word: str) -> bool:
    try:
        return all(isinstance(float(part), float) for part in word.split(","))
    except ValueError:
        return False


def size(text: str) -> tuple[int, int]:
    """Read (H, W) from ``S`` or ``H,W``."""
    try:
        sides = [positive(part) for part in text.split(",")]
    except ArgumentTypeError:
        sides = []
    if len(sides) not in (1, 2):
        raise ArgumentTypeError(f"expected one positive integer, or two for height and width, got {text!r}")
    return sides[0], sides[-1]


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"expected one number, or one for each channel, got {text!r}") from None


def layout(text: str) -> str:
    """Read how a layer's output becomes a map: ``channels-last``, ``tokens:HxW`` or ``tokens:HxW+P``."""
    if text != "channels-last":
        token_grid(text)
    return text


def token_grid(text: str) -> tuple[tuple[int, int], int]:
    """Return grid (H, W) and number of prefix tokens of ``tokens:HxW`` or ``tokens:HxW+P``."""
    match = re.fullmatch(r"tokens:([1-9]\d*)x([1-9]\d*)(?:\+(\d+))?", text, re.ASCII)
    if match is None:
        raise ArgumentTypeError(
            "expected channels-last, tokens:HxW or tokens:HxW+P for P prefix tokens, such as tokens:14x14 or "
            f"tokens:14x14+1, got {text!r}"
        )
    rows, columns, prefix = match.groups(default="0")
    return (int(rows), int(columns)), int(prefix)


def unit(text: str) -> str | tuple[int, int]:
    """Read ``center``, or a position ``I,J``."""
    return text if text == "center" else pair(text)


def index_or_key(text: str) -> int | str:
    """Read an index, or a key, which may stand in quotes: pyramids of feature maps call theirs "0", "1"."""
    if text.isdecimal():
        return int(text)
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def index_or(*words: str) -> Callable[[str], str | int]:
    """Return a type that reads one of these words, or the index of a class."""

    def read(text: str) -> str | int:
        return text if text in words else _integer(text, 0, f"{', '.join(words)} or an index")

    return read


def needs(options: Namespace, default: Callable[[str], Any], name: str, met: bool, condition: str) -> None:
    """Raise where an option was given that has no effect: ``condition`` is what it is ``met`` by."""
    value = getattr(options, name)
    if not met and value != default(name):
        raise ArgumentTypeError(f"--{name.replace('_', '-')}: expected only with {condition}, got {value!s}")


def is_share(options: Namespace, name: str) -> None:
    """Raise unless an option that was given is a number in (0, 1]."""
    value = getattr(options, name)
    if value is not None and not 0 < value <= 1:
        raise ArgumentTypeError(f"--{name.replace('_', '-')}: expected a number in (0, 1], got {value}")
