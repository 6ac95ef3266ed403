"""Every example runs as a user runs it, and ends in a fact that it asserts."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))
# What an example needs beyond the package itself.
NEEDS = {"pad_kernels_and_train.py": "lightning", "use_with_quantus.py": "quantus"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    needed = NEEDS.get(path.name)
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"{path.name} needs {needed}, which is not installed")
    environment = os.environ | {"MPLBACKEND": "Agg"}
    run = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_ends_in_an_asserted_fact(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert text.startswith("# %%")
    assert isinstance(ast.parse(text).body[-1], ast.Assert)
