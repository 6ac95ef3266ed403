"""Each method's page begins with what it answers, a picture, lines that run, and when not to use it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted((DOCS / "methods").glob("*.md"))
PICTURE = re.compile(r"!\[([^]]{20,})\]\(([^)]+\.png)\)")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_begins_with_use(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    beginning = text.partition("\n## ")[0]
    assert beginning.split("\n\n")[1].startswith("**What it answers.** ")
    assert ">>> " in beginning
    assert "\n## When not to use it\n" in text
    (_, picture), *_ = PICTURE.findall(beginning)
    assert (path.parent / picture).stat().st_size < 62_000


@pytest.mark.parametrize("place", ["explanations", "measurements"])
def test_index_names_every_page_beside_it(place: str) -> None:
    names = {path.name for path in (DOCS / place).glob("*.md")} - {"index.md"}
    index = (DOCS / place / "index.md").read_text(encoding="utf-8")
    assert names == set(re.findall(r"^\| \[[^]]+\]\((\w+\.md)\)", index, re.MULTILINE))
