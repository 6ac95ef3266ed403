"""How far long work has come: a bar on a terminal and in a notebook, plain lines in a file."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm.auto import tqdm

# Seconds between two lines.
_LINES_EVERY = 30.0


class _Lines:
    """A stream that takes a bar's pictures as lines: carriage returns fill a log file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self._last:
            self._last = line
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


def progress(total: int | None, *, show: bool, start: int = 0, unit: str = "image") -> tqdm[Any]:
    """Return tqdm's bar, on standard error; where that is no terminal, a line every half a minute.

    Args:
        total: Items in all, if that is known.
        show: Whether anything is shown.
        start: Items that are done already.
        unit: What an item is.
    """
    stream = sys.stderr
    if show and stream is not None and not stream.isatty() and "ipykernel" not in sys.modules:
        return tqdm(
            total=total,
            initial=start,
            unit=unit,
            file=_Lines(stream),
            mininterval=_LINES_EVERY,
            delay=_LINES_EVERY or 1e-9,  # no line of short work
            bar_format="{n_fmt} of {total_fmt} " + unit + "s, {elapsed}, {remaining} left{postfix}",
        )
    return tqdm(total=total, initial=start, unit=unit, disable=not show)
