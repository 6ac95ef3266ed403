"""Sphinx configuration; `make docs` builds with warnings as errors and needs no network."""

from __future__ import annotations

import sys
from pathlib import Path

import erfattr

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for linking.py
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
    "linking",
]
intersphinx_mapping = write_inventories(HERE / "_build" / "inventories")
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["glossary.css"]
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
