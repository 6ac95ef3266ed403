from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from erfattr.training.recipes import RECIPES, Augmentation, Recipe, find_recipe


def test_the_papers_recipes_are_the_papers() -> None:
    finetune, micro = RECIPES["caltech101_finetune"], RECIPES["micro_object"]
    for recipe in (finetune, micro):
        assert (recipe.momentum, recipe.learning_rate, recipe.weight_decay) == (0.9, 0.01, 0.0005)
        assert (recipe.batch_size, recipe.size) == (64, 224)
        assert recipe.augmentation.resized_crop == 256
        assert recipe.augmentation.rotation == 15
        assert recipe.augmentation.flip
        assert recipe.augmentation.jitter > 0
    assert (finetune.task, finetune.epochs) == ("classification", 200)
    assert (micro.task, micro.epochs, micro.target, micro.object_size) == ("micro_object", 50, 90, 8)
    assert micro.colors == ((0, 0, 0), (255, 0, 0))


def test_recipes_are_data() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        read = json.loads(json.dumps(recipe.numbers()))
        read["augmentation"] = Augmentation(**read["augmentation"])
        read["colors"] = tuple(map(tuple, read["colors"]))
        assert Recipe(**read) == recipe


def test_an_image_is_augmented_in_the_order_of_the_paper() -> None:
    steps = Augmentation(resized_crop=256, rotation=15, jitter=0.2, flip=True).transform(224).transforms
    assert [type(step).__name__ for step in steps] == [
        "RandomResizedCrop",
        "RandomRotation",
        "ColorJitter",
        "RandomHorizontalFlip",
        "CenterCrop",
    ]


def test_without_augmentation_training_and_test_images_are_alike() -> None:
    image = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8)
    nothing = Augmentation()
    assert torch.equal(nothing.transform(16)(image), nothing.without_chance(16)(image))
    assert nothing.transform(16)(image).shape == (3, 16, 16)


def test_test_images_have_the_scale_and_crop_of_training_images() -> None:
    # A linear ramp over 64 columns: at scale 32 / 64 the central 16 columns of 32 span half of it.
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    seen = Augmentation(resized_crop=32).without_chance(16)(ramp)[0, 0]
    assert math.isclose(float(seen[-1] - seen[0]), 2 * 15 / 63, rel_tol=1e-5)


def test_a_changed_recipe_says_so_and_leaves_the_original() -> None:
    changed = find_recipe("micro_object_cpu", epochs=3, learning_rate=0.5)
    assert changed.name == "micro_object_cpu, epochs 3, learning rate 0.5"
    assert (changed.epochs, changed.learning_rate) == (3, 0.5)
    assert RECIPES["micro_object_cpu"].epochs == 50
    assert find_recipe("micro_object_cpu") is RECIPES["micro_object_cpu"]


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("micro_objekt", {}, ValueError, "recipe: expected one of .*nearest: micro_object"),
        (3, {}, TypeError, "recipe: expected a name, got 3"),
        ("micro_object", {"epoch": 3}, ValueError, "expected fields of Recipe, got 'epoch'; nearest: epochs"),
        ("micro_object", {"epochs": 0}, ValueError, "epochs: expected a positive integer, got 0"),
        ("micro_object", {"epochs": 2.5}, TypeError, "epochs: expected a positive integer, got 2.5"),
        (
            "micro_object",
            {"object_size": 300},
            ValueError,
            "expected at most the image's 224 pixels, got 300",
        ),
        ("micro_object", {"task": "detection"}, ValueError, "task: expected 'classification' or"),
        (
            "micro_object",
            {"learning_rate": 0},
            ValueError,
            "learning_rate: expected a positive number, got 0",
        ),
        ("micro_object", {"target": 100}, ValueError, "target: expected a percentage between 0 and 100"),
    ],
)
def test_bad_recipes(name: Any, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_recipe(name, **changes)
