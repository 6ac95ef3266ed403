"""Parse the command line, and run the command."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from erfattr import __version__
from erfattr.cli.options.arguments import joined

_COMMANDS = ("map", "rf", "tiling", "train", "compare", "debias", "attack")

# What a message of the library begins with, and the options that this is about: the first that was given.
_OPTIONS = {
    "channels": ("channels",),
    "count": ("count",),
    "features": ("to_spatial",),
    "layer": ("layers", "layer"),
    "select": ("select",),
    "target": ("reach", "target"),
    "to_spatial": ("to_spatial",),
    "tokens": ("to_spatial",),
    "unit": ("unit",),
}


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(joined(sys.argv[1:] if args is None else args), namespace)


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
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
    # A file's name may hold bytes that are no text, and a terminal may know no more than ASCII.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if getattr(options, "device", None) == "auto":
            options.device = _best_device()
        import_module(f"erfattr.cli.{options.command}").run(options)
    except KeyboardInterrupt:
        print(f"erfattr {options.command}: interrupted before its result was written", file=sys.stderr)
        return 130
    except _foreseen() as error:  # called only when something was raised
        print(f"erfattr {options.command}: error: {_as_typed(str(error), options)}", file=sys.stderr)
        return 2
    return 0


def _best_device() -> str:
    """Return the word for a GPU where there is one, and say what was taken."""
    from erfattr._processes import best_device, is_first_process

    device, words = best_device()
    if is_first_process():
        print(words)
    return device


def _as_typed(message: str, options: argparse.Namespace) -> str:
    """Return a message that begins with the name of an argument with that of the option instead."""
    argument, colon, rest = message.partition(": ")
    names = [name for name in _OPTIONS.get(argument, ()) if hasattr(options, name)]
    if not colon or not names:
        return message
    name = next((name for name in names if getattr(options, name) is not None), names[-1])
    return f"--{name.replace('_', '-')}: {rest}"


def _foreseen() -> tuple[type[Exception], ...]:
    """Return the errors whose message is all that a user needs."""
    from erfattr._processes import ProcessError

    return ValueError, TypeError, OSError, ImportError, ProcessError
