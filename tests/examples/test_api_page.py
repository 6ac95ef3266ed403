"""The API page names every public name once, in a sentence; every public name shows itself in an example."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import erfattr

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
PUBLIC = sorted({*erfattr.__all__} - {"__version__"})
ROWS = re.findall(r"^\| \{py:obj\}`(\w+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_public_name_has_one_row() -> None:
    assert sorted(name for name, _ in ROWS) == PUBLIC


def test_every_row_is_one_sentence() -> None:
    for name, words in ROWS:
        assert re.fullmatch(r"[A-Z][^.]*(\(\[[^]]+\]\([\w/]+\.md\)\))?\.", words), (name, words)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_an_example_that_is_run(name: str) -> None:
    value = getattr(erfattr, name)
    # A class without a docstring would inherit one, so only its own counts. pytest runs what stands in it.
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert ">>>" in own
