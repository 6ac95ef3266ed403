"""What ``erfattr train`` and ``erfattr compare`` share: recipe, images, network, hardware."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

from torch import nn

from erfattr.cli._failures import naming
from erfattr.models.heads import replace_head
from erfattr.models.loading import load_model
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import RECIPES, Recipe, find_recipe
from erfattr.training.runs import TrainingRun
from erfattr.training.tasks import task_of


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """Return the recipe with the changes of ``--set``."""
    changes = {}
    for word in options.set:
        field, separator, text = word.partition("=")
        if not separator:
            raise ValueError(f"--set: expected FIELD=VALUE, got {word!r}")
        if field in changes:
            raise ValueError(f"--set: expected each field once, got {field} twice")
        try:
            changes[field] = json.loads(text)
        except (ValueError, RecursionError) as error:  # one of its own, or of the number of digits
            raise ValueError(f"--set: expected a number, null or JSON for {field}, got {text!r}") from error
    with naming(changes="--set", **{field.name: f"--set {field.name}" for field in fields(Recipe)}):
        return find_recipe(options.recipe, **changes)


def training_images(options: argparse.Namespace, recipe: Recipe) -> TrainingImages:
    """Find the images, and read them where the recipe keeps them in memory."""
    with naming(path="--data", names="--data", source="--data"):
        return TrainingImages(
            find_images(options.data, download=options.download), recipe, options.split_seed
        )


def original_model(options: argparse.Namespace, classes: int, seed: int) -> nn.Module:
    """Return the network before its variant is made, with one output for each class."""
    from_scratch = options.weights is None and task_of(RECIPES[options.recipe]).from_scratch
    model, _ = load_model(options.model, "none" if from_scratch else options.weights, seed=seed)
    return replace_head(model, classes, seed)


def hardware(options: argparse.Namespace) -> Hardware:
    """Return where to train, which this machine has."""
    with naming(cuda_graph="--cuda-graph"):
        chosen = Hardware(
            options.accelerator,
            options.devices,
            options.precision,
            options.workers,
            options.resident,
            options.cuda_graph,
        )
    chosen.check_available()
    return chosen


def result_line(run: TrainingRun) -> str:
    """Return what became of a run, in a line."""
    speed = run.history[-1]["images_per_second"]
    return f"{task_of(run.recipe).words(run)}, {speed:.0f} images a second"
