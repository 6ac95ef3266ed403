"""Parse the command line, and run the command."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

from erfattr import __version__
from erfattr._checks import suggest
from erfattr.cli._failures import Signals, meaningful, say, told
from erfattr.cli._lists import SHELLS, ListModels, PrintCompletion
from erfattr.cli.options.arguments import joined
from erfattr.cli.options.groups import ON_CPU, ON_GPU, HelpFormatter

_COMMANDS = ("map", "rf", "figure", "report", "diagnose", "tiling", "train", "compare", "debias", "attack")


class _Parser(argparse.ArgumentParser):
    """Takes numbers in several words, and suggests what a mistyped word may have meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(joined(sys.argv[1:] if args is None else args), namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all words; those that no option takes are an error with suggestions."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = _options_of(self, getattr(found, "command", None))
            nearest = "".join(suggest(word.partition("=")[0], known) for word in unknown if word[:1] == "-")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{nearest}")
        return found

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and the nearest of the words that can be chosen."""
        message = re.sub(r"^argument -\w/--", "argument --", message)
        match = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)$", message)
        if match is not None:
            message += suggest(match[1], re.findall(r"[^\s',]+", match[2]))
        super().error(message)


def _options_of(parser: argparse.ArgumentParser, command: str | None) -> list[str]:
    """Return the options of a command, or those of none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and command in action.choices:
            parser = action.choices[command]
    return [word for word in parser._option_string_actions if word.startswith("--")]


class _Parsed(NamedTuple):
    """A command line that can be typed.

    Attributes:
        options: What it says.
        debug: Whether errors are shown with their traceback.
        verbose: Whether it is printed how the command ran.
        positional: What the usage calls the options without a name, by their destination.
        check: Raises where options do not go together.
    """

    options: argparse.Namespace
    debug: bool
    verbose: bool
    positional: dict[str, str]
    check: Callable[[], None]


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    return _parsers()[0]


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of all commands, and that of each."""
    parser = _Parser(
        prog="erfattr",
        description="Which pixels a vision network really uses, and which are half dead.",
        epilog="erfattr COMMAND --help lists the options of a command, with an example.\n\n"
        "Exit status: 0 done, 1 the run failed, 2 the input does not serve, 3 what --fail-if names holds, "
        "130 interrupted.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"erfattr {__version__}")
    parser.add_argument(
        "--list-models",
        nargs="?",
        const="",
        metavar="WORD",
        action=ListModels,
        default=argparse.SUPPRESS,
        help="list the networks that --model takes, or those with WORD in their name, and exit",
    )
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=PrintCompletion,
        default=argparse.SUPPRESS,
        help="print what makes this shell complete erfattr's words, and exit (needs shtab)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in _COMMANDS:
        import_module(f"erfattr.cli.options.{name}").add(commands)
    for command in commands.choices.values():
        command.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print with which versions and how many threads it ran, how long, and the memory it took",
        )
        command.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # so it is no part of a run's record
            help="show the traceback of an error (ERFATTR_DEBUG=1 does as well)",
        )
    return parser, dict(commands.choices)


def _parsed(arguments: Sequence[str] | None) -> _Parsed:
    parser, commands = _parsers()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        parser.exit()
    command = commands[options.command]
    debug = vars(options).pop("debug", False) or os.environ.get("ERFATTR_DEBUG", "") not in ("", "0")
    verbose = vars(options).pop("verbose", False)
    positional = {
        action.dest: str(action.metavar or action.dest)
        for action in command._actions
        if not action.option_strings
    }
    # What the parser cannot say of one option alone; most commands have it.
    check = getattr(import_module(f"erfattr.cli.options.{options.command}"), "check", None)
    return _Parsed(options, debug, verbose, positional, lambda: check and check(options, command.get_default))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The status of the process: 0; 1 for a run that failed; 2 for input that does not serve; 3 where what
        ``--fail-if`` names holds; 130, 143 or 129 when Ctrl-C, SIGTERM or SIGHUP ended it.
    """
    with Signals() as signals:
        command = ""
        debug = False
        try:
            options, debug, verbose, positional, check = _parsed(arguments)
            command = f" {options.command}"
            check()
            begun = time.perf_counter()
            status = _run(options)
            if verbose:
                _print_how(time.perf_counter() - begun)
            return status
        except BaseException as error:
            if not command and isinstance(error, SystemExit):  # argparse has said it
                raise
            if debug:
                raise
            if signals.received or isinstance(error, KeyboardInterrupt):
                say(f"erfattr{command}: {signals.words} before its result was written")
                return signals.status
            if isinstance(error, BrokenPipeError):  # such as `erfattr rf demo | head`: nobody reads on
                _drop_output()
                return 141
            if not command:
                raise
            failure = told(error, options, positional)
            say(f"erfattr{command}: error: {failure.line}")
            _drop_output()
            return failure.status


def _run(options: argparse.Namespace) -> int:
    # An OpenMP thread waits for another by spinning. Beside other work it then holds the processor that the
    # other one needs, and the run takes three times as long. Sleeping costs a quiet machine a few percent.
    # OpenMP reads this once, when torch is imported: not before the command is.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A file's name may hold bytes that are no text, and a terminal may know no more than ASCII.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(
            f"erfattr {options.command}: warning: {meaningful(message)}"
        )
        # What lmfit before 1.3 makes of a parameter that is held: nothing that a user could act on.
        warnings.filterwarnings("ignore", message="Using UFloat objects with std_dev==0")
        if getattr(options, "device", None) == "auto":
            options.device = _best_device(quiet=options.quiet)
        if getattr(options, "batch_size", 1) is None:
            # A batch that a GPU's memory does not hold is run in parts.
            options.batch_size = ON_CPU if options.device == "cpu" else ON_GPU
        status: int | None = import_module(f"erfattr.cli.{options.command}").run(options)
    if sys.stdout is not None:
        sys.stdout.flush()  # here, where what goes wrong can still be said
    return status or 0


def _print_how(seconds: float) -> None:
    """Say with what the command ran, and what it took: beside its output, which another program may read."""
    from erfattr._files import environment
    from erfattr._processes import is_first_process

    if not is_first_process():
        return
    used = environment()
    versions = ", ".join(f"{name} {number}" for name, number in used["versions"].items())
    threads = used["torch_threads"]
    took = f"{seconds:.1f} s"
    with suppress(ImportError):  # Windows has no such module
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took += f", {peak / (1e6 if sys.platform == 'darwin' else 1e3):,.0f} MB of memory at most"
    say(f"Python {used['python']} on {used['platform']}, {threads} thread{'s' * (threads != 1)}")
    say(versions)
    say(f"took {took}")


def _best_device(*, quiet: bool) -> str:
    """Return the word for a GPU where there is one, and say what was taken."""
    from erfattr._processes import best_device, is_first_process

    device, words = best_device()
    if is_first_process() and not quiet:
        print(words)
    return device


def _drop_output() -> None:
    """Let what is left to print go nowhere, if it cannot be printed: Python would complain as it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
