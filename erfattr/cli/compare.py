"""``erfattr compare``: a network against its changed selves, trained alike with several seeds."""

from __future__ import annotations

import argparse

from erfattr._processes import is_first_process
from erfattr.cli._failures import naming
from erfattr.cli._record import print_table
from erfattr.cli._training import chosen_recipe, hardware, original_model, result_line, training_images
from erfattr.remedies.variants import make_variant
from erfattr.training.comparison import compare_training
from erfattr.training.runs import TrainingRun
from erfattr.training.tasks import task_of


def run(options: argparse.Namespace) -> None:
    """Train the variants, print a line when a run is finished, and the table at the end."""
    recipe = chosen_recipe(options)
    where = hardware(options)
    if options.seeds < 2:
        raise ValueError(f"--seeds: expected 2 or more, got {options.seeds}: one pair has no standard error")
    variants = options.variants or ["original", task_of(recipe).padded]
    probe = original_model(options, 2, 0)
    for name in variants:  # a variant that cannot be made shows before the images are read
        make_variant(name, probe)
    images = training_images(options, recipe)
    classes = len(images.prepared(0).classes)

    def progress(name: str, result: TrainingRun) -> None:
        if is_first_process():
            print(f"seed {result.seed}, {name}: {result_line(result)}", flush=True)

    with naming(path="--output", map_size="--set map_size"):
        comparison = compare_training(
            lambda seed: original_model(options, classes, seed),
            variants,
            images,
            range(options.first_seed, options.first_seed + options.seeds),
            options.output,
            n_map_images=options.map_images,
            hardware=where,
            progress=progress,
            show_progress=not options.no_progress,
        )
    if is_first_process():
        print(f"\n{options.model}, {recipe.name}, {options.seeds} seeds, mean +- standard error:\n")
        print_table(comparison.table_rows())
        print(f"\nwritten to {options.output}: comparison.json, curves.png, a folder for each run")
