"""What ``erfattr rf`` takes."""

from __future__ import annotations

from typing import Any

from erfattr.cli.options.arguments import positive, size, word
from erfattr.cli.options.groups import MODEL_HELP, HelpFormatter


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "rf",
        help="theoretical receptive field of every layer",
        description="Print the theoretical receptive field of every layer with a spatial map. Sizes and "
        "bounds are those of the centre unit, in pixels (rows, columns); bounds go beyond the image where "
        "padding does.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("model", type=word, help=MODEL_HELP)
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
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
