"""``erfattr train``: one network by one recipe."""

from __future__ import annotations

import argparse

from erfattr._checks import suggest
from erfattr._processes import is_first_process
from erfattr.cli._failures import naming
from erfattr.cli._training import chosen_recipe, hardware, original_model, result_line, training_images
from erfattr.remedies.variants import VARIANTS, make_variant
from erfattr.training.runs import train


def run(options: argparse.Namespace) -> None:
    """Train the network, and print what became of it."""
    recipe = chosen_recipe(options)
    where = hardware(options)
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
    with naming(path="--output"):
        result = train(
            model,
            recipe,
            data,
            options.output,
            seed=options.seed,
            hardware=where,
            show_progress=not options.no_progress,
        )
    if is_first_process():
        line = result_line(result)
        print(f"{options.model}, {options.variant}, {recipe.name}, seed {options.seed}: {line}")
        print(f"written to {options.output}: result.json, weights.pt, last.ckpt, log")
