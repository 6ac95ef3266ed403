"""The command line: parse, call, print; nothing else. Each command has a module of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from erfattr import __version__
from erfattr._processes import ProcessError
from erfattr.cli import attack, compare, debias, map, rf, train

_COMMANDS = (map, rf, train, compare, debias, attack)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="erfattr",
        description="Which pixels a vision network really uses, and which are half dead.",
    )
    parser.add_argument("--version", action="version", version=f"erfattr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 2 for input that does not serve, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except (ValueError, TypeError, OSError, ImportError, ProcessError) as error:
        print(f"erfattr {options.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"erfattr {options.command}: interrupted before its result was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
