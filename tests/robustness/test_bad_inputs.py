"""Every row of the table of bad inputs ends in one line, with its status, and has written nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from erfattr.cli import main
from tests.robustness.bad_inputs import COMMANDS, Row, faults, prepared, rows, run, tree

TABLE = list(rows())
# In every run of the tests one row in so many, another part of the table for each kind; all with -m robust.
ONE_IN = 7


def tried(chosen: list[Row], folder: Path) -> list[str]:
    """Return what is wrong with the rows that do not end as they should."""
    wrong = []
    with prepared(folder):
        before = tree(folder)
        for row in chosen:
            ended = run(row.words, main)
            after = tree(folder)
            found = faults(row, ended, before, after)
            if found:
                wrong.append(f"{row.name}: {'; '.join(found)}\n{ended.errors[-500:]}")
            before = after
    return wrong


def of_command(command: str) -> list[Row]:
    return [row for row in TABLE if (row.words or ("map",))[0] in (command, *({"draw"} & {command}))]


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(TABLE) >= 300
    assert len({row.words for row in TABLE}) > 0.95 * len(TABLE)
    assert all(len(of_command(command)) >= 25 for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_part_of_the_table(command: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    assert tried([row for row in of_command(command) if row.quick][::ONE_IN], tmp_path) == []


@pytest.mark.robust
@pytest.mark.parametrize("command", COMMANDS)
def test_the_whole_table(command: str, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs the extra test")
    assert tried(of_command(command), tmp_path) == []


IN_PROCESSES = [row for row in TABLE if row.quick and "\x00" not in "".join(row.words)][:: len(TABLE) // 30]


@pytest.mark.robust
@pytest.mark.parametrize("row", IN_PROCESSES, ids=lambda row: row.name)
def test_a_process_ends_so_too(row: Row, tmp_path: Path) -> None:
    with prepared(tmp_path):
        before = tree(tmp_path)
        ended = subprocess.run(
            [sys.executable, "-m", "erfattr", *row.words],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=120,
        )
        lines = [line for line in ended.stderr.decode().replace("\r", "\n").splitlines() if "error: " in line]
        assert ended.returncode == row.status
        assert len(lines) == 1
        assert row.says in lines[0]
        assert b"Traceback" not in ended.stderr
        assert tree(tmp_path) == before
