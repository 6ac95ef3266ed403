"""Kills, signals, full disks, flipped bits, threads, strange names: nothing lost, nothing wrong accepted."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from torch import nn

from erfattr import ERF, DeadPixelMap, Execution, StateFile, demo_model, receptive_fields, sample_images
from erfattr._files import write_whole
from erfattr.attr.calibration import calibrate
from erfattr.attr.calibration_file import load_calibration, save_calibration
from erfattr.cli import main
from tests.robustness.hostile import HOSTILE_NAMES, write_image, write_networks

MAP = ("map", "--size", "64", "--count", "48", "--batch-size", "2", "--layers", "layer3", "output", "--plain")
STATE = ("--state", "maps.state", "--state-interval", "2")


def command(*words: str, folder: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "erfattr", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def finished(*words: str, folder: Path, **options: Any) -> tuple[int, str]:
    process = command(*words, folder=folder, **options)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.decode(errors="replace")


def said(errors: str) -> list[str]:
    return [line for line in errors.replace("\r", "\n").split("\n") if line.startswith("erfattr")]


def leftovers(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


# Signals


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.robust),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.robust),
    ],
)
def test_a_signal_ends_a_run_that_goes_on_later(number: int, status: int, tmp_path: Path) -> None:
    process = command(*MAP, *STATE, folder=tmp_path)
    wait_for(tmp_path / "maps.state", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in errors
    assert len(said(errors.decode())) == 1
    assert "before its result was written" in said(errors.decode())[0]
    assert [path.name for path in tmp_path.iterdir()] == ["maps.state"]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 120
        time.sleep(0.02)


@pytest.fixture(scope="module")
def until_ours() -> float:
    """Seconds until Python has come to our first line: before that it has no handler."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import erfattr"], check=True)
    return time.monotonic() - begun


@pytest.mark.robust
@pytest.mark.parametrize("point", range(16))
def test_ctrl_c_while_importing_is_quiet(point: int, until_ours: float, tmp_path: Path) -> None:
    process = command(*MAP, folder=tmp_path)
    time.sleep(2 * until_ours + 0.2 * point)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert b"Traceback" not in errors
    assert len(said(errors.decode())) <= 1
    assert list(tmp_path.iterdir()) == []


# Kills


def interrupted_often(
    words: tuple[str, ...], folder: Path, kills: int, longest: float, generator: random.Random
) -> None:
    """Kill a command at random points, and let it end at last."""
    for _ in range(kills):
        process = command(*words, folder=folder)
        time.sleep(generator.uniform(0.3, longest))
        process.send_signal(generator.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)))
        process.communicate(timeout=60)
    assert finished(*words, folder=folder)[0] == 0


