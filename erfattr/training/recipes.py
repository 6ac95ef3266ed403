"""Training recipes as data: the paper's two, and the same scaled down to a processor without a GPU.

Importing this module imports no torch: the command line lists the recipes in its help.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from erfattr._checks import check_bool, describe, suggest
from erfattr.datasets.colors import BLACK, RED, Color
from erfattr.training._settings import check_colors, check_count, check_number, check_side
from erfattr.training.tasks import TASKS

if TYPE_CHECKING:
    from torchvision.transforms import v2


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image, in the order in which they are made; each can be left out.

    Attributes:
        resized_crop: Side in pixels to which a random part of the image (8 to 100 % of its area, sides
            between 3:4 and 4:3) is resized, before the centre is cropped; ``None``: the whole image is.
        rotation: Largest angle in degrees, either way; the corners become black.
        jitter: Brightness, contrast and saturation are changed by up to this share.
        flip: Mirror every other image.
    """

    resized_crop: int | None = None
    rotation: float = 0.0
    jitter: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.resized_crop is not None:
            check_side("augmentation: resized_crop", self.resized_crop)
        check_number(
            "augmentation: rotation", self.rotation, "degrees from 0 to 180", lambda value: 0 <= value <= 180
        )
        check_number("augmentation: jitter", self.jitter, "a number in [0, 1]", lambda value: 0 <= value <= 1)
        check_bool("augmentation: flip", self.flip)

    @classmethod
    def from_settings(cls, settings: Any) -> Augmentation:
        """Return the augmentation that a dict describes, or one that is one already."""
        if isinstance(settings, cls):
            return settings
        known = [field.name for field in fields(cls)]
        if not isinstance(settings, Mapping) or not set(settings) <= set(known):
            raise ValueError(f"augmentation: expected any of {', '.join(known)}, got {describe(settings)}")
        return cls(**settings)

    def transform(self, size: int) -> v2.Transform:
        """Return it as a transform of tensors (3, H, W) to (3, ``size``, ``size``)."""
        from torchvision.transforms import v2

        steps: list[v2.Transform] = [
            v2.Resize(size, antialias=True)
            if self.resized_crop is None
            else v2.RandomResizedCrop(self.resized_crop, antialias=True)
        ]
        if self.rotation:
            steps.append(v2.RandomRotation([-self.rotation, self.rotation]))
        if self.jitter:
            steps.append(v2.ColorJitter(self.jitter, self.jitter, self.jitter))
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        return v2.Compose([*steps, v2.CenterCrop(size)])

    def without_chance(self, size: int) -> v2.Transform:
        """Return the transform of images to test with: the same scale and crop, nothing random."""
        from torchvision.transforms import v2

        resized = max(self.resized_crop or size, size)
        return v2.Compose([v2.Resize(resized, antialias=True), v2.CenterCrop(size)])


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, as plain numbers and texts.

    Stochastic gradient descent with momentum; the learning rate falls from ``learning_rate`` along a cosine,
    epoch by epoch, and would be zero after ``epochs``.

    Attributes:
        name: What it is called.
        task: Name of one of ``TASKS``: ``"classification"`` of the images' own classes, where the network of
            the epoch with the best validation accuracy is tested; or ``"micro_object"`` (see
            `MicroObjectDataset`), where the test accuracy is looked at after each epoch.
        epochs: Passes over the training images at most.
        size: Side of the images in pixels.
        augmentation: Of the training images.
        batch_size: Images a step, over all processes.
        learning_rate: At the start.
        momentum: Of the gradient descent.
        weight_decay: Of all parameters.
        stored_size: Side in pixels to which every image is resized and centre cropped when the run begins, to
            be kept in memory; ``None``: files are decoded in full whenever an image is asked for.
        object_size: Side of the micro-object in pixels.
        colors: Of the micro-objects, one for each class.
        target: Accuracy in percent; the first epoch that exceeds it is the result of a micro-object run.
        looks: Times in an epoch, evenly spread, that a micro-object run measures its test accuracy. With more
            than one, runs are compared by the steps to the target and not by the epochs.
        stop_after: Stop so many epochs after the target was passed: what follows cannot change the result.
            ``None``: never.
        map_size: Side of the images that sensitivity maps are computed over, at least three strides of the
            network for a phase profile.

    Raises:
        TypeError: a field is of the wrong type.
        ValueError: a field is out of its range; the message names it.
    """

    name: str
    task: str
    epochs: int
    size: int
    augmentation: Augmentation = Augmentation()
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    stored_size: int | None = None
    object_size: int = 8
    colors: tuple[Color, ...] = (BLACK, RED)
    target: float = 90.0
    looks: int = 1
    stop_after: int | None = None
    map_size: int = 224

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name: expected a text, got {describe(self.name)}")
        if not isinstance(self.task, str) or self.task not in TASKS:
            raise ValueError(f"task: expected {' or '.join(map(repr, TASKS))}, got {describe(self.task)}")
        for name in ("epochs", "batch_size", "looks"):
            check_count(name, getattr(self, name), 1)
        for name in ("size", "object_size", "map_size"):
            check_side(name, getattr(self, name))
        if self.stored_size is not None:
            check_side("stored_size", self.stored_size)
        if self.stop_after is not None:
            check_count("stop_after", self.stop_after, 0)
        check_number(
            "learning_rate", self.learning_rate, "a positive number", lambda value: 0 < value < math.inf
        )
        check_number("momentum", self.momentum, "a number in [0, 1)", lambda value: 0 <= value < 1)
        check_number(
            "weight_decay", self.weight_decay, "a number of at least 0", lambda value: 0 <= value < math.inf
        )
        check_number("target", self.target, "a percentage between 0 and 100", lambda value: 0 < value < 100)
        if not isinstance(self.augmentation, Augmentation):
            raise TypeError(f"augmentation: expected an Augmentation, got {describe(self.augmentation)}")
        check_colors(self.colors)
        TASKS[self.task](self)  # which checks what it needs of the recipe

    def numbers(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)


# The paper does not say how strong its colour jitter is.
_PAPER_AUGMENTATION = Augmentation(resized_crop=256, rotation=15.0, jitter=0.2, flip=True)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="caltech101_finetune",
            task="classification",
            epochs=200,
            size=224,
            augmentation=_PAPER_AUGMENTATION,
        ),
        Recipe(
            name="micro_object",
            task="micro_object",
            epochs=50,
            size=224,
            augmentation=_PAPER_AUGMENTATION,
        ),
        Recipe(
            name="caltech101_finetune_cpu",
            task="classification",
            epochs=4,
            size=112,
            augmentation=Augmentation(resized_crop=128, rotation=15.0, jitter=0.2, flip=True),
            stored_size=144,
        ),
        Recipe(
            name="micro_object_cpu",
            task="micro_object",
            epochs=50,
            size=32,
            stored_size=32,
            object_size=4,
            stop_after=0,
            map_size=96,
        ),
        Recipe(
            name="micro_object_shades_cpu",
            task="micro_object",
            epochs=50,
            size=32,
            stored_size=32,
            object_size=4,
            # They differ in how much they change a pixel, which eq. 12 says a grid confuses with the place.
            colors=((128, 0, 0), RED),
            stop_after=0,
            map_size=96,
        ),
    )
}


def find_recipe(name: str, /, **changes: Any) -> Recipe:
    """Return the recipe of this name, with some of its fields changed.

    Args:
        name: One of ``RECIPES``.
        **changes: Fields of `Recipe` and their values; the name then says what was changed.

    Raises:
        TypeError: ``name`` is no text, or a value is of the wrong type.
        ValueError: no such recipe or field (the nearest names are suggested), or a value out of its range.

    Example:
        >>> find_recipe("micro_object").object_size
        8
        >>> find_recipe("micro_object", epochs=5).name
        'micro_object, epochs 5'
    """
    if not isinstance(name, str):
        raise TypeError(f"recipe: expected a name, got {describe(name)}")
    if name not in RECIPES:
        raise ValueError(
            f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}{suggest(name, RECIPES)}"
        )
    known = [field.name for field in fields(Recipe)]
    for field in changes:
        if field not in known:
            raise ValueError(f"changes: expected fields of Recipe, got {field!r}{suggest(field, known)}")
    if not changes:
        return RECIPES[name]
    # As JSON has them.
    if "augmentation" in changes:
        changes["augmentation"] = Augmentation.from_settings(changes["augmentation"])
    if isinstance(changes.get("colors"), list):
        changes["colors"] = tuple(
            tuple(color) if isinstance(color, list) else color for color in changes["colors"]
        )
    said = ", ".join([name, *(f"{field.replace('_', ' ')} {value}" for field, value in changes.items())])
    return replace(RECIPES[name], **{"name": said, **changes})
