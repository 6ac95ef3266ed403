"""Files are whole or not there; a state file is that of one run; JSON holds what `plain` makes of values."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from erfattr._files import (
    StateFile,
    plain,
    read_whole,
    write_json,
    write_whole,
    writing,
    writing_file,
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    state = {"next_index": 5, "streams": [{"sums": torch.rand(2, 3, dtype=torch.float64), "groups": 2}]}
    StateFile(tmp_path / "state", {"model": "demo", "files": ["a", "b"]}).save(state)
    loaded = StateFile(tmp_path / "state", {"model": "demo", "files": ["a", "b"]}).load()
    assert loaded is not None
    assert loaded["next_index"] == 5
    assert torch.equal(loaded["streams"][0]["sums"], state["streams"][0]["sums"])  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_no_state_yet(tmp_path: Path) -> None:
    assert StateFile(tmp_path / "state", {}).load() is None


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    StateFile(tmp_path / "state", {"model": "demo", "images": "photos"}).save({})
    with pytest.raises(
        ValueError, match=r"another run: expected model 'resnet18' \(str\), got 'demo' \(str\)"
    ):
        StateFile(tmp_path / "state", {"model": "resnet18", "images": "photos"}).load()
    with pytest.raises(
        ValueError, match=r"another run: expected batch None \(NoneType\), got|expected seed 3"
    ):
        StateFile(tmp_path / "state", {"model": "demo", "images": "photos", "seed": 3}).load()


def test_files_that_are_no_state(tmp_path: Path) -> None:
    for content in (b"not a state", b"hello world", b".", b""):
        (tmp_path / "state").write_bytes(content)
        with pytest.raises(ValueError, match="is no state that this version of erfattr wrote"):
            StateFile(tmp_path / "state", {}).load()
    write_whole(tmp_path / "state", {"next_index": 1})
    with pytest.raises(ValueError, match="is no state that this version of erfattr wrote"):
        StateFile(tmp_path / "state", {}).load()
    torch.save({"weights": 1}, tmp_path / "state")
    with pytest.raises(ValueError, match="is no state that this version of erfattr wrote"):
        StateFile(tmp_path / "state", {}).load()


def test_failed_save_leaves_the_state_before(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state", {})
    file.save({"next_index": 1})
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        file.save({"next_index": lambda: 2})  # cannot be pickled
    assert file.load() == {"next_index": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="interval: expected a positive integer, got 0"):
        StateFile(tmp_path / "state", {}, 0)
    with pytest.raises(ValueError, match="path: expected a file in a folder that is there"):
        StateFile(tmp_path / "missing" / "state", {})
    with pytest.raises(ValueError, match="path: expected a file in a folder that is there"):
        StateFile(tmp_path, {})
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match=r"output folder '.*file' cannot be written to"),
        writing(tmp_path / "file"),
    ):
        pass


def test_a_file_is_replaced_as_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("old")
    with writing_file(path) as beside:
        beside.write_text("new")
        assert beside.parent == tmp_path
        assert path.read_text() == "old"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("page.md", "new")]


def test_a_block_that_fails_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("old")

    def fail() -> None:
        with writing_file(path) as beside:
            beside.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("page.md", "old")]


def test_tensors_are_written_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "weights.pt", {"weight": torch.arange(3.0)})
    assert read_whole(tmp_path / "weights.pt", "state")["weight"].tolist() == [0, 1, 2]
    with pytest.raises(OSError, match="absent"):
        write_whole(tmp_path / "absent" / "weights.pt", {})


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state", {"model": "demo"})
    sums = torch.rand(16, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    file.save({"next_index": 256, "streams": [{"sums": sums}]})
    whole = (tmp_path / "state").read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(0, 8 * len(whole), 600):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        (tmp_path / "state").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"path: .* (is damaged|is no state)"):
            file.load()
    for length in (0, 5, 70, len(whole) // 2, len(whole) - 1):
        (tmp_path / "state").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"path: .* (is damaged|is no state)"):
            file.load()
    (tmp_path / "state").write_bytes(whole)
    state = file.load()
    assert state is not None
    assert torch.equal(state["streams"][0]["sums"], sums)


@dataclass
class Point:
    x: float
    y: float


def test_json_holds_what_plain_makes_of_values(tmp_path: Path) -> None:
    value = {
        "tensor": torch.tensor([[1, 2]]),
        3: (np.float64(0.5), np.int64(7)),
        "point": Point(math.inf, math.nan),
        "path": Path("a") / "b",
        "flag": True,
        "none": None,
    }
    expected = {
        "tensor": [[1, 2]],
        "3": [0.5, 7],
        "point": {"x": None, "y": None},
        "path": str(Path("a") / "b"),
        "flag": True,
        "none": None,
    }
    assert plain(value) == expected
    write_json(tmp_path / "result.json", value)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert json.loads(text) == expected
    assert text.startswith('{\n "tensor": [\n')
    assert text.endswith("}\n")


def test_what_json_cannot_hold_is_refused_and_the_file_before_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"seed": 3})
    with pytest.raises(TypeError, match=r"record: expected what JSON can hold, got .*ReLU"):
        write_json(tmp_path / "result.json", {"model": torch.nn.ReLU()})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert json.loads((tmp_path / "result.json").read_text()) == {"seed": 3}


def test_nothing_stays_of_a_run_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with writing(tmp_path / "a" / "b") as stage:
            (stage / "half.txt").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_stay_whole_when_a_run_fails(tmp_path: Path) -> None:
    with writing(tmp_path) as stage:
        (stage / "result.txt").write_text("old")

    def fail() -> None:
        with writing(tmp_path) as stage:
            (stage / "result.txt").write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("result.txt", "old")]


@pytest.mark.slow
def test_killed_at_random_points_the_run_ends_with_the_same_map(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "erfattr", "map", "--size", "64", "--batch-size", "2"]
    command += ["--layers", "layer3", "output", "--plain"]
    whole = [*command, "--output", str(tmp_path / "whole")]
    subprocess.run(whole, check=True, capture_output=True)
    state = tmp_path / "state.pt"
    resumed = [
        *command,
        "--output",
        str(tmp_path / "resumed"),
        "--state",
        str(state),
        "--state-interval",
        "4",
    ]
    chance = random.Random(0)
    counts = []
    for _ in range(4):
        process = subprocess.Popen(resumed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = state.stat().st_mtime_ns if state.exists() else 0
        deadline = time.monotonic() + 120
        # Wait until it saves again, then a little longer, so that it is killed somewhere in its work.
        while time.monotonic() < deadline and process.poll() is None:
            if state.exists() and state.stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL)
        saved = read_whole(state, "state")
        counts.append(saved["state"]["next_index"])
    assert counts == sorted(counts)
    assert counts[0] >= 4
    assert not (tmp_path / "resumed" / "result.json").exists() or counts[-1] == 64
    subprocess.run(resumed, check=True, capture_output=True)
    for name in ("layer3.npy", "output.npy", "layer3_standard_error.npy"):
        np.testing.assert_array_equal(
            np.load(tmp_path / "whole" / name), np.load(tmp_path / "resumed" / name)
        )
    other = [*command, "--rectify", "abs", "--output", str(tmp_path / "other"), "--state", str(state)]
    refused = subprocess.run(other, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "expected the state of a run" in refused.stderr


@pytest.mark.slow
def test_torchrun_equals_one_process(tmp_path: Path) -> None:
    options = ["map", "--size", "64", "--count", "11", "--batch-size", "2", "--precision", "float64"]
    options += ["--layers", "layer3", "output", "--output"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = [sys.executable, "-m", "erfattr", *options, str(tmp_path / "one")]
    subprocess.run(one, check=True, capture_output=True, env=environment)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    two = [*launch, "-m", "erfattr", *options, str(tmp_path / "two")]
    shown = subprocess.run(two, check=True, capture_output=True, text=True, env=environment).stdout
    assert shown.count("written to") == 1
    for name in ("layer3.npy", "output.npy"):
        expected = np.load(tmp_path / "one" / name)
        difference = np.abs(np.load(tmp_path / "two" / name) - expected).max()
        assert difference <= 1e-12 * expected.max()
    bad = [*launch, "-m", "erfattr", *options, str(tmp_path / "bad"), "--unit", "9,9"]
    failed = subprocess.run(bad, capture_output=True, text=True, env=environment, timeout=300)
    assert failed.returncode != 0
    assert "expected a position inside the 4 x 4 map" in failed.stderr
    assert not (tmp_path / "bad").exists()
