"""Words in a figure whose places are known in millimetres: written, measured, shortened, broken up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

# Points. Journals ask for 5 to 7 at least; nothing is below 6.
SMALL = 6.0


def write(
    figure: Figure,
    x: float,
    y: float,
    words: str,
    width: float,
    height: float,
    room: float | None = None,
    **style: Any,
) -> Text:
    """Write at (x, y) millimetres from the top left."""
    text = figure.text(x / width, 1 - y / height, words, **{"va": "top", "fontsize": SMALL, **style})
    if room is not None:
        fit_into(text, room)
    return text


def millimetres(text: Text) -> float:
    """Return how long a line of text is."""
    extent = text.get_window_extent()
    figure = text.figure
    assert figure is not None
    return float(max(extent.width, extent.height if text.get_rotation() else 0.0) / figure.figure.dpi * 25.4)


def fit_into(text: Text, room: float) -> None:
    """Shorten a name from its beginning until it fits: the end of a dotted name tells layers apart."""
    whole = text.get_text()
    for cut in range(1, len(whole)):
        if millimetres(text) <= room:
            return
        text.set_text("…" + whole[cut + 1 :])


def wrapped(figure: Figure, sentences: Sequence[str], room: float) -> list[str]:
    """Break sentences into lines that fit."""
    lines: list[str] = []
    probe = figure.text(0, 0, "", fontsize=SMALL)
    for word in " ".join(sentences).split():
        longer = f"{lines[-1]} {word}" if lines else word
        probe.set_text(longer)
        if lines and millimetres(probe) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    probe.remove()
    return lines
