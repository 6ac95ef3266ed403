"""Inputs that have a structure, drawn at random: what is refused is refused in one line, by a known error."""

from __future__ import annotations

import contextlib
import io
import json
import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from torch import Tensor

import erfattr
from erfattr._files import StateFile, plain, read_sealed_json, read_whole, write_sealed_json, write_whole
from erfattr.attr.calibration_file import load_calibration
from erfattr.cli import main
from erfattr.cli._main import _options_of, command_parser
from erfattr.cli.options.conditions import NUMBERS, condition
from erfattr.metrics.gaussian_fit import GaussianFitError
from erfattr.metrics.imbalance import local_mean
from erfattr.metrics.statistics import StreamingStatistics
from erfattr.training.recipes import Recipe, find_recipe
from tests.robustness.bad_inputs import COMMANDS

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
SLOWER = settings(QUICK, max_examples=25)

NUMBERS_OF_ALL_KINDS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 1, 2**31, 2**63, 1e308, -0.0]), st.booleans()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), NUMBERS_OF_ALL_KINDS, st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def in_one_line(error: Exception) -> bool:
    said = str(error)
    return bool(said) and "\n" not in said and len(said) < 1000


def answered(call: Callable[[], Any]) -> Any:
    """Return what a call returns; ``None`` where it refuses as it should. Any other error is a fault."""
    refusal: Exception | None = None
    try:
        return call()
    except (TypeError, ValueError, ArgumentTypeError, GaussianFitError) as error:
        refusal = error
    assert in_one_line(refusal), str(refusal)
    return None


# --- the command line


def ended(call: Callable[[], int]) -> tuple[int, str, str]:
    """Return the status that a process would end with, and what it says and prints."""
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            status: Any = call()
        except SystemExit as stop:
            status = stop.code
    return status, errors.getvalue(), output.getvalue()


def words_of(command: str) -> st.SearchStrategy[list[str]]:
    """Options of a command, and what may stand behind them."""
    options = [word for word in _options_of(command_parser(), command) if word != "--help"]
    values = st.one_of(
        NUMBERS_OF_ALL_KINDS.map(str),
        st.text(max_size=8),
        st.sampled_from(
            ["1,2", "1x1", "0,0", "demo", "center", "L1 > 1", "nan", "inf", "1e400", "½", "٣", ""]
        ),
    )
    return st.lists(st.one_of(st.sampled_from(options), values), max_size=5).map(
        lambda rest: [command, *rest]
    )


@QUICK
@given(st.sampled_from(COMMANDS).flatmap(words_of))
def test_words_are_understood_or_refused_in_one_line(words: list[str]) -> None:
    def parsed() -> int:
        command_parser().parse_args(words)
        return 0

    status, errors, _ = ended(parsed)
    assert status in (0, 2)
    if status == 2:
        said = [line for line in errors.split("\n") if ": error: " in line]
        assert len(said) == 1
        assert not errors.split(said[0])[1].strip()


@SLOWER
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "--layer": st.one_of(st.sampled_from(["layer3", "layer9", "", "layer1.0"]), st.text(max_size=8)),
            "--size": st.one_of(st.integers(-2, 4000).map(str), st.text(max_size=5)),
            "--channels": st.one_of(st.integers(-2, 9).map(str), st.text(max_size=3)),
            "--depth": st.one_of(st.integers(-2, 9).map(str), st.text(max_size=3)),
        },
    )
)
def test_a_command_that_runs_ends_as_it_says(chosen: dict[str, str]) -> None:
    words = ["rf", "demo", *(f"{option}={value}" for option, value in chosen.items())]
    status, errors, output = ended(lambda: main(words))
    said = [line for line in errors.split("\n") if ": error: " in line]
    assert (status, len(said)) in ((0, 0), (2, 1), (1, 1))
    assert bool(output) == (status == 0)


@QUICK
@given(
    st.one_of(
        st.text(max_size=20),
        st.builds(
            "{}{}{}{}{}".format,
            st.sampled_from(["", "output: ", "layer4:", " : ", "a b: "]),
            st.sampled_from([*NUMBERS, "L3", ""]),
            st.sampled_from([" > ", "<=", "==", "", " < > "]),
            NUMBERS_OF_ALL_KINDS,
            st.sampled_from(["", " ", "px"]),
        ),
    )
)
def test_conditions_are_read_back_as_they_were_read(text: str) -> None:
    read = answered(lambda: condition(text))
    if read is None:
        return
    assert read.number in NUMBERS
    assert math.isfinite(read.limit)
    assert condition(str(read))[:3] == read[:3]


# --- recipes


