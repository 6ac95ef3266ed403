"""The gallery shows every example once; a how-to page has a script, its picture and its pitfalls."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOWTO = sorted(path for path in (ROOT / "docs" / "howto").glob("*.md") if path.name != "index.md")


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("gallery_pages")


def test_every_example_stands_in_one_section(gallery: ModuleType) -> None:
    shown = [name for section in gallery.SECTIONS for name in section[3]]
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def test_an_example_that_lacks_a_library_is_shown_and_not_run(
    gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tmp_path / "examples"
    examples.mkdir()
    (examples / "runs.py").write_text('"""\nRuns\n====\n"""\nimport math\n')
    (examples / "lacks.py").write_text('"""\nLacks\n=====\n"""\nfrom no_such_library.part import thing\n')
    monkeypatch.setattr(gallery, "EXAMPLES", examples)
    monkeypatch.setattr(gallery, "STAGED", tmp_path / "staged")
    monkeypatch.setattr(gallery, "GALLERY", tmp_path / "gallery")
    monkeypatch.setattr(gallery, "SECTIONS", (("look", "Look", "Where?", ("runs", "lacks")),))
    pattern = gallery.stage()
    staged = tmp_path / "staged" / "look"
    assert re.search(pattern, str(staged / "runs.py"))
    assert not re.search(pattern, str(staged / "lacks.py"))
    assert (staged / "runs.py").read_text() == (examples / "runs.py").read_text()
    lacking = (staged / "lacks.py").read_text()
    assert "no_such_library does not load there" in lacking
    assert lacking.endswith("# sphinx_gallery_dummy_images=1\n")
    assert (staged / "GALLERY_HEADER.rst").read_text().startswith("Look\n----\n")


@pytest.mark.parametrize("path", HOWTO, ids=lambda path: path.stem)
def test_a_page_has_question_picture_script_and_pitfalls(path: Path, gallery: ModuleType) -> None:
    text = path.read_text(encoding="utf-8")
    (script,) = re.findall(r"```{literalinclude} \.\./\.\./examples/(\w+)\.py", text)
    (section,) = [folder for folder, _, _, names in gallery.SECTIONS if script in names]
    assert f"](../gallery/{section}/images/sphx_glr_{script}_001.png)" in text
    assert f"(../gallery/{section}/{script}.rst)" in text
    assert re.match(r"# .+\n\n\*.+\?\*\n|# .+\n\n\*.+\.\*\n", text), "a question in the user's words"
    assert "**What the picture shows.**" in text
    assert "\n## Pitfalls\n" in text


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "howto" / "index.md").read_text(encoding="utf-8")
    for path in HOWTO:
        assert f"]({path.name})" in index, path.name
        assert f"\n{path.stem}\n" in index, path.name
