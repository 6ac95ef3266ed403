"""Colours are plain numbers, at hand before torch is."""

from __future__ import annotations

import subprocess
import sys

from erfattr.datasets.colors import BLACK, RED


def test_colours_of_the_paper() -> None:
    assert (BLACK, RED) == ((0, 0, 0), (255, 0, 0))


def test_no_torch_is_imported() -> None:
    code = "import sys, erfattr.datasets.colors; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
