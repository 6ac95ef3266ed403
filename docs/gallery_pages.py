"""The gallery: which example stands in which section, and what Sphinx-Gallery has to be told.

Sphinx-Gallery runs an example in the folder where it lies and wants a header in each folder. So the examples
are copied to a folder that git ignores, one folder a section, and what they write stays there.
"""

from __future__ import annotations

import ast
import importlib
import shutil
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_DOCS = Path(__file__).resolve().parent
EXAMPLES = _DOCS.parent / "examples"
STAGED = _DOCS / "_build" / "examples"
GALLERY = _DOCS / "gallery"

HEADER = """\
Gallery
=======

Each picture was drawn by a script of at most 40 lines when these pages were built. Click one. Its page has
the script, what it prints, and a notebook to download. The scripts lie in the folder `examples` of the
repository. They need no data and no weights beyond what ships with the package. Where one needs another
library, it says so.

.. code-block:: sh

    python examples/erf_figure.py                    # run one; needs: pip install .
    MPLBACKEND=Agg python examples/erf_figure.py     # the same without a screen
"""

# Folder, title, one sentence, examples in the order of their thumbnails.
SECTIONS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "look",
        "Look",
        "Which pixels does my network use?",
        (
            "erf_figure",
            "find_dead_pixels",
            "transformer",
            "segmentation",
            "detection",
            "hugging_face",
            "how_many_images",
            "large_images",
            "many_gpus",
        ),
    ),
    (
        "compare",
        "Compare",
        "Which of two networks is better, and does training or a change of code make it worse?",
        ("compare_two_networks", "choose_a_stem", "monitor_training", "numbers_in_ci"),
    ),
    (
        "correct",
        "Correct",
        "Get rid of the grid, or use it.",
        ("debias_saliency", "pad_kernels_and_train", "attack_strong_pixels"),
    ),
    (
        "toolkits",
        "With other toolkits",
        "How little it takes beside the tools that you have.",
        (
            "captum_layers",
            "attack_comparator",
            "gradcam_debias",
            "quantus_imbalance",
            "use_with_quantus",
            "timm_features",
            "torchmetrics_log",
        ),
    ),
)


def stage() -> str:
    """Copy the examples into their sections.

    Returns:
        A pattern of the files that can be run here.
    """
    shutil.rmtree(STAGED, ignore_errors=True)
    STAGED.mkdir(parents=True)
    (STAGED / "GALLERY_HEADER.rst").write_text(HEADER, encoding="utf-8")
    run = []
    for folder, title, sentence, names in SECTIONS:
        (STAGED / folder).mkdir()
        header = f"{title}\n{'-' * len(title)}\n\n{sentence}\n"
        (STAGED / folder / "GALLERY_HEADER.rst").write_text(header, encoding="utf-8")
        for name in names:
            text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
            shown = GALLERY / folder / f"{name}.py"
            if not (shown.exists() and shown.read_text(encoding="utf-8") == text) and (lacks := _lacks(text)):
                said = f"\nNot run when these pages were built: {lacks} does not load there.\n"
                first, docstring, rest = text.split('"""', 2)
                text = f'{first}"""{docstring}{said}"""{rest}'
                text += "# sphinx_gallery_dummy_images=1\n"  # pages that show its picture show a blank one
            else:
                run.append(name)
            (STAGED / folder / f"{name}.py").write_text(text, encoding="utf-8")
    return rf"[/\\]({'|'.join(run)})\.py$"


def _lacks(text: str) -> str | None:
    """Return the first library that an example imports and that does not load here."""
    for node in ast.parse(text).body:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for module in modules:
            try:
                importlib.import_module(module)
            except ImportError:
                return module.partition(".")[0]
    return None


class InOrder:
    """Sorts the examples of a section as `SECTIONS` lists them."""

    def __init__(self, *_: Any) -> None:
        self.order = [name for section in SECTIONS for name in section[3]]

    def __call__(self, filename: str) -> int:
        return self.order.index(Path(filename).stem)


def figures(_block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figures that erfattr made itself: Sphinx-Gallery takes those of pyplot alone."""
    from sphinx_gallery.scrapers import figure_rst

    paths = []
    for value in block_vars["example_globals"].values():
        if isinstance(value, Figure) and not hasattr(value, "in_gallery"):
            value.in_gallery = True  # type: ignore[attr-defined]  # later blocks see it again
            if value.canvas.manager is None:
                paths.append(next(block_vars["image_path_iterator"]))
                value.savefig(paths[-1], dpi=200)
    return figure_rst(paths, gallery_conf["src_dir"])
