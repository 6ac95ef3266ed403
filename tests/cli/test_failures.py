"""One line for every failure: what failed, where, what to try; and its status."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from erfattr._checks import check_positive_int
from erfattr.cli import main
from erfattr.cli._failures import Failure, is_refusal, meaningful, naming, told

OPTIONS = Namespace(command="map", model="demo", batch_size=8, size=None, target="predicted", state=None)


def raised(action: object, *arguments: object) -> BaseException:
    try:
        action(*arguments)  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError


def test_a_refusal_is_shown_as_it_is_under_the_name_of_its_option() -> None:
    error = raised(check_positive_int, "batch_size", 0)
    assert is_refusal(error)
    assert told(error, OPTIONS, {}) == Failure("--batch-size: expected a positive integer, got 0", 2)
    assert told(error, OPTIONS, {"batch_size": "N"}).line.startswith("N: expected")
    assert told(raised(check_positive_int, "layers", 0), OPTIONS, {}).status == 1  # no option of this one


def test_an_argument_that_is_called_otherwise() -> None:
    def act() -> None:
        with naming(path="--state"), naming(path="--map"):
            check_positive_int("path", 0)

    assert told(raised(act), OPTIONS, {}).line == "--map: expected a positive integer, got 0"  # the innermost


def test_an_error_of_someone_else_says_where() -> None:
    line = sys._getframe().f_lineno + 3

    def act() -> None:
        raise RuntimeError("first\nsecond")

    failure = told(raised(act), OPTIONS, {})
    assert failure.status == 1
    assert failure.line.startswith("RuntimeError: first (")
    assert failure.line.endswith(f"{Path(__file__).name}, line {line}); --debug shows the traceback")


def test_torch_says_a_line_and_no_place_of_its_own() -> None:
    failure = told(raised(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 1, 8, 8)), OPTIONS, {})
    assert failure.line.startswith("the model failed: RuntimeError: Given groups=1, weight of size")
    assert "/torch/" not in failure.line
    assert "; if it wants other images, give --size; --debug" in failure.line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", ""),
        ("\n one \ntwo", "one"),
        ("Error(s) in loading:\n\tmissing a", "Error(s) in loading: missing a"),
        (
            "The following failed:\nTraceback of TorchScript\n  code\nRuntimeError: too small\n",
            "RuntimeError: too small",
        ),
        ("[enforce fail at alloc.cpp:9] err == 0. DefaultCPUAllocator: can't allocate", "can't allocate"),
        ("x" * 1000, "x" * 597 + "..."),
        ("a\x1b[2J", "a\\x1b[2J"),
    ],
)
def test_the_line_that_says_something(message: str, line: str) -> None:
    assert meaningful(RuntimeError(message)) == line


def test_memory_that_runs_out_names_what_helps() -> None:
    failure = told(raised(torch.empty, 10**15), OPTIONS, {})
    assert failure.status == 1
    assert failure.line.startswith("out of memory: can't allocate memory")
    assert failure.line.endswith("; a smaller --batch-size or --size may do")


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_traceback_is_there_for_who_asks(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "environment":
        monkeypatch.setenv("ERFATTR_DEBUG", "1")
    with pytest.raises(ValueError, match="name: expected 'demo'"):
        main(["rf", "nope", *(["--debug"] if how == "option" else [])])
