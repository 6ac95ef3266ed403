"""What ``erfattr figure`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from erfattr.cli.options.arguments import is_positive, needs, not_negative, positive, word
from erfattr.cli.options.groups import (
    MODEL_HELP,
    HelpFormatter,
    example,
    image_options,
    run_options,
    unit_option,
)


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "figure",
        help="one figure for a paper: effective receptive fields of stages x networks",
        description="Draw the effective receptive fields of several stages of one network or more into one "
        "figure of an exact width, on one colour scale, with insets of single pixels, the theoretical "
        "receptive field and a bar of pixels. Write it as PDF, SVG or PNG with embedded fonts, the maps "
        "(NPY), and all that is needed to repeat the run (result.json).",
        epilog=example("erfattr figure resnet18 swin_t --weights none --count 32 --width 85 170")
        + "\n\nThis draws four stages of both at the width of a column and of a page. Give --layers once for "
        "all networks, or once for each.",
        parents=[
            image_options(),
            run_options("erfattr-figure", seed="the choice of images and of random weights"),
        ],
        formatter_class=HelpFormatter,
    )
    parser.add_argument("models", nargs="+", type=word, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--weights",
        nargs="+",
        type=word,
        default=[],
        metavar="WEIGHTS",
        help="take these weights, one word for all networks or one for each: a torchvision weights name, a "
        "checkpoint file, or none for a seeded random initialisation (default: each model's own)",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        action="append",
        type=word,
        default=[],
        metavar="LAYER",
        help="draw these layers, by their dotted names; given once for all networks, or once for each "
        "(default: the last layers of the last --stages resolutions, or blocks of even depth)",
    )
    parser.add_argument("--stages", type=positive, default=4, metavar="N", help="draw so many stages")
    unit_option(parser)
    figure = parser.add_argument_group("figure")
    figure.add_argument(
        "--width",
        nargs="+",
        type=is_positive,
        default=[170.0],
        metavar="MM",
        help="draw the figure so many millimetres wide, in each of these widths: 85 is a column, 170 a page "
        "(default: 170)",
    )
    figure.add_argument(
        "--format",
        nargs="+",
        choices=("pdf", "svg", "png"),
        default=["pdf", "png"],
        help="write the figure in each of these formats (default: pdf png)",
    )
    figure.add_argument(
        "--zoom",
        type=not_negative,
        default=32,
        metavar="PIXELS",
        help="show so many rows and columns about the centre in an inset; 0: no insets",
    )
    figure.add_argument(
        "--color-scale",
        choices=("auto", "linear", "log"),
        default="auto",
        help="map values to colours so; auto: logarithmic where a linear scale would leave a map dark",
    )
    figure.add_argument(
        "--own-scales", action="store_true", help="give each panel a colour scale of its own, and say so"
    )
    figure.add_argument(
        "--cmap",
        type=word,
        default=None,
        metavar="NAME",
        help="take this colour map of matplotlib (default: magma)",
    )


def check(options: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse lists that do not fit the networks, and what has no effect."""
    count = len(options.models)
    for name in ("weights", "layers"):
        given = len(getattr(options, name))
        if given not in (0, 1, count):
            raise argparse.ArgumentTypeError(
                f"--{name}: expected one for all networks or one for each of {count}, got {given}"
            )
    for layers in options.layers:
        if len(set(layers)) < len(layers):
            raise argparse.ArgumentTypeError(f"--layers: expected different layers, got {' '.join(layers)}")
    for name in ("width", "format"):
        values = getattr(options, name)
        if len(set(values)) < len(values):
            words = " ".join(map(str, values))
            raise argparse.ArgumentTypeError(f"--{name}: expected different ones, got {words}")
    needs(options, default, "stages", not options.layers, "stages that are found, not with --layers")
    for name in ("strict", "workers"):
        needs(options, default, name, options.images != "embedded", "a folder of --images")
