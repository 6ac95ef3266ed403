"""The type of ``--fail-if``."""

from __future__ import annotations

import operator
import re
from argparse import ArgumentTypeError
from typing import NamedTuple

# Numbers of a map, in words.
NUMBERS = {
    "L1": "the corrected index of first order",
    "L2": "of second order",
    "contrast": "the corrected phase contrast",
    "weak_phases": "how many phases are weak",
    "dead_pixels": "the share of pixels below half of their neighbourhood, 0 to 1",
    "sigma_y": "of the Gaussian fit, in pixels",
    "sigma_x": "likewise",
    "error": "the median pixel's relative standard error",
}
_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Condition(NamedTuple):
    """A comparison such as ``output: L1 > 0.2``.

    Attributes:
        map: Which map, as ``--layers`` calls it; ``None``: any.
        number: Which of its numbers.
        sign: How it is compared.
        limit: With what.
    """

    map: str | None
    number: str
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        """Whether it holds for a value."""
        return bool(_OPERATORS[self.sign](value, self.limit))

    @property
    def said(self) -> str:
        """The comparison without what is compared."""
        return f"{self.sign} {self.limit:g}"

    def __str__(self) -> str:
        """The words that it was read from."""
        of = "" if self.map is None else f"{self.map}: "
        return f"{of}{self.number} {self.said}"


def condition(text: str) -> Condition:
    """Read ``NUMBER > LIMIT``, or ``MAP: NUMBER > LIMIT``."""
    match = re.fullmatch(r"\s*(?:(\S+)\s*:\s*)?(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
    try:
        if match is None or match[2] not in NUMBERS:
            raise ValueError
        return Condition(match[1], match[2], match[3], float(match[4]))
    except ValueError:
        raise ArgumentTypeError(
            f"expected NUMBER > LIMIT or MAP: NUMBER > LIMIT, NUMBER one of {', '.join(NUMBERS)}, "
            f"such as 'output: L1 > 0.2', got {text!r}"
        ) from None
