"""``scripts/check_site.py``: what a page loads, and where its links lead."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_site.py"
GOOD = """<html><head><link rel="stylesheet" href="a.css"><link rel="next" href="https://else.where/next">
<script src="b.js"></script></head><body id="top"><img src="data:image/png;base64,AA">
<a href="https://else.where/">a link is followed by a person</a><a href="#top">up</a>
<a href="sub/other.html#here">other</a></body></html>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "sub" / "other.html").write_text('<p id="here"><a href="../index.html">home</a></p>')
    (tmp_path / "a.css").write_text("p { background: url(x.png) }")
    return tmp_path


def found(site: Path) -> list[str]:
    problems: Any = runpy.run_path(str(SCRIPT))["problems"]
    return list(problems(site))


def test_a_whole_site_has_no_problem(site: Path) -> None:
    assert found(site) == []


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js"),
        ('<img src="//cdn.example/x.png">', "loads //cdn.example/x.png"),
        (
            '<link rel="preload stylesheet" href="http://cdn.example/x.css">',
            "loads http://cdn.example/x.css",
        ),
        ('<a href="gone.html">gone</a>', "gone.html leads nowhere"),
        ('<a href="sub/other.html#gone">gone</a>', "sub/other.html#gone leads to no such place"),
        ('<a href="#gone">gone</a>', "#gone leads to no such place"),
    ],
)
def test_what_is_wrong_is_named_with_its_page(site: Path, added: str, problem: str) -> None:
    (site / "index.html").write_text(GOOD + added)
    assert found(site) == [f"index.html: {problem}"]


def test_styles_are_read_too(site: Path) -> None:
    (site / "a.css").write_text('@import "https://fonts.example/a"; p { src: url("//fonts.example/b") }')
    assert found(site) == ["a.css: loads https://fonts.example/a", "a.css: loads //fonts.example/b"]
