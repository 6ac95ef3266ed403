"""Sphinx configuration; `make docs` builds with warnings as errors and needs no network."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import erfattr

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for our own two
import gallery_pages  # noqa: E402
from linking import write_inventories  # noqa: E402

project = "erfattr"
author = "The erfattr authors"
copyright = "2026, The erfattr authors"
version = release = erfattr.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    # Brings MathJax into the pages, which ask for nothing from outside. Listed by the name of its folder.
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
    "linking",
]
intersphinx_mapping = write_inventories(HERE / "_build" / "inventories")
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py"]
templates_path = ["_templates"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css", "glossary.css"]
html_title = f"erfattr {version}"

# Single backticks in docstrings name Python objects, and are plain code where they name nothing.
default_role = "obj"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The API pages list every public module on disk: one that is added appears by itself.
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The gallery runs an example when its text has changed since the last build; `make clean` forgets them all.
sphinx_gallery_conf = {
    "examples_dirs": "_build/examples",
    "gallery_dirs": "gallery",
    "filename_pattern": gallery_pages.stage(),
    "subsection_order": [f"_build/examples/{name}" for name, *_ in gallery_pages.SECTIONS],
    "within_subsection_order": "gallery_pages.InOrder",
    # Ours first: the other one closes pyplot's figures, and then they look like ours.
    "image_scrapers": ("gallery_pages.figures", "matplotlib"),
    "capture_repr": (),
    "remove_config_comments": True,
    # Under each object's page: the examples that use it.
    "doc_module": ("erfattr",),
    "backreferences_dir": "gallery/backreferences",
    "write_computation_times": False,
    "download_all_examples": False,
    "show_signature": False,
}
logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every letter that it puts into a PDF
# What other libraries warn of is no lesson of an example, and names folders of this machine.
warnings.filterwarnings("ignore", module="(captum|lightning|matplotlib)")
warnings.filterwarnings("ignore", message="`isinstance.treespec, LeafSpec.` is deprecated")
warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
warnings.filterwarnings("ignore", message=".*non-interactive, and thus cannot be shown")
