"""What ``erfattr rf`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from erfattr.cli.options.arguments import needs, positive, size, word
from erfattr.cli.options.groups import MODEL_HELP, HelpFormatter, example


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "rf",
        help="theoretical receptive field of every layer",
        description="Print the theoretical receptive field of every layer with a spatial map. Sizes and "
        "bounds are those of the centre unit, in pixels (rows, columns); bounds go beyond the image where "
        "padding does.",
        epilog=example(
            "erfattr rf resnet50 vgg16 --depth 1", "erfattr rf timm/convnext_tiny --size 384 --csv"
        ),
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "model",
        type=word,
        nargs="+",
        help=f"{MODEL_HELP}; one or several; -m and --model may stand before it",
    )
    parser.add_argument(
        "--size",
        type=size,
        default=(224, 224),
        metavar="S|H W",
        help="let the image be of this size: one number, or height and width (default: 224)",
    )
    parser.add_argument(
        "--channels",
        type=positive,
        default=None,
        metavar="C",
        help="let the image have so many channels (default: what the model takes)",
    )
    parser.add_argument("--layer", type=word, default=None, help="print only this layer")
    parser.add_argument(
        "--tiling",
        action="store_true",
        help="print what halo and alignment tiles of the output, or of --layer, need instead",
    )
    parser.add_argument(
        "--depth",
        type=positive,
        default=None,
        metavar="N",
        help="print only layers with up to so many parts in their names: 1 for layer4, 2 for layer4.0 "
        "(default: all)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--csv", action="store_true", help="print comma-separated values instead of a table")


def check(options: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse what has no effect, and what cannot be printed together."""
    needs(options, default, "csv", not options.tiling, "no --tiling")
    needs(options, default, "depth", not options.tiling, "no --tiling")
    if options.tiling and len(options.model) > 1:
        raise argparse.ArgumentTypeError(f"--tiling: expected one model, got {' '.join(options.model)}")
    if options.layer is not None and len(options.model) > 1:
        raise argparse.ArgumentTypeError(f"--layer: expected with one model, got {' '.join(options.model)}")
