"""Tasks: the two there are, and a third that takes one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from erfattr.datasets.augmented_images import AugmentedDataset
from erfattr.training.comparison import TrainingComparison, VariantRuns
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import Recipe
from erfattr.training.runs import TrainingRun, train
from erfattr.training.tasks import TASKS, Task, first_above, task_of

MICRO = Recipe("micro", "micro_object", epochs=5, size=8, object_size=4, target=60)
CLASSES = replace(MICRO, name="classes", task="classification")


def run_of(recipe: Recipe, *accuracies: float) -> TrainingRun:
    """A finished run of these accuracies, epoch by epoch."""
    history = tuple({"epoch": epoch, "accuracy": value} for epoch, value in enumerate(accuracies, start=1))
    return TrainingRun(
        recipe,
        seed=0,
        history=history,
        epoch=2,
        test_accuracy=71.25,
        epochs_to_target=task_of(recipe).epochs_to_target(history),
        model=nn.Identity(),
    )


# Closed forms.


def test_the_target_is_passed_where_it_is_exceeded() -> None:
    run = run_of(MICRO, 50, 60, 60.5, 55, 99)
    assert first_above(run.history, 60) == 3
    assert first_above(run.history, 99) is None
    assert (task_of(MICRO).result(run), task_of(MICRO).words(run)) == (
        3,
        "test accuracy above 60 % first in epoch 3",
    )
    never = run_of(MICRO, 50, 60)
    assert (task_of(MICRO).result(never), task_of(MICRO).words(never)) == (
        5,
        "test accuracy above 60 % never in 5 epochs",
    )


@pytest.mark.parametrize(("stop_after", "over"), [(None, []), (0, [3, 4, 5]), (1, [4, 5]), (3, [])])
def test_a_run_is_over_so_many_epochs_after_the_target(stop_after: int | None, over: list[int]) -> None:
    recipe = replace(MICRO, stop_after=stop_after)
    history = run_of(recipe, 50, 60, 61, 50, 50).history
    assert [n for n in range(1, 6) if task_of(recipe).is_over(history[:n])] == over
    assert not task_of(replace(recipe, task="classification")).is_over(history)


def test_classification_is_judged_by_the_test_accuracy() -> None:
    task, run = task_of(CLASSES), run_of(CLASSES, 50, 90)
    assert (run.epochs_to_target, task.result(run), task.target) == (None, 71.25, None)
    assert task.words(run) == "test accuracy 71.25 % with the weights of epoch 2"


def test_only_a_task_with_a_target_is_looked_at_within_epochs() -> None:
    assert (task_of(replace(MICRO, looks=4)).outcome(), task_of(MICRO).outcome()) == (
        "steps to 60 %",
        "epochs to 60 %",
    )
    with pytest.raises(ValueError, match=r"looks: expected 1 for the task 'classification'.*got 4"):
        replace(CLASSES, looks=4)


# Oracle: torchmetrics' accuracy, which is single precision.


def test_the_accuracy_is_exact() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification", reason="needs the extra train")
    metric = task_of(CLASSES).metric()
    for seen in (3, 7, 10, 100, 1303):
        for right in range(0, seen + 1, max(seen // 50, 1)):
            labels = torch.arange(seen) % 3
            predicted = torch.where(torch.arange(seen) < right, labels, (labels + 1) % 3)
            for part in torch.randperm(seen).chunk(3):
                metric.update(nn.functional.one_hot(predicted[part], 3).float(), labels[part])
            percent = float(metric.compute())
            metric.reset()
            assert percent == 100 * right / seen  # to the last bit: 60 of 100 do not exceed 60 %
            theirs = 100 * functional.multiclass_accuracy(predicted, labels, 3, average="micro")
            assert percent == pytest.approx(float(theirs), rel=1e-5)


# A third task.


class MirroredImages(AugmentedDataset):
    """Every other image is mirrored."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, *_ = super().__getitem__(index)
        return (image.flip(-1) if index % 2 else image), index % 2


class Mirrored(Task):
    """Tell images from mirrored ones, by the loss of accuracy in words of its own."""

    name = "mirrored"
    keeps_best = False

    def classes(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        return ("as it is", "mirrored")

    def dataset(
        self, images: Any, transform: Callable[[Tensor], Tensor] | None, *, seed: int, fixed: bool
    ) -> AugmentedDataset:
        return MirroredImages(images, transform, seed=seed, fixed=fixed)

    def outcome(self) -> str:
        return "mistakes (%)"

    def result(self, run: TrainingRun) -> float:
        return 100 - run.test_accuracy


def test_a_third_task_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    monkeypatch.setitem(TASKS, "mirrored", Mirrored)
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "images").mkdir()
    ramp = torch.arange(8).mul(2).view(1, 8, 1)
    for index in range(60):  # a little brighter to the right
        pixels = ramp + torch.randint(0, 100, (8, 8, 3), generator=generator)
        Image.fromarray(pixels.byte().numpy()).save(tmp_path / "images" / f"{index}.png")
    recipe = Recipe("mirror", "mirrored", epochs=3, size=8, batch_size=8, stored_size=8)
    data = TrainingImages(find_images(tmp_path / "images"), recipe).prepared(seed=0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    run = train(model, recipe, data, tmp_path / "run", hardware=Hardware("cpu"))
    assert (len(run.history), run.epoch, run.epochs_to_target) == (3, 3, None)
    right = [int(run.model(image[None]).argmax()) == label for image, label in data.test]
    assert run.test_accuracy == 100 * sum(right) / len(right)
    seen = [int(run.model(image[None]).argmax()) == label for image, label in data.validation]
    accuracies = [record["accuracy"] for record in run.history]
    assert accuracies[-1] == 100 * sum(seen) / len(seen)
    assert run.test_accuracy < accuracies[-1] < max(accuracies)  # the last weights, of another part
    runs = VariantRuns("original", 386, (run, replace(run, test_accuracy=90.0)), (), ())
    comparison = TrainingComparison(recipe, (0, 1), (runs,))
    assert comparison.outcome == "mistakes (%)"
    assert comparison.draw().axes[0].get_ylabel() == "validation accuracy (%)"
