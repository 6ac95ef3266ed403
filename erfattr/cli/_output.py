"""The folder of results: nothing of another run is replaced unless that is asked for."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from erfattr._files import writing
from erfattr.cli._record import typed_command

# What says where and how a command runs, not what comes of it.
_NOT_OF_THE_RESULT = {
    "--output",
    "--overwrite",
    "--quiet",
    "--device",
    "--state",
    "--state-interval",
    "--workers",
    "--fail-if",
    "--batch-size",
}


def claimed(
    options: argparse.Namespace, positional: str | None = None, record: str = "result.json"
) -> AbstractContextManager[Path]:
    """Return `writing` into ``--output``, which holds nothing, this command's own result, or what may go.

    Args:
        options: What was parsed.
        positional: As `typed_command` takes it.
        record: File in which the result says what command made it.

    Raises:
        ValueError: the folder holds the result of another command, or one that does not say its own.
    """
    path: Path = options.output / record
    # Not Path.exists, which raises where a name is too long: `writing` says that.
    if os.path.exists(path) and not options.overwrite:
        theirs = _command_in(path)
        if theirs is None or _of_the_result(theirs) != _of_the_result(typed_command(options, positional)):
            whose = "a result that is not erfattr's" if theirs is None else f"the result of {_said(theirs)!r}"
            raise ValueError(
                f"--output: {str(options.output)!r} holds {whose}; --overwrite replaces it, or "
                "choose another folder"
            )
    return writing(options.output)


def _command_in(path: Path) -> list[str] | None:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        command = (saved.get("record") or saved)["command"]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return [str(word) for word in command] if isinstance(command, list) else None


def _of_the_result(command: Sequence[str]) -> list[str]:
    kept: list[str] = []
    leave = False
    for word in command:
        if word.startswith("--"):
            leave = word in _NOT_OF_THE_RESULT
        if not leave:
            kept.append(word)
    return kept


def _said(command: Sequence[str]) -> str:
    """Return a command as a person typed it, shortened: its words up to the first that is long."""
    words = shlex.join(command)
    return words if len(words) <= 120 else words[:117] + "..."
