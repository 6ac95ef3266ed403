"""The rules of the house that neither ruff nor import-linter can say."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import erfattr

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "erfattr"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "examples")
# Tests of the package as a whole.
OF_ALL = {Path(name) for name in ("test_contract.py", "test_cuda.py", "test_house.py")}
# Names that say nothing about what a module holds.
EMPTY_NAMES = {"base", "common", "core", "helper", "helpers", "misc", "tools", "util", "utils"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def place_of_tests(module: Path) -> Path:
    """Return where the tests of a module stand, below ``tests``: those of a private folder beside it."""
    place = module.relative_to(PACKAGE)
    folders = [folder for folder in place.parts[:-1] if not folder.startswith("_")]
    return Path(*folders, f"test_{module.stem.lstrip('_')}.py")


def is_private(module: Path) -> bool:
    return any(part.startswith("_") for part in module.relative_to(PACKAGE).parts)


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_few_entries_at_top() -> None:
    # What says to others that the package has types is no place to look for code.
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "__init__.pyi", "py.typed"}
    assert len(entries) <= 20, sorted(entries)


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_room_says_in_three_lines_what_lives_there(room: Path) -> None:
    lines = [line for line in docstring(room / "__init__.py").splitlines() if line]
    assert 2 <= len(lines) <= 3


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_module_holds_one_idea_and_is_named_after_it(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 450
    assert set(module.stem.split("_")) & EMPTY_NAMES == set()


@pytest.mark.parametrize("module", [path for path in MODULES if not is_private(path)], ids=name)
def test_public_module_has_its_tests(module: Path) -> None:
    assert (ROOT / "tests" / place_of_tests(module)).is_file()


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_test_file_has_its_module(path: Path) -> None:
    place = path.relative_to(ROOT / "tests")
    # A module with many tests may have several files: test_trace.py, test_trace_layers.py.
    folders = [module.with_name(f"{module.name}.py") for module in PACKAGE.rglob("*") if module.is_dir()]
    of_modules = {place_of_tests(module).with_suffix("") for module in [*MODULES, *folders]}
    candidates = [place.parent / place.stem.rsplit("_", cut)[0] for cut in range(place.stem.count("_"))]
    assert place in OF_ALL or of_modules & {place.with_suffix(""), *candidates}


def test_public_names_stand_once_each() -> None:
    assert len(erfattr.__all__) == len(set(erfattr.__all__))


@pytest.mark.parametrize("public", sorted({*erfattr.__all__} - {"__version__"}))
def test_public_name_is_the_packages_own_and_documented(public: str) -> None:
    value = getattr(erfattr, public)
    module = Path(*value.__module__.split(".")).with_suffix(".py")
    assert ROOT / module in MODULES
    # A class without a docstring would inherit one from Captum, so only its own counts.
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own
    assert len(own.strip().splitlines()[0]) > 10


def test_version_is_a_release_number() -> None:
    assert [part.isdigit() for part in erfattr.__version__.split(".")[:2]] == [True, True]
