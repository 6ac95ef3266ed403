"""The table of bad inputs: command lines, and how each has to end.

Run as a program in a folder of its own it prints the counts, whatever erfattr is on the path:
``python tests/robustness/bad_inputs.py [WORD]`` tries the rows that hold a word.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    from hostile import write_files, write_networks
else:
    from tests.robustness.hostile import write_files, write_networks

COMMANDS = ("map", "rf", "train", "compare", "debias", "attack")
# What a command needs to get as far as its other options.
SMALL = ("--size", "32", "--count", "2")
TRAIN = ("--recipe", "micro_object_cpu", "--data", "data", "--no-progress", "--accelerator", "cpu")
BEGIN: dict[str, tuple[str, ...]] = {
    "map": ("map", *SMALL),
    "rf": ("rf", "demo", "--size", "32"),
    "train": ("train", *TRAIN),
    "compare": ("compare", *TRAIN),
    "debias": ("debias", *SMALL),
    "attack": ("attack", *SMALL, "--population", "4", "--generations", "1"),
}


class Row(NamedTuple):
    """A command line that cannot do what it says.

    Attributes:
        words: What is typed.
        status: How the process ends: 2 where it can be known from the words, 1 where a run failed.
        says: What the line names: the option, or what went wrong.
        quick: Whether it is tried in every run of the tests.
    """

    words: tuple[str, ...]
    status: int
    says: str
    quick: bool = True

    @property
    def name(self) -> str:
        return " ".join(self.words).encode("ascii", "backslashreplace").decode()[:120]


def rows() -> Iterator[Row]:
    """Yield the whole table."""
    yield from _numbers()
    yield from _words()
    yield from _without_effect()
    yield from _models()
    yield from _images()
    yield from _maps()
    yield from _weights()
    yield from _states()
    yield from _outputs()
    yield from _settings()
    yield from _machine()


# Numbers that are none, by what their option takes.
_INTEGERS = ("x", "1.5", "nan", "1e3", "", "99999999999999999999")
_BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "positive": (
        (
            "--count",
            "--batch-size",
            "--seeds",
            "--map-images",
            "--devices",
            "--pixels",
            "--population",
            "--generations",
            "--samples",
            "--period",
            "--state-interval",
        ),
        ("0", "-1", *_INTEGERS),
    ),
    "seed": (("--seed", "--split-seed", "--first-seed", "--workers", "--reach"), ("-1", *_INTEGERS)),
    "share": (("--tolerance", "--fraction", "--epsilon"), ("0", "-0.1", "1.5", "nan", "inf", "x", "")),
    "size": (("--size",), ("0", "-1", "x", "8,x", "8,9,10", "1.5", "nan", "")),
    "numbers": (("--mean", "--std"), ("x", "nan", "inf", "1,2", "1,2,3,4,5", "")),
    "std": (("--std",), ("0", "-1", "1,0,1")),
    "choice": (
        (
            "--rectify",
            "--group",
            "--tolerance-of",
            "--precision",
            "--method",
            "--mode",
            "--aim",
            "--accelerator",
        ),
        ("nope", ""),
    ),
    "channels": (("--channels",), ("0", "-1", "x", "1.5")),
    "word": (
        (
            "--model",
            "--weights",
            "--images",
            "--output",
            "--state",
            "--map",
            "--data",
            "--recipe",
            "--variant",
            "--device",
            "--against",
            "--layer",
        ),
        ("", " "),
    ),
    "unit": (("--unit",), ("3", "1,2,3", "x,y", "1.5,2", "centre", "", "99,99", "-1,-1")),
    "target": (("--target",), ("nope", "-1", "1.5", "")),
    "layout": (("--to-spatial",), ("nope", "tokens:0x3", "tokens:3", "tokens:3x3+", "")),
}
# What options need beside them.
_WITH = {
    "--state-interval": ("--state", "new.state"),
    "--samples": ("--method", "smoothgrad"),
    "--to-spatial": ("--layers", "layer1"),
}


def _options_of(command: str) -> set[str]:
    from erfattr.cli._main import command_parser

    parser = command_parser()
    (commands,) = (action for action in parser._actions if action.dest == "command")
    return {name for action in commands.choices[command]._actions for name in action.option_strings}  # type: ignore[index,union-attr,call-overload]


def _numbers() -> Iterator[Row]:
    for command in COMMANDS:
        there = _options_of(command)
        for options, bad in _BAD.values():
            for option in options:
                if option not in there:
                    continue
                for word in bad:
                    yield Row((*BEGIN[command], *_WITH.get(option, ()), f"{option}={word}"), 2, option)


def _words() -> Iterator[Row]:
    yield Row(("draw",), 2, "draw")
    for command in COMMANDS:
        yield Row((*BEGIN[command], "--no-such-option"), 2, "--no-such-option")
        if command != "debias":
            yield Row((*BEGIN[command], "a", "b"), 2, "a b")
    yield Row(("rf",), 2, "model")
    yield Row(("train",), 2, "--recipe")
    yield Row(("compare", "--recipe", "micro_object_cpu"), 2, "--data")
    yield Row((*BEGIN["map"], "--layers"), 2, "--layers")
    yield Row((*BEGIN["map"], "--layers", ""), 2, "--layers")
    yield Row((*BEGIN["map"], "--layers", "nope"), 2, "--layers")
    yield Row((*BEGIN["map"], "--layers", "layer4", "layer4"), 2, "--layers")
    yield Row((*BEGIN["map"], "--size", "96", "--layers", "last", "layer4"), 2, "--layers")
    yield Row((*BEGIN["map"], "--size", "96", "--layers", "layer4", "output", "last"), 2, "--layers")
    yield Row((*BEGIN["map"], "--layers", "fc"), 2, "--layers")
    yield Row((*BEGIN["map"], "--layers", "output", "--target", "101"), 2, "--target")
    yield Row((*BEGIN["map"], "--layers", "output", "--target", "label"), 2, "--target")
    yield Row((*BEGIN["map"], "--group", "folder"), 2, "--group")
    yield Row((*BEGIN["map"], "--layers", "layer4", "--unit", "1,1"), 2, "--unit")
    yield Row((*BEGIN["map"], "--select", "nope", "--layers", "output"), 2, "--select")
    yield Row((*BEGIN["rf"], "--layer", "nope"), 2, "--layer")
    yield Row((*BEGIN["debias"], "--target", "101"), 2, "--target")
    yield Row((*BEGIN["debias"], "--target=999"), 2, "--target")
    yield Row((*BEGIN["attack"], "--reach", "101"), 2, "--reach")
    yield Row((*BEGIN["attack"], "--reach", "1", "--target", "label"), 2, "--reach")
    yield Row((*BEGIN["attack"], "--target", "label"), 2, "--target")
    yield Row((*BEGIN["attack"], "--fraction", "0.00001"), 2, "--fraction")
    yield Row((*BEGIN["attack"], "--pixels", "2000"), 2, "--pixels")
    yield Row((*BEGIN["map"], "--channels", "1"), 2, "--channels")
    yield Row((*BEGIN["map"], "--count", "65"), 2, "--count")
    yield Row(("train", "--recipe", "nope", "--data", "data"), 2, "--recipe")
    yield Row((*BEGIN["train"], "--variant", "nope"), 2, "--variant")
    yield Row((*BEGIN["compare"], "--variants", "original", "nope"), 2, "--variants")
    yield Row((*BEGIN["compare"], "--variants", "original"), 2, "--variants")
    yield Row((*BEGIN["compare"], "--variants", "original", "original"), 2, "--variants")
    yield Row((*BEGIN["compare"], "--variants"), 2, "--variants")
    yield Row((*BEGIN["compare"], "--seeds", "1"), 2, "--seeds")


def _without_effect() -> Iterator[Row]:
    for command, option, words in (
        ("map", "--against-weights", ("--against-weights", "none")),
        ("map", "--state-interval", ("--state-interval", "3")),
        ("map", "--tolerance-of", ("--tolerance-of", "L1")),
        ("map", "--target", ("--layers", "layer4", "--target", "3")),
        ("map", "--unit", ("--layers", "output", "--unit", "0,0")),
        ("map", "--to-spatial", ("--layers", "output", "--to-spatial", "channels-last")),
        ("map", "--to-spatial", ("--to-spatial", "channels-last")),
        ("map", "--select", ("--layers", "last", "--select", "1")),
        ("map", "--strict", ("--strict",)),
        ("debias", "--strict", ("--strict",)),
        ("attack", "--strict", ("--strict",)),
        ("debias", "--samples", ("--samples", "3")),
        ("debias", "--period", ("--mode", "global", "--period", "8")),
        ("debias", "--images", ("--map", "map_line.npy", "--images", "data")),
        ("attack", "--map", ("--aim", "all", "--map", "nope.npy")),
        ("attack", "--fraction", ("--aim", "all", "--fraction", "0.5")),
    ):
        yield Row((*BEGIN[command], *words), 2, option)
    for command in ("train", "compare"):
        for words in (("epochs=1", "epochs=2"), ("epochs",), ("=3",), ("epochs=",), ("epochs=x",)):
            yield Row((*BEGIN[command], "--set", *words), 2, "--set")


def _with_model(command: str, model: str) -> tuple[str, ...]:
    begin = BEGIN[command]
    if command == "rf":
        return ("rf", model, *begin[2:])
    return (*begin, "--model", model)


def _models() -> Iterator[Row]:
    names = (
        "nope",
        "resnet19",
        "raft_large",
        "timm/nope",
        "timm/",
        "no.module:factory",
        "hostile_nets",
        "hostile_nets:",
        ":factory",
        "hostile_nets:nope",
        "hostile_nets:1x",
        "hostile_nets:not_callable",
        "hostile_nets:factory_gives_a_number",
        "hostile_nets:factory_gives_a_class",
        "../hostile_nets:good",
        "a/b",
    )
    for command in COMMANDS:
        says = "model" if command == "rf" else "--model"
        for name in names:
            yield Row(_with_model(command, name), 2, says, quick=command in ("map", "train"))
    for command in COMMANDS:
        for name, says in (
            ("hostile_nets:factory_raises", "no such thing"),
            ("hostile_nets:factory_exits", "SystemExit"),
            ("hostile_nets:factory_raises_base", "odd"),
            ("hostile_nets:factory_wants_more", "argument"),
            ("hostile_import:good", "no_such_package_at_all"),
            ("hostile_syntax:good", "hostile_syntax.py"),
            ("hostile_raise:good", "hostile_raise.py, line 1"),
            ("hostile_exit:good", "bye"),
        ):
            yield Row(_with_model(command, name), 1, says)
    # Networks that raise: the user's file and line.
    raising = (
        "raises",
        "raises_key",
        "raises_lines",
        "raises_tensor",
        "raises_long",
        "raises_nothing",
        "raises_odd",
        "raises_unprintable",
        "raises_control",
        "raises_stop",
        "exits",
        "recurses",
    )
    for command in ("map", "debias", "attack"):
        for name in raising:
            yield Row(_with_model(command, f"hostile_nets:{name}"), 1, "hostile_nets.py, line")
        yield Row(_with_model(command, "hostile_nets:raises_system"), 1, "Input/output error")
        yield Row(_with_model(command, "hostile_nets:too_much"), 1, "--batch-size")
        yield Row(_with_model(command, "hostile_nets:memory_error"), 1, "out of memory")
    for name in raising:
        yield Row(_with_model("train", f"hostile_nets:{name}"), 1, "hostile_nets.py, line", quick=False)
    # Outputs that no class can be read from.
    for name in (
        "a_dict",
        "a_tuple",
        "a_list_of_lists",
        "nothing",
        "a_number",
        "a_scalar",
        "one_each",
        "one_class",
        "integers",
        "truths",
        "complex_numbers",
        "one_too_many",
    ):
        for command in ("debias", "attack"):
            yield Row(_with_model(command, f"hostile_nets:{name}"), 2, "--model")
    for name, says in (
        ("a_dict", "--select"),
        ("a_tuple", "--select"),
        ("a_list_of_lists", "--select"),
        ("nothing", "--select"),
        ("a_number", "--select"),
        ("a_scalar", "--model"),
        ("one_too_many", "--model"),
        ("integers", "--model"),
        ("truths", "--model"),
        ("detached", "--model"),
        ("not_finite", "--model"),
        ("broken_weights", "--model"),
        ("blind", "zero"),
    ):
        status = 2 if says.startswith("--") else 1
        yield Row((*_with_model("map", f"hostile_nets:{name}"), "--layers", "output"), status, says)
    for command in ("map", "debias", "attack"):
        yield Row(_with_model(command, "hostile_nets:two_channels"), 2, "--channels")
        yield Row(_with_model(command, "hostile_nets:five_channels"), 2, "--channels")
        yield Row((*_with_model(command, "hostile_nets:good"), "--channels", "1"), 2, "--channels")
        yield Row(_with_model(command, "hostile_nets:fixed"), 1, "--size")
        says = "--layers" if command == "map" else "--model"
        yield Row(_with_model(command, "hostile_nets:empty"), 2, says)
    yield Row(_with_model("map", "hostile_nets:no_map"), 1, "")
    yield Row(_with_model("map", "hostile_nets:scripted"), 2, "--layers", quick=False)
    yield Row(_with_model("map", "hostile_nets:scripted_fixed"), 2, "--layers", quick=False)
    for model, size in (("alexnet", "32"), ("vit_b_16", "96"), ("vgg11", "16"), ("inception_v3", "40")):
        for command in ("map", "debias", "attack"):
            words = (command, "--model", model, "--weights", "none", "--size", size, "--count", "1")
            yield Row(words, 1, "--size", quick=False)


def _images() -> Iterator[Row]:
    for command in ("map", "debias", "attack"):
        for folder in ("gone", "nothing", "garbage", "pipe", "dangling", "a file", "data/cat/0.png", "\x1b"):
            yield Row((*BEGIN[command], "--images", folder), 2, "--images")
        yield Row((*BEGIN[command], "--images", "garbage", "--strict"), 2, "garbage/")
    for image in ("gone.png", "text.png", "zeros.png", "empty.png", "data", "a file"):
        yield Row(("debias", image, *SMALL), 2, "IMAGE")
    yield Row(("debias", "data/cat/0.png", "data/cat/0.png", *SMALL), 2, "IMAGE")
    yield Row(
        (*BEGIN["attack"], "--images", "data", "--target", "label", "--model", "hostile_nets:one_class"),
        2,
        "--model",
    )
    for command in ("train", "compare"):
        begin = (command, "--recipe", "micro_object_cpu", "--no-progress", "--accelerator", "cpu", "--data")
        for folder in ("gone", "nothing", "garbage", "pipe", "dangling", "a file", "few", "single"):
            says = "garbage/" if folder == "garbage" else "--data"
            yield Row((*begin, folder), 2, says)
        begin = (command, "--recipe", "caltech101_finetune_cpu", "--no-progress", "--data")
        yield Row((*begin, "one_class"), 2, "--data")


def _maps() -> Iterator[Row]:
    names = [
        f"{name}.npy" for name in ("gone", "empty", "dot", "text", "zeros", "header", "pickle", "folder")
    ]
    names += [f"map_{name}.npy" for name in ("three", "line", "point", "nothing", "nan", "texts", "complex")]
    names += [
        "map_objects.npy",
        "map_archive.npy",
        "map_other_size.npy",
        "map_all_zero.npy",
        "map_negative.npy",
    ]
    begin = {"debias": ("debias", "--size", "32"), "attack": BEGIN["attack"]}
    for command in ("debias", "attack"):
        for name in names:
            yield Row((*begin[command], "--map", name), 2, "--map")
    for name in (
        "gone.pt",
        "empty.pt",
        "dot.pt",
        "text.pt",
        "zeros.pt",
        "ours.pt",
        "pickle.pt",
        "other.pt",
        "folder.pt",
    ):
        yield Row((*begin["debias"], "--map", name), 2, "--map")


def _weights() -> Iterator[Row]:
    names = ("gone.pt", "empty.pt", "dot.pt", "text.pt", "zeros.pt", "ours.pt", "pickle.pt", "other.pt")
    names += ("number.pt", "no_weights.pt", "class.pt", "folder.pt", "IMAGENET1K_V1", "text.safetensors")
    for command in ("map", "train", "debias", "attack", "compare"):
        for name in names:
            yield Row((*BEGIN[command], "--weights", name), 2, "--weights", quick=command == "map")
    for name in ("gone.pt", "text.pt"):
        words = ("--against", "demo", "--against-weights", name)
        yield Row((*BEGIN["map"], *words), 2, "--against-weights")
    yield Row((*BEGIN["map"], "--against", "nope"), 2, "--against")


def _states() -> Iterator[Row]:
    for name in ("empty", "dot", "text", "zeros", "ours", "pickle"):
        yield Row((*BEGIN["map"], "--state", f"{name}.state"), 2, "--state")
    for name in ("folder.pt", "gone/new.state", "a file/new.state", "other.pt"):
        yield Row((*BEGIN["map"], "--state", name), 2, "--state")
    yield Row((*BEGIN["train"], "--set", "epochs=1", "--output", "taken"), 2, "--output")


def _outputs() -> Iterator[Row]:
    for command in ("map", "debias", "attack", "train", "compare"):
        for folder in ("a file", "a file/below", "/proc/nope", "/dev/null/x", "x" * 300, "nul\x00byte"):
            yield Row((*BEGIN[command], "--output", folder), 2, "--output")


def _settings() -> Iterator[Row]:
    bad: dict[str, tuple[str, ...]] = {
        "epochs": ("0", "-1", "1.5", "null", "true", '"x"', "[]", "NaN", "1e400", "9" * 30),
        "size": ("0", "-1", "2.5", "null", "true", '"x"', "[8,8]", "9" * 12),
        "batch_size": ("0", "-1", "1.5", "null", "true", '"x"', "9" * 30),
        "learning_rate": ("0", "-0.1", "NaN", "Infinity", "null", "true", '"x"', "[]"),
        "momentum": ("-1", "1", "1.5", "NaN", "null", "true", '"x"'),
        "weight_decay": ("-1", "NaN", "Infinity", "null", "true", '"x"'),
        "stored_size": ("0", "-1", "1.5", "true", '"x"', "9" * 12),
        "object_size": ("0", "-1", "33", "1.5", "null", '"x"'),
        "colors": (
            "[]",
            "null",
            "3",
            "[[0,0,0]]",
            "[[0,0],[1,1]]",
            "[[0,0,256],[1,1,1]]",
            "[[0,0,0],[0,0,0]]",
        ),
        "target": ("0", "100", "-1", "NaN", "null", "true", '"x"'),
        "stop_after": ('"x"', "-1", "1.5", "true", "[]"),
        "map_size": ("0", "-1", "1.5", "null", '"x"', "9" * 12),
        "task": ('"nope"', "3", "null", "[]"),
        "name": ("3", "null", '""'),
        "augmentation": (
            "3",
            "null",
            "[]",
            '{"nope":1}',
            '{"rotation":-1}',
            '{"jitter":2}',
            '{"flip":1}',
            '{"resized_crop":0}',
        ),
        "nope": ("3",),
        "epoch": ("3",),
    }
    for command in ("train", "compare"):
        for field, values in bad.items():
            for value in values:
                says = f"--set {field}" if field not in ("nope", "epoch") else "--set"
                yield Row((*BEGIN[command], "--set", f"{field}={value}"), 2, says)
    yield Row((*BEGIN["train"], "--set", "batch_size=4000"), 2, "--data")
    yield Row((*BEGIN["compare"], "--set", "map_size=8", "epochs=1"), 2, "--set map_size", quick=False)


def _machine() -> Iterator[Row]:
    for command in ("map", "debias", "attack"):
        for device in ("nope", "cuda", "cuda:7", "mps", "xla", "meta", "cpu:x", "hpu", "vulkan"):
            yield Row((*BEGIN[command], "--device", device), 2, "--device")
        yield Row((command, "--size", "100000"), 2, "--size")
        yield Row((command, "--size", "99999999"), 2, "--size")
    yield Row(("rf", "demo", "--size", "99999999"), 2, "--size")
    yield Row(("rf", "demo", "--size", "3000000,8"), 2, "--size")
    for command in ("train", "compare"):
        yield Row((*BEGIN[command][:-2], "--accelerator", "gpu"), 2, "--accelerator")
        yield Row((*BEGIN[command], "--devices", "7"), 2, "--devices")
        yield Row((*BEGIN[command], "--workers", "100000"), 2, "--workers")


class Ended(NamedTuple):
    """How a command line ended."""

    status: int | str
    errors: str


# Seconds after which a row counts as one that never ends.
LONGEST = 30


class TooLongError(BaseException):
    """A row did not end."""


def _too_long(*_: object) -> None:
    raise TooLongError


def run(words: tuple[str, ...], main: Callable[[list[str]], int]) -> Ended:
    """Run a command line in this process."""
    signal.signal(signal.SIGALRM, _too_long)
    errors, output = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(output),
        warnings.catch_warnings(),
    ):
        try:
            signal.alarm(LONGEST)
            status: int | str = main(list(words))
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException as error:  # what a user would see as a traceback
            status = f"{type(error).__name__} escaped: {str(error)[:80]!r}"
        finally:
            signal.alarm(0)
    return Ended(status, errors.getvalue())


def faults(row: Row, ended: Ended, before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return what is wrong with how a row ended."""
    found = []
    if isinstance(ended.status, str):
        found.append(ended.status)
    elif ended.status != row.status:
        found.append(f"status {ended.status} instead of {row.status}")
    lines = [line for line in ended.errors.replace("\r", "\n").split("\n") if line.strip()]
    said = [line for line in lines if line.startswith("erfattr") and "error: " in line]
    usage = lines[0].startswith("usage: ") if lines else False
    others = [
        line for line in lines if line not in said and "image/s]" not in line and "warning: " not in line
    ]
    if len(said) != 1:
        found.append(f"{len(said)} lines of error")
    elif row.says not in said[0]:
        found.append(f"says nothing of {row.says!r}")
    elif (
        row.status == 2
        and row.says.startswith("--")
        and not re.search(
            rf"error: (argument )?{row.says}[ :=]|arguments(:| are required:).* {row.says}", said[0] + " "
        )
    ):
        found.append(f"does not begin with {row.says!r}")
    if "Traceback" in ended.errors:
        found.append("traceback")
    if others and not usage:
        found.append(f"{len(others)} more lines")
    if any(len(line) > 1000 or not line.isprintable() for line in said):
        found.append("what no terminal should get")
    written = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    if written:
        found.append(f"wrote {sorted(written)[:3]}")
    return found


