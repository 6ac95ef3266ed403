"""In a file progress is lines, without carriage returns."""

from __future__ import annotations

import pytest

from erfattr import _progress
from erfattr._progress import progress


def test_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "_LINES_EVERY", 0.0)
    with progress(3, show=True, start=1) as bar:
        bar.update(1)
        bar.update(1)
    lines = capsys.readouterr().err.split("\n")
    assert "\r" not in "".join(lines)
    assert [line[:14] for line in lines] == ["2 of 3 images,", "3 of 3 images,", ""]


def test_no_line_of_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2, show=True) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_nothing_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2, show=False) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""
