"""What ``erfattr report`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from erfattr.cli.options.arguments import needs, word
from erfattr.cli.options.groups import (
    MODEL_HELP,
    ON_CPU,
    WEIGHTS_HELP,
    HelpFormatter,
    example,
    image_options,
    run_options,
    target_option,
    unit_option,
)
from erfattr.remedies.variants import VARIANTS

PARTS = ("fields", "grid", "saliency", "tiles")
"""Parts of the page that can be left out."""


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "report",
        help="one page a network, or of several side by side, to look at and to send (extra: report)",
        description="Write one HTML file that needs nothing else: a verdict in plain sentences, the maps of "
        "every stage and of the output, which zoom together down to single pixels, sizes against depth, "
        "phase profiles, imbalance with its noise floor, where the grid comes from and what would mend it, "
        "saliency before and after, halo and tiles, the receptive fields of all layers, and how it was made. "
        "A part that cannot be computed for a network says so and ends nothing.",
        epilog=example(
            "erfattr report demo -o demo.html",
            "erfattr report resnet50 --variants original padded -o pair.html",
        )
        + "\n\nThe second shows a network beside its padded self.",
        parents=[
            image_options(),
            run_options(
                "erfattr-report.html",
                seed="the choice of images and of random weights",
                batch_size=ON_CPU,
                page=True,
            ),
        ],
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "models", type=word, nargs="+", metavar="MODEL", help=f"show these networks: each {MODEL_HELP}"
    )
    parser.add_argument(
        "--weights",
        type=word,
        nargs="+",
        default=None,
        metavar="WEIGHTS",
        help=f"take these, one for all networks or one for each: {WEIGHTS_HELP}",
    )
    parser.add_argument(
        "--variants",
        type=word,
        nargs="+",
        default=["original"],
        metavar="VARIANT",
        help="show each network in these variants (default: original). "
        + "; ".join(f"{name}: {variant.description}" for name, variant in VARIANTS.items()),
    )
    parser.add_argument(
        "--layers",
        type=word,
        nargs="+",
        default=["stages", "output"],
        metavar="LAYER",
        help="map these layers, by their dotted names; stages: the last layer of each resolution; last: the "
        "last spatial feature map before global pooling; output: the network's output (default: stages "
        "output)",
    )
    unit_option(parser)
    target_option(parser)
    parser.add_argument(
        "--without",
        choices=PARTS,
        nargs="+",
        default=[],
        metavar="PART",
        help=f"leave these parts out, to save time: {', '.join(PARTS)} (default: none)",
    )


def check(options: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse what has no effect, and what is named twice."""
    for name in ("layers", "variants"):
        words = getattr(options, name)
        if len(set(words)) < len(words):
            raise argparse.ArgumentTypeError(f"--{name}: expected different ones, got {' '.join(words)}")
    if options.weights is not None and len(options.weights) not in (1, len(options.models)):
        raise argparse.ArgumentTypeError(
            f"--weights: expected one for all networks, or one for each of the {len(options.models)}, got "
            f"{len(options.weights)}"
        )
    needs(options, default, "target", "output" in options.layers, "output among --layers")
    needs(
        options,
        default,
        "unit",
        set(options.layers) != {"output"},
        "another layer than output among --layers",
    )
    for name in ("strict", "workers"):
        needs(options, default, name, options.images != "embedded", "a folder of --images")
