"""What ``erfattr train`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erfattr.cli.options.arguments import file, random_seed, word
from erfattr.cli.options.groups import HelpFormatter, example, training_options
from erfattr.remedies.variants import VARIANTS


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "train",
        help="train a network by a recipe (extra: train)",
        description="Train one network by one recipe, with a checkpoint after each epoch. Started again with "
        "the same options the run goes on where it was stopped, and ends as one that was never stopped.",
        parents=[training_options()],
        epilog=example("erfattr train --recipe micro_object_cpu --data photos --seed 1 -o run"),
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--variant",
        type=word,
        default="original",
        help="train this variant. "
        + "; ".join(f"{name}: {variant.description}" for name, variant in VARIANTS.items()),
    )
    parser.add_argument(
        "--seed",
        type=random_seed,
        default=0,
        metavar="N",
        help="seed of weights drawn anew and of the training",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=file,
        default=Path("erfattr-training"),
        metavar="FOLDER",
        help="write the run to this folder",
    )
