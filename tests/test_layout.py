"""The rules of the house: direction of imports, names of modules, no printing, one test file per module."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import erfattr

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "erfattr"

# A module imports only from modules above it. A new module takes its place here first.
ORDER = [
    "_checks",
    "_batches",
    "_model",
    "_processes",
    "_provenance",
    "_operators",
    "_tracing",
    "receptive_field",
    "statistics",
    "imbalance",
    "_jackknife",
    "noise",
    "significance",
    "relief",
    "gaussian_fit",
    "sizes",
    "model_changes",
    "kernel_padding",
    "downsampling",
    "_cone",
    "execution",
    "sources",
    "_run",
    "sensitivity",
    "erf",
    "dead_pixels",
    "calibration",
    "debias",
    "pixel_search",
    "pixel_trials",
    "_pixel_attack",
    "attack",
    "datasets",
    "cub",
    "augmented_images",
    "micro_objects",
    "_checkpoint",
    "models",
    "_map_image",
    "plotting",
    "state_file",
    "calibration_file",
    "report",
    "debias_report",
    "attack_report",
    "recipes",
    "training_data",
    "_fitting",
    "training",
    "variants",
    "pixel_use",
    "curves",
    "comparison",
    "_command_line",
    "_command_map",
    "_command_rf",
    "_command_train",
    "_command_compare",
    "_command_debias",
    "_command_attack",
    "cli",
    "__main__",
]
# These take a map or a mask as a tensor, from wherever it came.
MAP_TAKERS = {"debias", "attack"}
MAP_MAKERS = {"erf", "dead_pixels"}
# Names that say nothing about what a module holds.
EMPTY_NAMES = {"base", "common", "core", "helper", "helpers", "misc", "tools", "util", "utils"}
FILE_MODULES = {"glob", "io", "os", "os.path", "pathlib", "pickle", "shutil", "tempfile"}

SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
ABOVE_DATASETS = ORDER[: ORDER.index("datasets")]


def tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text(encoding="utf-8"))


def imported_modules(module: ast.Module) -> set[str]:
    """Return what is imported anywhere in a module, also inside functions and for types only."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Relative imports are in no module: a leading dot makes a name that is in no list.
            origin = "." * node.level + (node.module or "")
            found |= {f"{origin}.{alias.name}" if origin == "erfattr" else origin for alias in node.names}
    return found


def erfattr_imports(module: ast.Module) -> set[str]:
    names = {name for name in imported_modules(module) if name.split(".")[0] in ("erfattr", "")}
    return {name.removeprefix("erfattr.") for name in names}


def calls(module: ast.Module) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import erfattr.cli", {"cli"}),
        ("from erfattr import cli", {"cli"}),
        ("from erfattr.cli import main", {"cli"}),
        ("def f():\n    from erfattr.erf import ERF", {"erf"}),
        ("if TYPE_CHECKING:\n    from erfattr.erf import ERF", {"erf"}),
        ("import erfattr", {"erfattr"}),
        ("from . import cli", {"."}),
        ("from .cli import main", {".cli"}),
        ("import torch\nfrom erfattrs import x", set()),
    ],
)
def test_imports_are_seen_in_every_spelling(source: str, expected: set[str]) -> None:
    assert erfattr_imports(ast.parse(source)) == expected


def test_every_module_has_its_place_in_the_order() -> None:
    assert set(SOURCES) - set(ORDER) == set()
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("name", SOURCES)
def test_module_imports_only_from_above(name: str) -> None:
    above = ORDER[: ORDER.index(name)]
    wrong = erfattr_imports(tree(name)) - set(above)
    # The package itself and relative imports hide what is imported, so they count as wrong too. Only the last
    # module may ask the package for its version.
    if name in ("report", "cli"):
        wrong -= {"__version__"}
    assert wrong == set(), f"{name} imports {sorted(wrong)}, which stand below it or nowhere"


def test_what_takes_a_map_does_not_import_what_makes_one() -> None:
    imports = {name: erfattr_imports(tree(name)) & MAP_MAKERS for name in MAP_TAKERS & set(SOURCES)}
    assert {name: found for name, found in imports.items() if found} == {}


def test_module_names_say_what_the_modules_hold() -> None:
    words = {name: set(name.strip("_").split("_")) | set(name.split(".")) for name in SOURCES}
    assert {name for name, parts in words.items() if parts & EMPTY_NAMES} == set()


@pytest.mark.parametrize(
    "name", [name for name in SOURCES if name != "cli" and not name.startswith("_command_")]
)
def test_only_the_command_line_prints(name: str) -> None:
    assert "print" not in calls(tree(name))


@pytest.mark.parametrize("name", [name for name in SOURCES if name in ABOVE_DATASETS])
def test_modules_above_datasets_touch_no_files(name: str) -> None:
    module = tree(name)
    assert "open" not in calls(module)
    assert imported_modules(module) & FILE_MODULES == set()


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("_")])
def test_every_public_module_has_a_test_file(name: str) -> None:
    assert (ROOT / "tests" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_says_what_it_holds_and_delays_annotations(name: str) -> None:
    module = tree(name)
    assert ast.get_docstring(module)
    imports = [node for node in module.body if isinstance(node, ast.ImportFrom)]
    delayed = {alias.name for node in imports if node.module == "__future__" for alias in node.names}
    assert "annotations" in delayed or not any(isinstance(node, ast.FunctionDef) for node in ast.walk(module))


def test_package_itself_holds_names_and_no_logic() -> None:
    module = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    kinds = {type(node) for node in module.body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}


def test_public_names_are_imported_once_each_and_nothing_else_is_public() -> None:
    names = erfattr.__all__
    assert len(names) == len(set(names))
    submodules = set(SOURCES)
    visible = {name for name in vars(erfattr) if not name.startswith("_")} - submodules - {"annotations"}
    assert visible == set(names) - {"__version__"}


@pytest.mark.parametrize("name", erfattr.__all__)
def test_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(erfattr, name)
    if name == "__version__":
        assert isinstance(value, str)
        return
    assert value.__module__.removeprefix("erfattr.") in SOURCES
    # A class without a docstring would inherit one from Captum, so only its own counts.
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own
    assert len(own.strip().splitlines()[0]) > 10


def test_version_is_a_release_number() -> None:
    assert [part.isdigit() for part in erfattr.__version__.split(".")[:2]] == [True, True]
