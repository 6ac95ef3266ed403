"""Figures come after the results; one that fails leaves them, and no figure of an earlier run."""

from __future__ import annotations

from pathlib import Path

import pytest

from erfattr.report.figures import FigureWarning, draw_figures


def fail(path: Path) -> None:
    path.write_bytes(b"half")
    raise ValueError("no room\nfor it")


def test_one_that_fails_is_left_out_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "bad.png").write_bytes(b"of an earlier run")
    figures = {"bad.png": fail, "good.png": lambda path: path.write_bytes(b"drawn")}
    message = r"bad\.png could not be drawn and is left out \(ValueError: no room\)$"
    with pytest.warns(FigureWarning, match=message):
        assert draw_figures(tmp_path, figures) == ["good.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.png", "result.json"]


def test_an_interruption_is_none_of_these(tmp_path: Path) -> None:
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        draw_figures(tmp_path, {"a.png": stop})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
