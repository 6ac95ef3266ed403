from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from erfattr.training.data import TrainingData, TrainingImages, find_images
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import Augmentation, Recipe
from erfattr.training.runs import TrainingRun, train
from erfattr.training.tasks import task_of

pytest.importorskip("lightning", reason="needs the extra train")

CPU = Hardware("cpu")
MICRO = Recipe(
    "micro",
    "micro_object",
    epochs=4,
    size=8,
    batch_size=8,
    augmentation=Augmentation(flip=True),
    stored_size=8,
    object_size=4,
    learning_rate=0.05,
)
CLASSES = replace(MICRO, name="classes", task="classification")


class Small(nn.Module):
    """A network with all that a checkpoint must hold: weights, running statistics, random numbers."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(4, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.drop(F.relu(self.norm(self.conv(images))))
        logits: Tensor = self.fc(features.mean((-2, -1)))
        return logits


def small(classes: int = 2, seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small(classes)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 60 images of noise, one darker than the other."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for index in range(60):
            pixels = torch.randint(40 * label, 216 + 40 * label, (8, 8, 3), generator=generator)
            Image.fromarray(pixels.byte().numpy()).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def micro(folder: Path) -> TrainingData:
    return TrainingImages(find_images(folder), MICRO).prepared(seed=0)


@pytest.fixture(scope="module")
def classes(folder: Path) -> TrainingData:
    return TrainingImages(find_images(folder), CLASSES).prepared(seed=0)


def without_times(run: TrainingRun) -> list[tuple[float, ...]]:
    return [(record["epoch"], record["loss"], record["accuracy"]) for record in run.history]


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


# Oracle: a loop written from the recipe.


def test_a_run_is_the_loop_that_the_recipe_describes(tmp_path: Path, micro: TrainingData) -> None:
    recipe = replace(MICRO, epochs=3)
    model = small()
    model.drop.p = 0.0
    run = train(model, recipe, micro, tmp_path, hardware=CPU)

    from erfattr.training._fitting import EpochSampler, _number

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    sampler = EpochSampler(micro.train, 1, 0, seed=_number(0), drop_last=True)
    for epoch in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + math.cos(math.pi * epoch / 3)) / 2
        sampler.set_epoch(epoch)
        order = list(sampler)
        losses = []
        model.train()
        for first in range(0, len(order) - 7, 8):
            items = [micro.train[index] for index in order[first : first + 8]]
            images = torch.stack([image for image, _ in items])
            loss = F.cross_entropy(model(images), torch.tensor([label for _, label in items]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        right = [int(model(image[None]).argmax()) == label for image, label in micro.test]
        assert run.history[epoch]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        assert run.history[epoch]["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_the_best_epoch_by_validation_is_tested(tmp_path: Path, classes: TrainingData) -> None:
    run = train(small(), CLASSES, classes, tmp_path, hardware=CPU)
    accuracies = [record["accuracy"] for record in run.history]
    assert run.epoch == 1 + accuracies.index(max(accuracies))
    assert run.epochs_to_target is None

    def accuracy(part: Any) -> float:
        right = [int(run.model(image[None]).argmax()) == int(label) for image, label in part]
        return 100 * sum(right) / len(right)

    assert accuracy(classes.validation) == pytest.approx(max(accuracies))
    assert accuracy(classes.test) == pytest.approx(run.test_accuracy)
    assert not run.model.training


def test_epochs_to_target_and_stopping(tmp_path: Path, micro: TrainingData) -> None:
    unable = replace(MICRO, learning_rate=1e-9, stop_after=0)
    never = train(small(), unable, micro, tmp_path / "never", hardware=CPU)
    assert len(never.history) == never.epochs_to_target == 4
    whole = train(small(), MICRO, micro, tmp_path / "whole", hardware=CPU)
    for stop_after, epochs in ((0, 1), (2, 3)):
        recipe = replace(MICRO, target=1, stop_after=stop_after)
        run = train(small(), recipe, micro, tmp_path / f"{stop_after}", hardware=CPU)
        assert run.epochs_to_target == 1
        assert without_times(run) == without_times(whole)[:epochs]


def test_looks_find_the_step_at_which_the_target_is_passed_and_change_nothing(
    tmp_path: Path, micro: TrainingData
) -> None:
    whole = train(small(), MICRO, micro, tmp_path / "whole", hardware=CPU)
    # 84 images are 10 steps an epoch, looked at after 3, 5, 8 and 10.
    accuracies = {}
    from erfattr.training._fitting import Fitting

    class Watched(Fitting):
        def _note_step(self, accuracy: float) -> None:
            accuracies[self.trainer.global_step] = accuracy
            right = [int(self.model.eval()(image[None]).argmax()) == label for image, label in micro.test]
            self.model.train()
            assert accuracy == pytest.approx(100 * sum(right) / len(right))
            super()._note_step(accuracy)

    def watched(recipe: Recipe, name: str) -> TrainingRun:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("erfattr.training._fitting.Fitting", Watched)
            return train(small(), recipe, micro, tmp_path / name, hardware=CPU)

    looked = watched(replace(MICRO, looks=4, target=99.9), "looked")
    assert list(accuracies) == [10 * epoch + step for epoch in range(4) for step in (3, 5, 8, 10)]
    assert without_times(looked) == without_times(whole)
    assert_equal_weights(looked.model, whole.model)
    unable = replace(MICRO, looks=4, learning_rate=1e-9)
    never = train(small(), unable, micro, tmp_path / "never", hardware=CPU)
    assert task_of(unable).result(never) == 40  # all steps
    target = 0.5 * (min(accuracies.values()) + max(accuracies.values()))
    first = next(step for step, accuracy in accuracies.items() if accuracy > target)
    passed = watched(replace(MICRO, looks=4, target=target, stop_after=0), "passed")
    assert task_of(passed.recipe).result(passed) == first
    assert passed.history[-1]["first_step_above"] == first
    assert len(passed.history) == -(-first // 10)
    read = train(small(), passed.recipe, micro, tmp_path / "passed", hardware=CPU)
    assert task_of(read.recipe).result(read) == first


# Repeatable, resumed.


def test_a_seed_makes_a_run_repeatable_to_the_bit(tmp_path: Path, micro: TrainingData) -> None:
    one, other, workers, another = (
        train(small(), MICRO, micro, tmp_path / name, seed=seed, hardware=hardware)
        for name, seed, hardware in (
            ("one", 0, CPU),
            ("other", 0, CPU),
            ("workers", 0, Hardware("cpu", num_workers=2)),
            ("another", 1, CPU),
        )
    )
    for run in (other, workers):
        assert without_times(run) == without_times(one)
        assert_equal_weights(run.model, one.model)
    assert without_times(another) != without_times(one)


class Killed(Exception):  # noqa: N818
    """Raised in the middle of a run."""


@pytest.mark.parametrize(
    ("where", "workers"),
    [
        ("training_step", 0),
        ("on_validation_start", 2),
        pytest.param("on_train_epoch_end", 0, marks=pytest.mark.slow),
        pytest.param("on_train_epoch_start", 2, marks=pytest.mark.slow),
        pytest.param("training_step", 2, marks=pytest.mark.slow),
        pytest.param("on_train_epoch_end", 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_stopped_anywhere_ends_like_one_that_was_not(
    where: str, workers: int, tmp_path: Path, micro: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erfattr.training._fitting import Fitting

    hardware = Hardware("cpu", num_workers=workers)
    whole = train(small(), MICRO, micro, tmp_path / "whole", hardware=hardware)
    method: Callable[..., Any] = getattr(Fitting, where)

    def stop(self: Fitting, *arguments: Any) -> Any:
        if self.current_epoch == 2 and (not arguments or arguments[-1] == 5):
            raise Killed
        return method(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, where, stop)
        with pytest.raises(Killed):
            train(small(), MICRO, micro, tmp_path / "stopped", hardware=hardware)
    torch.rand(3)
    resumed = train(small(), MICRO, micro, tmp_path / "stopped", hardware=hardware)
    assert without_times(resumed) == without_times(whole)
    assert_equal_weights(resumed.model, whole.model)
    # Two epochs were kept, so two were trained again: the log of the second part begins with the third.
    log = (tmp_path / "stopped" / "log" / "version_1" / "metrics.csv").read_text().splitlines()
    assert next(line.split(",")[log[0].split(",").index("epoch")] for line in log[1:]) == "2"


def test_the_best_epoch_is_remembered_in_a_folder_that_was_moved(
    tmp_path: Path, classes: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erfattr.training._fitting import Fitting

    # Steps so long that the second epoch undoes what the first has learnt.
    recipe = replace(CLASSES, learning_rate=0.5)
    whole = train(small(), recipe, classes, tmp_path / "whole", hardware=CPU)
    accuracies = [record["accuracy"] for record in whole.history]
    assert whole.epoch == 1
    assert accuracies[0] > accuracies[1]
    step = Fitting.training_step

    def stop(self: Fitting, *arguments: Any) -> Any:
        if self.current_epoch == 2:
            raise Killed
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "training_step", stop)
        with pytest.raises(Killed):
            train(small(), recipe, classes, tmp_path / "stopped", hardware=CPU)
    (tmp_path / "stopped").rename(tmp_path / "moved")
    resumed = train(small(), recipe, classes, tmp_path / "moved", hardware=CPU)
    assert without_times(resumed) == without_times(whole)
    assert (resumed.epoch, resumed.test_accuracy) == (whole.epoch, whole.test_accuracy)
    assert_equal_weights(resumed.model, whole.model)


def test_ctrl_c_is_a_keyboard_interrupt_and_can_be_pressed_again(
    tmp_path: Path, micro: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erfattr.training._fitting import Fitting

    step = Fitting.training_step

    def pressed(self: Fitting, *arguments: Any) -> Any:
        if self.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    # A shell lets what it starts in the background ignore Ctrl-C; here it counts, wherever the tests run.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Fitting, "training_step", pressed)
            with pytest.raises(KeyboardInterrupt):
                train(small(), MICRO, micro, tmp_path / "stopped", hardware=CPU)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    resumed = train(small(), MICRO, micro, tmp_path / "stopped", hardware=CPU)
    assert without_times(resumed) == without_times(
        train(small(), MICRO, micro, tmp_path / "whole", hardware=CPU)
    )


@pytest.mark.parametrize(
    ("changes", "epochs"), [({"target": 1, "stop_after": 1}, 2), ({"epochs": 2, "task": "classification"}, 2)]
)
def test_a_run_that_was_stopped_after_its_last_epoch_is_not_trained_further(
    changes: dict[str, Any], epochs: int, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(MICRO, **changes)
    data = TrainingImages(find_images(folder), recipe).prepared(seed=0)
    whole = train(small(), recipe, data, tmp_path / "whole", hardware=CPU)
    with monkeypatch.context() as patch:
        patch.setattr("erfattr.training.runs.writing", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(small(), recipe, data, tmp_path / "stopped", hardware=CPU)
    resumed = train(small(), recipe, data, tmp_path / "stopped", hardware=CPU)
    assert len(resumed.history) == epochs
    assert without_times(resumed) == without_times(whole)
    assert resumed.test_accuracy == whole.test_accuracy
    assert_equal_weights(resumed.model, whole.model)


def test_a_finished_run_is_read(
    tmp_path: Path, classes: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(small(), CLASSES, classes, tmp_path, hardware=CPU)

    def fit(*_: object, **__: object) -> None:
        raise AssertionError("the run was repeated")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", fit)
    again = train(small(), CLASSES, classes, tmp_path, hardware=CPU)
    assert again.numbers() == run.numbers()
    assert_equal_weights(again.model, run.model)
    assert not again.model.training


SCRIPT = """
import sys
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_runs import CPU, MICRO, small
from dataclasses import replace
from erfattr._processes import is_first_process
from erfattr.training.runs import train
from erfattr.training.data import TrainingImages, find_images
recipe = replace(MICRO, epochs=30)
torch.set_num_threads(int(sys.argv[4]))
data = TrainingImages(find_images(sys.argv[2]), recipe).prepared(0)
train(small(), recipe, data, sys.argv[3], hardware=CPU)
"""


@pytest.mark.slow
def test_a_killed_process_is_resumed(tmp_path: Path, folder: Path) -> None:
    recipe = replace(MICRO, epochs=30)
    data = TrainingImages(find_images(folder), recipe).prepared(0)
    whole = train(small(), recipe, data, tmp_path / "whole", hardware=CPU)
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), str(tmp_path / "killed")]
    words.append(str(torch.get_num_threads()))  # another number of threads sums in another order
    process = subprocess.Popen(words)
    while not (tmp_path / "killed" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    resumed = train(small(), recipe, data, tmp_path / "killed", hardware=CPU)
    assert without_times(resumed) == without_times(whole)
    assert_equal_weights(resumed.model, whole.model)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path, folder: Path) -> None:
    # Batch statistics are of a process's own half of the batch, so the network has none.
    script = SCRIPT.replace(", small", ", linear").replace("small()", "linear()").replace("CPU)", "two)")
    script = script.replace("CPU,", "Hardware,").replace("data =", "two = Hardware('cpu', devices=2)\ndata =")
    *rest, last = script.strip().split("\n")
    said = "print('{}', is_first_process(), flush=True)"
    script = "\n".join([*rest, said.format("before"), last, said.format("after")])
    (tmp_path / "script.py").write_text(script)  # Lightning starts the file once more for the second process
    words = [tmp_path / "script.py", Path(__file__).parent, folder, tmp_path / "two", 1]
    ended = subprocess.run(
        [sys.executable, *map(str, words)], check=True, timeout=300, stdout=subprocess.PIPE, text=True
    )
    # The environment tells it before the two form a group.
    assert sorted(line for line in ended.stdout.splitlines() if line.startswith(("before", "after"))) == [
        "after False",
        "after True",
        "before False",
        "before True",
    ]
    recipe = replace(MICRO, epochs=30)
    data = TrainingImages(find_images(folder), recipe).prepared(0)
    one = train(linear(), recipe, data, tmp_path / "one", hardware=CPU)
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    assert len(two["history"]) == 30
    for mine, its in zip(one.history, two["history"], strict=True):
        assert its["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert its["accuracy"] == mine["accuracy"]


# Limits and errors.


def test_a_loss_that_is_not_finite_stops_with_the_epoch(tmp_path: Path, micro: TrainingData) -> None:
    from erfattr.training._fitting import NonFiniteLossError

    class Poisoned(Small):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += self.training
            return super().forward(images) * (math.nan if self.calls > 20 else 1)

    # 84 training images are 10 steps an epoch: the 21st is the first of the third.
    with pytest.raises(NonFiniteLossError, match=r"loss: nan in epoch 3 of micro; .* than 0\.05"):
        train(Poisoned(), MICRO, micro, tmp_path, hardware=CPU)
    assert not (tmp_path / "result.json").exists()


def test_the_folder_of_another_run_is_refused(
    tmp_path: Path, micro: TrainingData, classes: TrainingData
) -> None:
    short = replace(MICRO, epochs=1)
    train(small(), short, micro, tmp_path, hardware=CPU)
    for model, recipe, seed, difference in (
        (small(seed=1), short, 0, "expected weights"),
        (nn.Sequential(small()), short, 0, "expected model 'Sequential'"),
        (small(), replace(short, learning_rate=0.1), 0, "expected recipe's learning_rate 0.1 .* got 0.05"),
        (small(), short, 1, r"expected seed 1 \(int\), got 0 \(int\)"),
    ):
        with pytest.raises(ValueError, match=f"is the state of another run: {difference}"):
            train(model, recipe, micro, tmp_path, seed=seed, hardware=CPU)


def test_bad_arguments(tmp_path: Path, micro: TrainingData) -> None:
    for arguments, error, message in (
        ((3, MICRO, micro), TypeError, "model: expected a Module, got 3"),
        ((small(), "micro_object", micro), TypeError, "recipe: expected a Recipe, got 'micro_object'"),
        ((small(), MICRO, [1]), TypeError, r"data: expected a TrainingData, got \[1\]"),
        ((small(3), MICRO, micro), ValueError, r"model: expected outputs of shape \(1, 2\) .* \(1, 3\)"),
        (
            (small(), replace(MICRO, batch_size=85), micro),
            ValueError,
            "a batch of 85 training images, got 84",
        ),
    ):
        with pytest.raises(error, match=message):
            train(*arguments, tmp_path / "new", hardware=CPU)
    with pytest.raises(ValueError, match="seed: expected an integer of at least 0, got -1"):
        train(small(), MICRO, micro, tmp_path / "new", seed=-1)
    with pytest.raises(ValueError, match="devices: expected a number that divides the batch of 8, got 3"):
        train(small(), MICRO, micro, tmp_path / "new", hardware=Hardware("cpu", devices=3))
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(small(), MICRO, micro, tmp_path / "file", hardware=CPU)


WITHOUT_LIGHTNING = """
import sys
sys.modules["lightning"] = None
import torch
import erfattr.cli.compare, erfattr.cli.train, erfattr.training.comparison
from erfattr.datasets.augmented_images import AugmentedDataset
from erfattr.training.data import TrainingData
from erfattr.training.recipes import find_recipe
from erfattr.training.runs import train
part = AugmentedDataset(torch.zeros(64, 3, 4, 4))
data = TrainingData(part, part, part, (), "")
train(torch.nn.Conv2d(3, 2, 1), find_recipe("micro_object"), data, ".")
"""


def test_lightning_is_needed_only_to_train_and_named_where_it_is_missing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WITHOUT_LIGHTNING]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert ended.stderr.splitlines()[-1].startswith("ImportError: training needs Lightning")
    assert ended.stderr.rstrip().endswith("pip install 'erfattr[train]'")
    assert list(tmp_path.iterdir()) == []


# Caller untouched.


def test_model_and_random_state_come_back_as_they_were(
    tmp_path: Path,
    micro: TrainingData,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    model = small().eval()
    before = snapshot(model)
    run = train(model, replace(MICRO, epochs=1), micro, tmp_path, hardware=CPU)
    assert_same(before, snapshot(model))
    # A network that comes in evaluation mode is trained all the same: its running statistics move.
    assert not torch.equal(run.model.norm.running_mean, model.norm.running_mean)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last.ckpt",
        "log",
        "result.json",
        "run.pt",
        "weights.pt",
    ]


def test_numbers_and_weights_are_written(tmp_path: Path, micro: TrainingData) -> None:
    run = train(small(), MICRO, micro, tmp_path, hardware=CPU)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["history"] == list(run.history)
    assert written["recipe"]["learning_rate"] == 0.05
    assert written["hardware"]["accelerator"] == "cpu"
    assert written["epochs_to_target"] == run.epochs_to_target
    model = small(seed=9)
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_equal_weights(model, run.model)


def test_damaged_files_of_a_run_are_refused(micro: TrainingData, tmp_path: Path) -> None:
    run = train(small(), replace(MICRO, epochs=1), micro, tmp_path / "run", hardware=CPU)
    again = train(small(), replace(MICRO, epochs=1), micro, tmp_path / "run", hardware=CPU)
    assert again.history == run.history
    weights = (tmp_path / "run" / "weights.pt").read_bytes()
    flipped = bytearray(weights)
    flipped[weights.index(run.model.state_dict()["conv.weight"].numpy().tobytes()) + 5] ^= 4
    for name, content in (
        ("weights.pt", b"garbage"),
        ("weights.pt", bytes(flipped)),
        ("result.json", b"{}"),
        ("result.json", b"[1"),
    ):
        path = tmp_path / "run" / name
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"folder: the finished run in '.*run' is damaged .*; remove it"):
            train(small(), replace(MICRO, epochs=1), micro, tmp_path / "run", hardware=CPU)
        path.write_bytes(whole)
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "last.ckpt").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"path: .*last.ckpt' is no checkpoint that this version"):
        train(small(), replace(MICRO, epochs=1), micro, tmp_path / "run", hardware=CPU)
