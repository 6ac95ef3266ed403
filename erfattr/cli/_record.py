"""What several commands say of a run: the record that repeats it, the files that it wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from erfattr.models.loading import ModelInfo
from erfattr.report.text_table import text_table

# Of what a record holds; a field that changes its meaning makes it one more.
SCHEMA_VERSION = 1


def begun_record(
    options: argparse.Namespace, started: datetime, info: ModelInfo, positional: str | None = None
) -> dict[str, Any]:
    """Return what every record begins with: the command, when it was started, the model."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": typed_command(options, positional),
        "date": started.isoformat(timespec="seconds"),
        "model": asdict(info),
    }


def typed_command(options: argparse.Namespace, positional: str | None = None) -> list[str]:
    """Return the command as it would be typed, defaults and all.

    Args:
        options: What was parsed.
        positional: The option that is typed before the others, without its name.
    """
    words = ["erfattr", options.command]
    if positional is not None:
        typed = getattr(options, positional)
        words += map(str, typed if isinstance(typed, list) else [typed])
    for key, value in vars(options).items():
        flag = f"--{key.replace('_', '-')}"
        if key in ("command", positional) or value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            # An option that was given several times is a list of lists.
            times = value if value and isinstance(value[0], list) else [value] if value else []
            for once in times:
                words += [flag, *map(str, once)]
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words


def print_written(folder: Path, names: Iterable[str]) -> None:
    """Say where the files are."""
    print(f"written to {folder}:")
    for name in names:
        print(f"  {folder / name}")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, headings first: drawn by rich on a terminal where it is installed, plain elsewhere."""
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.markup import escape
            from rich.table import Table
        except ImportError:
            pass
        else:
            table = Table(box=None, header_style="bold", pad_edge=False)
            for heading in rows[0]:
                table.add_column(heading, no_wrap=True)
            for row in rows[1:]:
                table.add_row(*map(escape, row))
            Console().print(table)
            return
    print(text_table(rows))
