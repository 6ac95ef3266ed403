"""Tables of text, as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines with aligned columns; headings are a row like any other.

    Raises:
        ValueError: a row has more or fewer cells than the first.

    Example:
        >>> print(text_table([["layer", "size"], ["conv1", "7"], ["layer4.2", "483"]]))
        layer     size
        conv1     7
        layer4.2  483
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
