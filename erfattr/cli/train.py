"""``erfattr train``: one network by one recipe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import nn

from erfattr._checks import suggest
from erfattr._processes import is_first_process
from erfattr.cli._options import MODEL_HELP, positive
from erfattr.models.loading import load_model
from erfattr.remedies.variants import VARIANTS, make_variant
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.hardware import PRECISIONS, Hardware
from erfattr.training.recipes import RECIPES, Recipe, find_recipe
from erfattr.training.runs import TrainingRun, replace_head, train
from erfattr.training.tasks import TASKS, task_of


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    run = commands.add_parser(
        "train",
        help="train a network by a recipe (extra: train)",
        description="Train one network by one recipe, with a checkpoint after each epoch. Started again with "
        "the same options the run goes on where it was stopped, and ends as one that was never stopped. "
        f"{recipes_in_words()}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_training_options(run)
    run.add_argument(
        "--variant",
        default="original",
        help="; ".join(f"{name}: {variant.description}" for name, variant in VARIANTS.items()),
    )
    run.add_argument("--seed", type=int, default=0, help="of weights drawn anew and of the training")
    run.add_argument("--output", type=Path, default=Path("erfattr-training"), help="folder of the run")
    run.set_defaults(call=_train)


def recipes_in_words() -> str:
    """Return the names of the recipes and what they are."""
    said = [
        f"{name} ({recipe.task.replace('_', ' ')}, {recipe.epochs} epochs, {recipe.size} pixels)"
        for name, recipe in RECIPES.items()
    ]
    return f"Recipes: {', '.join(said)}."


def add_training_options(run: argparse.ArgumentParser) -> None:
    """Add what ``train`` and ``compare`` share."""
    run.add_argument("--recipe", required=True, help="one of those above")
    run.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the recipe, such as epochs=5 learning_rate=0.02",
    )
    run.add_argument("--model", default="demo", help=MODEL_HELP)
    run.add_argument(
        "--weights",
        default=None,
        help="a torchvision weights name, a checkpoint file, or none (default: none for the micro-object "
        "task, otherwise the model's own); a last layer of another number of outputs is replaced",
    )
    run.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="images, a subfolder for each class, or the root of torchvision's Caltech101",
    )
    run.add_argument(
        "--download", action="store_true", help="download Caltech-101 to --data if it is missing"
    )
    run.add_argument("--split-seed", type=int, default=0, help="of the split 70 : 15 : 15")
    run.add_argument(
        "--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU if there is one"
    )
    run.add_argument("--devices", type=positive, default=1, help="GPUs, which share every batch")
    run.add_argument("--precision", choices=PRECISIONS, default="32-true", help="of the arithmetic")
    run.add_argument("--workers", type=int, default=0, help="processes that prepare images, for each device")
    run.add_argument("--no-progress", action="store_true", help="show no progress bar")


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """Return the recipe with the changes of ``--set``."""
    changes = {}
    for word in options.set:
        field, separator, text = word.partition("=")
        if not separator:
            raise ValueError(f"--set: expected FIELD=VALUE, got {word!r}")
        try:
            changes[field] = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"--set: expected a number, null or JSON for {field}, got {text!r}") from error
    return find_recipe(options.recipe, **changes)


def training_images(options: argparse.Namespace, recipe: Recipe) -> TrainingImages:
    """Find the images, and read them where the recipe keeps them in memory."""
    return TrainingImages(find_images(options.data, download=options.download), recipe, options.split_seed)


def original_model(options: argparse.Namespace, classes: int, seed: int) -> nn.Module:
    """Return the network before its variant is made, with one output for each class."""
    task = TASKS[RECIPES[options.recipe].task]
    from_scratch = options.weights is None and task.from_scratch
    model, _ = load_model(options.model, "none" if from_scratch else options.weights, seed=seed)
    return replace_head(model, classes, seed)


def hardware(options: argparse.Namespace) -> Hardware:
    """Return where to train."""
    return Hardware(options.accelerator, options.devices, options.precision, options.workers)


def result_line(run: TrainingRun) -> str:
    """Return what became of a run, in a line."""
    speed = run.history[-1]["images_per_second"]
    return f"{task_of(run.recipe).words(run)}, {speed:.0f} images a second"


def _train(options: argparse.Namespace) -> None:
    recipe = chosen_recipe(options)
    if options.variant not in VARIANTS:  # before the images are read
        raise ValueError(
            f"--variant: expected one of {', '.join(VARIANTS)}, got {options.variant!r}"
            f"{suggest(options.variant, VARIANTS)}"
        )
    images = training_images(options, recipe)
    data = images.prepared(options.seed)
    model = make_variant(
        options.variant, original_model(options, len(data.classes), options.seed), options.seed
    )
    run = train(
        model,
        recipe,
        data,
        options.output,
        seed=options.seed,
        hardware=hardware(options),
        show_progress=not options.no_progress,
    )
    if is_first_process():
        print(f"{options.model}, {options.variant}, {recipe.name}, seed {options.seed}: {result_line(run)}")
        print(f"written to {options.output}: result.json, weights.pt, last.ckpt, log")
