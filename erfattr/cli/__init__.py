"""The command line: parse, call, print; nothing else.

A command is two modules of its name: `erfattr.cli.options` says what can be typed and imports no torch, the
module here does it and is imported when it runs. What is computed, drawn or written lives in the rooms below.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `erfattr.cli._main.main`."""
    try:
        from erfattr.cli._main import main as run
    except KeyboardInterrupt:
        return 130  # nothing has begun, and nothing is to be said
    return run(arguments)


__all__ = ["main"]
