from __future__ import annotations

import pytest

from erfattr.report.text_table import text_table


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_where_their_text_does() -> None:
    rows = [["", "original", "padded"], ["epochs", "3", ""], ["L1", "0.25 +- 0.01", "0.1"]]
    assert text_table(rows).split("\n") == [
        "        original      padded",
        "epochs  3",
        "L1      0.25 +- 0.01  0.1",
    ]


def test_no_rows_are_no_text() -> None:
    assert text_table([]) == ""


def test_rows_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_table([["a", "b"], ["c"]])