@QUICK
@given(st.dictionaries(st.sampled_from([*(f.name for f in fields(Recipe)), "wrong"]), VALUES, max_size=3))
def test_settings_of_a_recipe(changes: dict[str, Any]) -> None:
    made = answered(lambda: find_recipe("micro_object", **changes))
    if made is not None:
        assert json.loads(json.dumps(made.numbers()))  # what is accepted can be recorded
        assert 0 < made.target < 100
        assert made.epochs >= 1


# --- files of ours that fit their digest, and hold something else


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-3, 3),
        st.floats(),
        st.text(max_size=4),
        st.sampled_from([torch.zeros(()), torch.ones(2, 3), torch.zeros(0), torch.full((2, 2), torch.nan)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@QUICK
@given(content=PLAIN, entry=st.sampled_from([None, "statistics", "source", "mean", "method"]))
def test_a_file_with_another_content_is_no_calibration(
    tmp_path: Path, content: Any, entry: str | None
) -> None:
    path = tmp_path / "made.pt"
    whole: Any = content
    if entry is not None:
        from captum.attr import Saliency

        from erfattr.attr.calibration import calibrate
        from erfattr.attr.calibration_file import save_calibration

        made = calibrate(Saliency(torch.nn.Flatten()), torch.ones(2, 1, 2, 2), target=0)
        save_calibration(made, path)
        whole = read_whole(path, "calibration")
        place = whole if entry in whole else whole["statistics"]
        place[entry] = content
    write_whole(path, whole)
    answered(lambda: load_calibration(path))


@QUICK
@given(content=PLAIN, inside=st.booleans())
def test_a_file_with_another_content_is_no_state(tmp_path: Path, content: Any, inside: bool) -> None:
    path = tmp_path / "made.state"
    write_whole(path, {"identity": {"a": 1}, "state": content} if inside else content)
    loaded = answered(lambda: StateFile(path, {"a": 1}).load())
    if loaded is not None:
        answered(lambda: StreamingStatistics().load_state_dict(loaded))


@QUICK
@given(content=st.dictionaries(st.text(max_size=5), VALUES, max_size=3))
def test_a_sealed_record_is_read_back_whole(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "result.json"
    if answered(lambda: write_sealed_json(path, content) or True):
        read = read_sealed_json(path)
        assert json.dumps(read, sort_keys=True) == json.dumps(plain(content), sort_keys=True)


# --- maps


MAPS = drawn.arrays(
    st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_]),
    drawn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    elements=None,
)
FUNCTIONS: list[Callable[[Any], Any]] = [
    erfattr.imbalance_index,
    lambda values: erfattr.imbalance_index(values, 2, "mean"),
    lambda values: erfattr.phase_profile(values, 2),
    lambda values: local_mean(values, (2, 3)),
    lambda values: erfattr.dead_pixels(values),
    lambda values: erfattr.strong_pixels(values, 0.1),
    lambda values: erfattr.weak_pixels(values, 0.5),
    lambda values: erfattr.relief(values, "local", period=2),
    erfattr.fit_gaussian,
]


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
@QUICK
@given(values=MAPS, as_tensor=st.booleans())
def test_what_is_no_map_is_refused_and_what_is_one_gives_numbers(
    number: int, values: np.ndarray[Any, Any], as_tensor: bool
) -> None:
    given_map = torch.from_numpy(values.copy()) if as_tensor else values
    before = values.copy()
    found = answered(lambda: FUNCTIONS[number](given_map))
    if isinstance(found, Tensor) and found.is_floating_point():
        assert bool(torch.isfinite(found).all())
    np.testing.assert_array_equal(values, before)


@QUICK
@given(
    batches=st.lists(
        drawn.arrays(np.float64, st.tuples(*(st.integers(0, 3),) * 3), elements=st.floats(width=64)),
        max_size=3,
    ),
    groups=st.one_of(st.integers(-1, 5), st.floats(), st.booleans(), st.none()),
)
def test_maps_that_do_not_fit_are_refused_and_leave_the_sums_alone(
    batches: list[np.ndarray[Any, Any]], groups: Any
) -> None:
    stream = answered(lambda: StreamingStatistics(groups=groups))
    if stream is None:
        return
    taken = []
    for batch in batches:
        if answered(lambda batch=batch: stream.update(torch.from_numpy(batch)) or True):
            taken.append(batch)
    result = answered(stream.result)
    if result is not None:
        images = np.concatenate(taken)
        assert result.n_images == len(images)
        np.testing.assert_allclose(result.mean.numpy(), images.mean(0), rtol=1e-9, atol=1e-300)
