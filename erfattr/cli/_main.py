"""Parse the command line, and run the command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from erfattr import __version__

_COMMANDS = ("map", "rf", "train", "compare", "debias", "attack")


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="erfattr",
        description="Which pixels a vision network really uses, and which are half dead.",
        epilog="erfattr COMMAND --help lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"erfattr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        import_module(f"erfattr.cli.options.{name}").add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 2 for input that does not serve, or 130 when interrupted."""
    options = command_parser().parse_args(arguments)
    # An OpenMP thread waits for another by spinning. Beside other work it then holds the processor that the
    # other one needs, and the run takes three times as long. Sleeping costs a quiet machine a few percent.
    # OpenMP reads this once, when torch is imported: not before the command is.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import_module(f"erfattr.cli.{options.command}").run(options)
    except KeyboardInterrupt:
        print(f"erfattr {options.command}: interrupted before its result was written", file=sys.stderr)
        return 130
    except _foreseen() as error:  # called only when something was raised
        print(f"erfattr {options.command}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _foreseen() -> tuple[type[Exception], ...]:
    """Return the errors whose message is all that a user needs."""
    from erfattr._processes import ProcessError

    return ValueError, TypeError, OSError, ImportError, ProcessError
