"""Every command that a page shows can be typed: its words are known and go together."""

from __future__ import annotations

import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

from erfattr.cli._main import _parsed

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("[!_a]*/*.md"))]


def commands(text: str) -> list[str]:
    """Return the command lines of a page: of its blocks, and those with options of its sentences."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(found.split()) for found in re.findall(r"(?<!`)`(erfattr [^`]* -[^`]*)`", text)]
    found = [re.sub(r"^.* -m erfattr ", "erfattr ", line.strip()) for line in lines]
    return [line for line in found if re.match(r"erfattr (?!COMMAND|--)", line) and "..." not in line]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_can_be_typed(path: Path) -> None:
    for line in commands(path.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        try:
            _parsed(list(takewhile(lambda word: word not in ("|", ">"), words))).check()
        except SystemExit as end:
            raise AssertionError(f"{line!r} ends with status {end.code}") from None


def test_pages_show_commands() -> None:
    assert len(commands((ROOT / "README.md").read_text(encoding="utf-8"))) >= 5
    assert commands("Type `erfattr map\n-q --count 3`.") == ["erfattr map -q --count 3"]
    assert commands("```sh\ntorchrun -m erfattr map -q\n```") == ["erfattr map -q"]