def tree(folder: Path) -> dict[str, object]:
    """Return what a folder holds."""
    found: dict[str, object] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in (*folders, *names):
            path = Path(place, name)
            status = path.lstat()
            size = status.st_size if path.is_file() else 0
            found[os.fsencode(path.relative_to(folder)).decode("ascii", "backslashreplace")] = (
                status.st_mode,
                size,
            )
    return found


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[None]:
    """Fill a folder with all that the table needs, and work there."""
    write_networks(folder)
    write_files(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def _print_counts(word: str) -> None:
    from erfattr.cli import main

    chosen = [row for row in rows() if word in row.name and (row.quick or "--all" in sys.argv)]
    good, seconds = 0, time.perf_counter()
    slow: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder, prepared(Path(folder)):
        before = tree(Path(folder))
        for row in chosen:
            begun = time.perf_counter()
            ended = run(row.words, main)
            slow.append((time.perf_counter() - begun, row.name))
            after = tree(Path(folder))
            wrong = faults(row, ended, before, after)
            good += not wrong
            if wrong:
                print(f"{row.name!r}: {'; '.join(wrong)}")
                if len(word) or "-v" in sys.argv:
                    print("    ", ended.errors[-400:])
                sys.stdout.flush()
            before = after
    print(f"{good} of {len(chosen)} rows end as they should, {time.perf_counter() - seconds:.0f} s")
    print("slowest:", [(round(took, 1), name) for took, name in sorted(slow, reverse=True)[:12]])


if __name__ == "__main__":
    _print_counts(sys.argv[1] if len(sys.argv) > 1 else "")
