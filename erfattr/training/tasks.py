"""What a network learns from images: a task prepares the data, judges the runs, and words what came of them.

A new task is one class and its place in ``TASKS``; recipes refer to it by its name. Importing this module
imports no torch: the command line lists the recipes with their tasks in its help.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from erfattr.datasets.augmented_images import AugmentedDataset
    from erfattr.training.recipes import Recipe
    from erfattr.training.runs import TrainingRun

History = Sequence[Mapping[str, float]]


class Task(ABC):
    """What is learned by a recipe. As stated here, runs are judged by their test accuracy.

    Args:
        recipe: Whose task it is.

    Attributes:
        name: What recipes and records call it.
        watched: The part of the images whose accuracy is measured after each epoch.
        keeps_best: Whether a run ends with the weights of its best epoch by that accuracy, otherwise with
            those of the last.
        from_scratch: Whether networks begin without trained weights, unless some are asked for.
        padded: The variant that the original is compared with, unless others are asked for.
        target: Accuracy in percent that runs should exceed; ``None``: they need not.

    Raises:
        ValueError: fields of the recipe do not go together.
    """

    name: ClassVar[str]
    watched: ClassVar[Literal["validation", "test"]] = "validation"
    keeps_best: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    padded: ClassVar[str] = "padded"
    target: float | None = None

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        if recipe.looks > 1 and self.target is None:
            raise ValueError(
                f"looks: expected 1 for the task {self.name!r}, which has no target, got {recipe.looks}"
            )

    @abstractmethod
    def classes(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """Return what is told apart, in the order of the labels; ``folders`` are the classes of the images.

        Raises:
            ValueError: the images do not serve.
        """

    @abstractmethod
    def dataset(
        self, images: Any, transform: Callable[[Tensor], Tensor] | None, *, seed: int, fixed: bool
    ) -> AugmentedDataset:
        """Return a part of the images with the labels that are learned, as `AugmentedDataset` takes them."""

    def metric(self) -> Metric:
        """Return what is updated with logits and labels and computes the accuracy: larger is better."""
        from erfattr.training._accuracy import PercentRight

        return PercentRight()

    def is_over(self, history: History) -> bool:  # noqa: ARG002
        """Whether the epochs that are left cannot change the result."""
        return False

    def epochs_to_target(self, history: History) -> int | None:  # noqa: ARG002
        """Return the epoch that a run is judged by, ``None`` where it is judged by its accuracy."""
        return None

    def outcome(self) -> str:
        """Return what runs are compared by, with the unit."""
        return "test accuracy (%)"

    def result(self, run: TrainingRun) -> float:
        """Return the number that a run is compared by."""
        return run.test_accuracy

    def words(self, run: TrainingRun) -> str:
        """Return what became of a run."""
        return f"test accuracy {run.test_accuracy:.2f} % with the weights of epoch {run.epoch}"


class Classification(Task):
    """The images' own classes; the network of the epoch with the best validation accuracy is tested."""

    name = "classification"

    def classes(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """Return the folders."""
        if len(folders) < 2:
            raise ValueError(
                f"source: expected a folder with a subfolder for each of two or more classes, got "
                f"{len(folders)}"
            )
        return folders

    def dataset(
        self, images: Any, transform: Callable[[Tensor], Tensor] | None, *, seed: int, fixed: bool
    ) -> AugmentedDataset:
        """Return the images with the labels they have."""
        from erfattr.datasets.augmented_images import AugmentedDataset

        return AugmentedDataset(images, transform, seed=seed, fixed=fixed)


class MicroObject(Task):
    """Small squares by their colour (section 5): how many epochs until the test accuracy exceeds a target."""

    name = "micro_object"
    watched = "test"
    keeps_best = False
    from_scratch = True
    padded = "padded_fresh"  # even kernels from the beginning, as all weights are drawn anew

    def __init__(self, recipe: Recipe) -> None:
        self.target: float = recipe.target
        super().__init__(recipe)
        if recipe.object_size > recipe.size:
            raise ValueError(
                f"object_size: expected at most the image's {recipe.size} pixels, got {recipe.object_size}"
            )

    def classes(self, folders: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the colours; images of any folders serve as templates."""
        return tuple(map(str, self.recipe.colors))

    def dataset(
        self, images: Any, transform: Callable[[Tensor], Tensor] | None, *, seed: int, fixed: bool
    ) -> AugmentedDataset:
        """Return the images with an object on each."""
        from erfattr.datasets.micro_objects import MicroObjectDataset

        recipe = self.recipe
        return MicroObjectDataset(
            images, recipe.object_size, recipe.colors, transform, seed=seed, fixed=fixed
        )

    def is_over(self, history: History) -> bool:
        """Whether the target was passed as many epochs ago as the recipe waits."""
        passed = first_above(history, self.target)
        if passed is None or self.recipe.stop_after is None:
            return False
        return len(history) >= passed + self.recipe.stop_after

    def epochs_to_target(self, history: History) -> int:
        """Return the first epoch above the target, or the recipe's number of epochs if none was."""
        passed = first_above(history, self.target)
        return self.recipe.epochs if passed is None else passed

    def outcome(self) -> str:
        """Return the epochs to the target, or the steps where it is looked at within epochs."""
        return f"{'steps' if self.recipe.looks > 1 else 'epochs'} to {self.target:g} %"

    def result(self, run: TrainingRun) -> float:
        """Return the epochs or steps to the target; those of all epochs where it was not passed."""
        if self.recipe.looks == 1:
            return self.epochs_to_target(run.history)
        passed = first_above(run.history, self.target)
        if passed is None:
            return self.recipe.epochs * run.history[-1]["steps"] / len(run.history)
        return run.history[passed - 1]["first_step_above"]

    def words(self, run: TrainingRun) -> str:
        """Return when the target was passed, if it was."""
        passed = first_above(run.history, self.target)
        when = f"never in {self.recipe.epochs} epochs" if passed is None else f"first in epoch {passed}"
        return f"test accuracy above {self.target:g} % {when}"


def first_above(history: History, target: float) -> int | None:
    """Return the first epoch, from 1, in which the accuracy exceeded ``target``, at its end or at a look.

    Example:
        >>> first_above([{"epoch": 1, "accuracy": 60.0}, {"epoch": 2, "accuracy": 61.0}], 60)
        2
    """
    return next(
        (
            int(record["epoch"])
            for record in history
            if record["accuracy"] > target or "first_step_above" in record
        ),
        None,
    )


TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, MicroObject)}


def task_of(recipe: Recipe) -> Task:
    """Return the recipe's task."""
    return TASKS[recipe.task](recipe)
