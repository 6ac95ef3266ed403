"""The oldest versions are read off pyproject.toml, not written down a second time."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def oldest(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("oldest")


def project(folder: Path, requirement: str) -> Path:
    path = folder / "pyproject.toml"
    lines = [
        *("[project]", "name = 'it'", f"dependencies = ['{requirement}']", "[project.optional-dependencies]"),
        *("report = []", """train = ['lightning>=2.6; python_version > "3"']"""),
        "test = ['it[report,train]', 'big>=6']",
    ]
    path.write_text("\n".join(lines))
    return path


def test_lower_bounds_become_the_last_release_of_their_series(oldest: Any, tmp_path: Path) -> None:
    pins = list(oldest.pins(project(tmp_path, "torch>=2.4")))
    assert pins == ["torch==2.4.*", "lightning==2.6.*", "big>=6"]


@pytest.mark.parametrize("requirement", ["torch", "torch~=2.4", "torch>=2.4,<3"])
def test_what_has_no_plain_lower_bound_is_refused(oldest: Any, tmp_path: Path, requirement: str) -> None:
    with pytest.raises(ValueError, match=r"pyproject\.toml: expected .*torch"):
        list(oldest.pins(project(tmp_path, requirement)))


def test_this_project_declares_a_lower_bound_of_everything(oldest: Any) -> None:
    pins = list(oldest.pins(oldest.PROJECT))
    assert {pin.partition("=")[0] for pin in pins} >= {"torch", "captum", "matplotlib", "lightning"}
    assert not any(pin.startswith("torch==2.13") for pin in pins)
