"""The command line as a whole: usage, what is imported when, interruptions, the environment of a run."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import erfattr
from erfattr.cli import main
from erfattr.cli._main import command_parser

COMMANDS = ("map", "rf", "figure", "report", "diagnose", "tiling", "train", "compare", "debias", "attack")
# What takes seconds to import.
HEAVY = ("torch", "torchvision", "numpy", "scipy", "matplotlib", "skimage", "lmfit", "captum", "lightning")
# Runs the command line on the words that follow, and says in the last line what it has imported.
IMPORTS = """
import sys
from erfattr.cli import main
try:
    sys.exit(main())
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""

# Runs the command line until torch is looked for, and says what OpenMP, which comes with it, would read.
STOP_AT_TORCH = """
import os, sys
from erfattr.cli import main
class Finder:
    def find_spec(name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY", "not set"), file=sys.stderr, flush=True)
            os._exit(0)
sys.meta_path.insert(0, Finder)
main()
"""


def run(*words: object) -> int:
    return main([str(word) for word in words])


def imported_by(*words: str) -> tuple[int, set[str]]:
    """Return the exit status of a command of its own process, and the packages that it imported."""
    ended = subprocess.run([sys.executable, "-c", IMPORTS, *words], capture_output=True, text=True)
    return ended.returncode, set(ended.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--help",), 0),
        (("--version",), 0),
        *(((command, "--help"), 0) for command in COMMANDS),
        ((), 0),
        (("draw",), 2),
        (("rf",), 2),
        (("map", "--no-such-option"), 2),
        (("map", "--count", "many"), 2),
        (("train", "--recipe", "micro_object"), 2),
    ],
)
def test_what_needs_no_computing_imports_nothing_heavy(words: tuple[str, ...], status: int) -> None:
    returned, imported = imported_by(*words)
    assert returned == status
    assert "erfattr" in imported
    assert imported.isdisjoint(HEAVY)


def test_a_command_imports_what_it_needs() -> None:
    # So that the test above would see it.
    returned, imported = imported_by("rf", "no-such-model")
    assert returned == 2
    assert {"torch", "numpy"} <= imported


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "] == list(COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--version")
    assert capsys.readouterr().out == f"erfattr {erfattr.__version__}\n"


@pytest.mark.parametrize("words", [("map", "--unit", "3"), ("map", "--count", "0"), ("rf",), ("draw",)])
def test_bad_words_show_the_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: erfattr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("mpa",), "; nearest: map"),
        (("map", "--coutn", "5"), "unrecognized arguments: --coutn 5; nearest: --count"),
        (("map", "--rectify", "rleu"), "; nearest: relu"),
        (("rf", "resnet18", "--dpeth=1"), "--dpeth=1; nearest: --depth"),
    ],
)
def test_mistyped_words_get_suggestions(
    words: tuple[str, ...], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert nearest in capsys.readouterr().err


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: erfattr")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_can_be_typed(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(command, "--help")
    shown = capsys.readouterr().out
    lines = shown[shown.index("\nExample") :].splitlines()[2:]
    examples = [line.partition("#")[0].strip() for line in lines if line.startswith("  erfattr ")]
    assert examples
    for example in examples:
        command_parser().parse_args(shlex.split(example)[1:])


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    words = [sys.executable, "-c", STOP_AT_TORCH, "rf", "demo"]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert ended.stderr == f"{found}\n"


def test_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("erfattr.attr.sensitivity_maps.SensitivityMaps.attribute", stop)
    assert run("map", "--count", 1, "--output", tmp_path / "out") == 130
    assert "interrupted before its result was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_of_the_installed_module() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "erfattr", "map", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--model", "--weights", "--layers", "--unit", "--images", "--output", "--strict"):
        assert option in shown


def test_verbose_says_how_the_command_ran(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rf", "demo", "--size", "64", "--layer", "conv1"]) == 0
    plain = capsys.readouterr()
    assert main(["rf", "demo", "--size", "64", "--layer", "conv1", "--verbose"]) == 0
    more = capsys.readouterr()
    assert more.out == plain.out  # which may be JSON for another program
    assert plain.err == ""
    machine, versions, took = more.err.splitlines()
    assert machine.startswith(f"Python {platform.python_version()} on ")
    assert f"torch {version('torch')}" in versions
    assert re.fullmatch(r"took \d+\.\d s(, [\d,]+ MB of memory at most)?", took)
