"""The command line: parse, call, print; nothing else.

A command is two modules of its name: `erfattr.cli.options` says what can be typed and imports no torch, the
module here does it and is imported when it runs. What is computed, drawn or written lives in the rooms below.
"""

from __future__ import annotations

from erfattr.cli._main import main

__all__ = ["main"]
