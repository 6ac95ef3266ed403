"""What ``erfattr compare`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erfattr.cli.options.arguments import file, positive, random_seed, word
from erfattr.cli.options.groups import HelpFormatter, example, training_options
from erfattr.remedies.variants import VARIANTS


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "compare",
        help="train a network and its padded self, and compare them (extra: train)",
        description="Train variants of a network with the same seeds, and compare what came of them seed by "
        "seed: mean, standard error, paired difference with the p-values of a t-test and of Wilcoxon's "
        "signed-rank test; and the imbalance, phase contrast and alignment of each before and after "
        "training. Started again it goes on where it was.",
        parents=[training_options()],
        epilog=example("erfattr compare --recipe micro_object_cpu --data photos --seeds 5"),
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--variants",
        type=word,
        nargs="+",
        default=None,
        metavar="VARIANT",
        help="train these, and compare the others with the first (default: original, and padded, for the "
        "micro-object task padded_fresh). "
        + "; ".join(f"{name}: {variant.description}" for name, variant in VARIANTS.items()),
    )
    parser.add_argument(
        "--seeds", type=positive, default=5, metavar="N", help="train each with so many seeds, 2 or more"
    )
    parser.add_argument(
        "--first-seed",
        type=random_seed,
        default=0,
        metavar="N",
        help="begin with this seed; the others follow it",
    )
    parser.add_argument(
        "--map-images", type=positive, default=256, metavar="N", help="compute maps over so many test images"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=file,
        default=Path("erfattr-comparison"),
        metavar="FOLDER",
        help="write the results to this folder",
    )
