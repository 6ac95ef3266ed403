"""The reproduction record: every number of the page comes from a result file, or from the paper's tables."""

from __future__ import annotations

import copy
import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "docs" / "_templates" / "reproduction.md.jinja"


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; the paths that it needs go away again."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "paper"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("write_reproduction")


def test_the_page_is_what_the_results_make_of_its_template(writer: Any) -> None:
    made = writer.page()
    assert made == writer.PAGE.read_text(encoding="utf-8"), "run scripts/write_reproduction.py"


def test_the_template_brings_no_measured_number_of_its_own() -> None:
    words = re.sub(r"\{[{%].*?[}%]\}", "", TEMPLATE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"\d+\.\d+|\d+ %", words) == []


def test_every_result_is_shown_and_a_changed_one_shows(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = writer.results()
    before = writer.page()
    for name, result in found.items():
        changed = copy.deepcopy(found)
        row = changed[name]["rows"][-1]
        # The number that a table shows last: every table prints the end of its rows.
        keys = [key for key, value in row.items() if isinstance(value, (int, float)) and value]
        for key in keys or [key for key, value in row.items() if isinstance(value, str)]:
            row[key] = row[key] * 2
        monkeypatch.setattr(writer, "results", lambda changed=changed: changed)
        assert writer.page() != before, f"{name}: the page does not show it"
        assert result["command"].startswith("python examples/paper/")
        assert result["date"] > "2026"
        assert result["machine"]


def test_results_hold_no_path_of_a_machine(writer: Any) -> None:
    for path in writer.RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert path.stat().st_size < 200_000
        assert re.findall(r'"/|"file:|/home/|/tmp/', text) == []
        json.loads(text)


def test_check_says_when_the_page_is_old(
    writer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "reproduction.md"
    old.write_text("old")
    monkeypatch.setattr(writer, "PAGE", old)
    monkeypatch.setattr(writer, "ROOT", tmp_path)
    monkeypatch.setattr(writer, "page", lambda: "new")
    monkeypatch.setattr("sys.argv", ["write_reproduction.py", "--check"])
    with pytest.raises(SystemExit, match="is not what the results make"):
        writer.main()
    assert old.read_text() == "old"
    monkeypatch.setattr("sys.argv", ["write_reproduction.py"])
    writer.main()
    assert old.read_text() == "new"


def test_results_and_the_figures_of_the_page_are_collected(
    writer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("table3_ten", "figure1", "figure2"):
        folder = tmp_path / "paper-results" / name
        folder.mkdir(parents=True)
        (folder / f"{name.partition('_')[0]}.json").write_text(f'{{"rows": ["{name}"]}}')
        (folder / "rows.json").write_text("what a stopped script goes on from")
        Image.new("RGB", (8, 8), "red").save(folder / f"{name}.png")
    for place in ("results", "images"):
        monkeypatch.setattr(writer, place.upper(), tmp_path / place)
    writer.collect(tmp_path / "paper-results")
    assert writer.results() == {name: {"rows": [name]} for name in ("table3_ten", "figure1", "figure2")}
    (image,) = (tmp_path / "images").iterdir()  # the page draws figure 2 as a table
    assert image.name == "reproduction_figure1.png"
    assert Image.open(image).convert("RGB").getpixel((4, 4)) == (255, 0, 0)