def equal_maps(first: Path, second: Path) -> bool:
    names = sorted(path.name for path in first.glob("*.npy"))
    assert names == sorted(path.name for path in second.glob("*.npy"))
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.robust
@pytest.mark.parametrize("part", range(20))
def test_five_kills_of_map(part: int, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert finished(*MAP, *STATE, folder=tmp_path / "whole")[0] == 0
    interrupted_often((*MAP, *STATE), tmp_path / "killed", 5, 8.0, random.Random(part))
    assert equal_maps(tmp_path / "whole" / "erfattr-map", tmp_path / "killed" / "erfattr-map")
    assert leftovers(tmp_path) == []


SHORT = ("--set", "epochs=6", "size=32", "stored_size=32", "map_size=96", "batch_size=16", "stop_after=null")


def training(name: str, data: Path) -> tuple[str, ...]:
    words = (name, "--recipe", "micro_object_cpu", "--data", str(data), *SHORT)
    return (*words, "--no-progress", "--accelerator", "cpu")


def without_times(record: Any) -> Any:
    """Return a record without what differs from run to run."""
    if isinstance(record, dict):
        gone = ("seconds", "images_per_second", "sha256_of_the_rest", "images a second", "environment")
        return {key: without_times(value) for key, value in record.items() if key not in gone}
    return [without_times(entry) for entry in record] if isinstance(record, list) else record


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("noise")
    for index in range(60):
        write_image(root / ("cat", "dog")[index % 2] / f"{index}.png", (33, 40), seed=index)
    return root


@pytest.mark.robust
@pytest.mark.parametrize("part", range(4))
def test_five_kills_of_train(part: int, tmp_path: Path, noise: Path) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    words = training("train", noise)
    assert finished(*words, folder=tmp_path / "whole")[0] == 0
    interrupted_often(words, tmp_path / "killed", 5, 12.0, random.Random(part))
    whole, killed = (tmp_path / name / "erfattr-training" for name in ("whole", "killed"))
    assert (whole / "weights.pt").read_bytes() == (killed / "weights.pt").read_bytes()
    records = [json.loads((folder / "result.json").read_text()) for folder in (whole, killed)]
    assert without_times(records[0]) == without_times(records[1])
    assert leftovers(tmp_path) == []


@pytest.mark.robust
def test_ten_kills_of_compare(tmp_path: Path, noise: Path) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    words = (*training("compare", noise), "--seeds", "2", "--map-images", "8")
    assert finished(*words, folder=tmp_path / "whole")[0] == 0
    interrupted_often(words, tmp_path / "killed", 10, 20.0, random.Random(0))
    records = [
        json.loads((tmp_path / name / "erfattr-comparison" / "comparison.json").read_text())
        for name in ("whole", "killed")
    ]
    assert without_times(records[0]) == without_times(records[1])
    assert leftovers(tmp_path) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    # A process that has ended, and this one, which has not.
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    from erfattr._files import _this_process, writing, writing_file

    gone = _this_process().replace(str(os.getpid()), str(dead.pid))
    for name in (f".erfattr-{gone}-00ff", f".erfattr-{_this_process()}-00ff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half.npy").write_bytes(b"half")
    names = (f".a.state.{gone}", f".a.state.{_this_process()}", ".a.state.12", f".b.state.{gone}", ".other")
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    with writing(tmp_path) as stage:
        (stage / "map.npy").write_bytes(b"map")
    with writing_file(tmp_path / "a.state") as beside:
        beside.write_bytes(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {*names, f".erfattr-{_this_process()}-00ff", "map.npy", "a.state"}
        - {f".a.state.{gone}", f".a.state.{_this_process()}"}
    )


# A full disk


def limited() -> None:
    # Writing past it fails as on a full disk, and is told by an error instead of a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


@pytest.mark.robust
def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    status, errors = finished(*MAP, *STATE, folder=tmp_path, preexec_fn=limited)
    assert status == 1
    assert said(errors) == ["erfattr map: error: 'maps.state': File too large; --debug shows the traceback"]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_keeps_the_state_before(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state", {"model": "demo"})
    state.save({"next_index": 3})
    child = os.fork()
    if child == 0:
        limited()
        try:
            state.save({"next_index": 4, "sums": torch.ones(10000)})
        except OSError as error:
            os._exit(0 if "state" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert state.load() == {"next_index": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


# Flipped bits


def wrong_after_flips(path: Path, read: Callable[[], Any], same: Callable[[Any], bool], flips: int) -> int:
    """Return how often a file with one flipped bit was read as something else than it holds."""
    whole = path.read_bytes()
    wrong = 0
    for place in np.random.default_rng(0).integers(0, 8 * len(whole), flips):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            content = read()
        except (ValueError, OSError):
            continue
        wrong += not same(content)
    path.write_bytes(whole)
    assert same(read())
    return wrong


FLIPS = [pytest.param(60, id="60"), pytest.param(600, marks=pytest.mark.robust, id="600")]


@pytest.mark.parametrize("flips", FLIPS)
def test_flips_of_a_state(flips: int, tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state", {"model": "demo"})
    sums = torch.rand(8, 8, dtype=torch.float64)
    state.save({"sums": sums})
    assert wrong_after_flips(state.path, state.load, lambda it: torch.equal(it["sums"], sums), flips) == 0


@pytest.mark.parametrize("flips", FLIPS)
def test_flips_of_a_calibration(flips: int, tmp_path: Path) -> None:
    path = tmp_path / "calibration.pt"
    made = calibrate(Saliency(demo_model()), sample_images(4, 32), target=0)
    save_calibration(made, path)

    def same(found: Any) -> bool:
        return torch.equal(found.statistics.mean, made.statistics.mean) and found.method == made.method

    assert wrong_after_flips(path, lambda: load_calibration(path), same, flips) == 0


@pytest.mark.parametrize("flips", FLIPS)
def test_flips_of_a_map(flips: int, tmp_path: Path, no_figures: None) -> None:
    from erfattr.cli._inputs import read_map

    words = ("map", "--size", "32", "--count", "2", "--layers", "output", "--output", str(tmp_path))
    assert main([*words]) == 0
    path = tmp_path / "output.npy"
    values = torch.from_numpy(np.load(path))
    assert wrong_after_flips(path, lambda: read_map(path), lambda it: torch.equal(it, values), flips) == 0


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erfattr.report.maps.save_figure", lambda figure, path: path.write_bytes(b""))


@pytest.mark.parametrize("flips", [pytest.param(40, id="40"), *FLIPS[1:]])
@pytest.mark.parametrize("name", ["result.json", "weights.pt", "run.pt"])
def test_flips_of_a_finished_run(name: str, flips: int, tmp_path: Path, noise: Path) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    from erfattr.training.data import TrainingImages, find_images
    from erfattr.training.hardware import Hardware
    from erfattr.training.recipes import find_recipe
    from erfattr.training.runs import train

    changes: dict[str, Any] = {"epochs": 1, "size": 8, "stored_size": 8, "object_size": 2, "batch_size": 8}
    data = TrainingImages(find_images(noise), find_recipe("micro_object_cpu", **changes)).prepared(0)
    recipe = find_recipe("micro_object_cpu", **changes)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )

    def again() -> Any:
        return train(model, recipe, data, tmp_path, hardware=Hardware("cpu"))

    first = again()

    def same(run: Any) -> bool:
        weights = zip(run.model.parameters(), first.model.parameters(), strict=True)
        return run.numbers() == first.numbers() and all(torch.equal(a, b) for a, b in weights)

    assert wrong_after_flips(tmp_path / name, again, same, flips) == 0


@pytest.mark.parametrize("flips", FLIPS)
def test_flips_of_a_checkpoint(flips: int, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    from erfattr.training._fitting import _WholeCheckpoints

    path = tmp_path / "last.ckpt"
    write_whole(path, {"epoch": 3, "weights": torch.arange(64.0)})
    files = _WholeCheckpoints()

    def same(content: Any) -> bool:
        return bool(content["epoch"] == 3 and torch.equal(content["weights"], torch.arange(64.0)))

    assert wrong_after_flips(path, lambda: files.load_checkpoint(path), same, flips) == 0


# Threads


@pytest.mark.parametrize(
    "calls", [pytest.param(2, id="2"), pytest.param(15, marks=pytest.mark.robust, id="15")]
)
def test_two_threads_on_one_resnet(calls: int) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(weights=None, num_classes=10).double()
    model.train()
    model.layer1.eval()
    model.fc.weight.requires_grad_(False)
    images = sample_images(6, 64).double()
    tasks: tuple[Callable[[], Any], ...] = (
        lambda: ERF(model, "layer2").attribute(images),
        lambda: ERF(model, "layer3", execution=Execution.plain()).attribute(images),
        lambda: DeadPixelMap(model).attribute(images),
        lambda: torch.tensor(receptive_fields(model, (64, 64))["layer2"].size),
    )
    expected = [task() for task in tasks]
    flags = [(module.training, len(module._forward_hooks)) for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    calling = nn.Module.__call__
    failures: list[str] = []

    def work(first: int) -> None:
        for number in range(calls):
            which = (first + number) % len(tasks)
            try:
                torch.testing.assert_close(tasks[which](), expected[which], rtol=1e-9, atol=1e-12)
            except BaseException as error:
                failures.append(repr(error))

    threads = [Thread(target=work, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert nn.Module.__call__ is calling
    assert flags == [(module.training, len(module._forward_hooks)) for module in model.modules()]
    assert gradients == [parameter.requires_grad for parameter in model.parameters()]


# Names


def test_hostile_names_of_images_are_read_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_figures: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(HOSTILE_NAMES):
        write_image(tmp_path / "images" / name, seed=index)
    assert len(HOSTILE_NAMES) == len(list((tmp_path / "images").iterdir())) == 20
    words = ("--size", "32", "--count", "20", "--output", "maps", "--layers", "output")
    assert main(["map", "--images", "images", *words]) == 0
    record = json.loads((tmp_path / "maps" / "result.json").read_text())["record"]
    assert sorted(record["images"]["files"]) == sorted(HOSTILE_NAMES)


@pytest.mark.robust
def test_hostile_names_of_images_are_drawn_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(HOSTILE_NAMES):
        write_image(tmp_path / "images" / name, seed=index)
    images = [f"images/{name}" for name in HOSTILE_NAMES]
    assert main(["debias", *images, "--size", "32", "--count", "3", "--output", "debiased"]) == 0
    shown = capsys.readouterr()
    assert all(line.isprintable() for line in said(shown.err))
    written = {path.name for path in (tmp_path / "debiased").iterdir()}
    assert {f"{Path(name).stem}_raw.npy" for name in HOSTILE_NAMES} <= written


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if not name.startswith("-")])
def test_hostile_names_that_are_not_there_are_said_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("debias", name), ("map", "--weights", name), ("map", "--images", name)):
        assert main([*words, "--size", "32"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.isprintable()
    assert list(tmp_path.iterdir()) == []


# Several processes


@pytest.mark.robust
def test_a_rank_that_fails_while_loading_ends_the_others_with_a_line(tmp_path: Path) -> None:
    write_networks(tmp_path)
    (tmp_path / "ranks.py").write_text(
        "import os, time\nimport hostile_nets\n\ndef one_fails():\n    if os.environ['RANK'] == '1':\n"
        "        raise RuntimeError('rank one is ill')\n    return hostile_nets.good()\n"
    )
    words = ("--model", "ranks:one_fails", "--size", "32", "--count", "4", "--layers", "output")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            "-m",
            "erfattr",
            "map",
            *words,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        timeout=300,
    )
    errors = ended.stderr.decode()
    assert ended.returncode != 0
    assert "rank one is ill" in errors
    assert "gloo" not in errors.lower()
    # torchrun's own report has a heading that begins with the command's name.
    lines = [line for line in said(errors) if line != "erfattr FAILED"]
    assert 1 <= len(lines) <= 2
    assert all(line.startswith("erfattr map: error: ") for line in lines)
    assert not (tmp_path / "erfattr-map").exists()
