"""Every example runs as a user runs it, is one job of 40 lines, and ends in a fact that it asserts."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
# What an example needs beyond the package itself.
NEEDS = {
    "gradcam_debias.py": "pytorch_grad_cam",
    "hugging_face.py": "transformers",
    "monitor_training.py": "lightning",
    "pad_kernels_and_train.py": "lightning",
    "quantus_imbalance.py": "quantus",
    "timm_features.py": "timm",
    "torchmetrics_log.py": "torchmetrics",
    "use_with_quantus.py": "quantus",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = NEEDS.get(path.name)
    if needed is not None:
        # Or it does not load: OpenCV, which pytorch_grad_cam takes, wants a library of the system.
        pytest.importorskip(
            needed, reason=f"{path.name} needs {needed}, which does not load", exc_type=ImportError
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(path)])
    # In this process, since importing torch anew takes longer than most examples.
    with plt.rc_context(), torch.random.fork_rng():
        plt.switch_backend("Agg")
        code: object = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:  # one starts processes of itself and passes on how they ended
            code = end.code
        finally:
            plt.close("all")
    assert code == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_has_a_title_and_ends_in_an_asserted_fact(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    tree = ast.parse(text)
    _, title, line, *_ = ast.get_docstring(tree, clean=False).splitlines()  # type: ignore[union-attr]
    assert line == "=" * len(title)
    ends = tree.body[-1]
    while not isinstance(ends, ast.Assert):  # or the branch that a person runs does
        assert isinstance(ends, ast.If)
        ends = ends.orelse[-1]
