"""``erfattr compare``: a network against its changed selves, trained alike with several seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from erfattr._processes import is_first_process
from erfattr.cli._options import positive
from erfattr.cli.train import (
    add_training_options,
    chosen_recipe,
    hardware,
    original_model,
    recipes_in_words,
    result_line,
    training_images,
)
from erfattr.remedies.variants import VARIANTS, make_variant
from erfattr.training.comparison import compare_training
from erfattr.training.runs import TrainingRun
from erfattr.training.tasks import TASKS


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    run = commands.add_parser(
        "compare",
        help="train a network and its padded self, and compare them (extra: train)",
        description="Train variants of a network with the same seeds, and compare what came of them seed by "
        "seed: mean, standard error, paired difference with the p-values of a t-test and of Wilcoxon's "
        "signed-rank test; and the imbalance, phase contrast and alignment of each before and after "
        "training. Started again it goes on where it was. "
        f"{recipes_in_words()}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_training_options(run)
    run.add_argument(
        "--variants",
        nargs="+",
        default=None,
        metavar="VARIANT",
        help="the first is what the others are compared with (default: original, and padded, for the "
        "micro-object task padded_fresh). "
        + "; ".join(f"{name}: {variant.description}" for name, variant in VARIANTS.items()),
    )
    run.add_argument("--seeds", type=positive, default=5, help="number of seeds, 2 or more")
    run.add_argument("--first-seed", type=int, default=0, help="the others are those that follow")
    run.add_argument(
        "--map-images", type=positive, default=256, help="test images that the maps are computed over"
    )
    run.add_argument("--output", type=Path, default=Path("erfattr-comparison"), help="folder for the results")
    run.set_defaults(call=_compare)


def _compare(options: argparse.Namespace) -> None:
    recipe = chosen_recipe(options)
    if options.seeds < 2:
        raise ValueError(f"--seeds: expected 2 or more, got {options.seeds}: one pair has no standard error")
    variants = options.variants or ["original", TASKS[recipe.task].padded]
    probe = original_model(options, 2, 0)
    for name in variants:  # a variant that cannot be made shows before the images are read
        make_variant(name, probe)
    images = training_images(options, recipe)
    classes = len(images.prepared(0).classes)

    def progress(name: str, run: TrainingRun) -> None:
        if is_first_process():
            print(f"seed {run.seed}, {name}: {result_line(run)}", flush=True)

    comparison = compare_training(
        lambda seed: original_model(options, classes, seed),
        variants,
        images,
        range(options.first_seed, options.first_seed + options.seeds),
        options.output,
        n_map_images=options.map_images,
        hardware=hardware(options),
        progress=progress,
        show_progress=not options.no_progress,
    )
    if is_first_process():
        print(f"\n{options.model}, {recipe.name}, {options.seeds} seeds, mean +- standard error:\n")
        print(comparison.table())
        print(f"\nwritten to {options.output}: comparison.json, curves.png, a folder for each run")
