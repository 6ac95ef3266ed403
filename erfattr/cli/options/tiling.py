"""What ``erfattr tiling`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from erfattr.cli.options.arguments import index_or_key, needs, positive, word
from erfattr.cli.options.groups import HelpFormatter, example, image_options, model_argument, run_options


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "tiling",
        help="how much overlap tiles of large images need",
        description="Print the halo and the alignment with which tiles, put together, equal the whole image, "
        "and measure on images what a smaller halo costs: the difference between tiles and whole image over "
        "the halo. Write the curve (tiling.png) and all numbers (tiling.json).",
        parents=[
            image_options("images that the error is measured on", count=4),
            run_options(
                "erfattr-tiling",
                seed="the choice of images and of random weights",
                batch_size=2,
                batch="so many images",
            ),
        ],
        epilog=example(
            "erfattr tiling fcn_resnet50 --weights none --images slides --size 1024 --coverage 0.99"
        ),
        formatter_class=HelpFormatter,
    )
    model_argument(parser)
    parser.add_argument(
        "--layer", type=word, default=None, help="tile this layer's output instead of the network's"
    )
    parser.add_argument(
        "--select",
        type=index_or_key,
        default=None,
        metavar="KEY",
        help="take this part of an output of several tensors, by index or key",
    )
    parser.add_argument(
        "--coverage",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="suggest a halo that holds this share of the effective receptive field; 1 is exact",
    )
    parser.add_argument(
        "--points", type=positive, default=8, metavar="N", help="measure at so many halos at most"
    )


def check(options: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse what has no effect."""
    for name in ("strict", "workers"):
        needs(options, default, name, options.images != "embedded", "a folder of --images")
