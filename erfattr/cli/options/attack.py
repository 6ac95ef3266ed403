"""What ``erfattr attack`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from erfattr.cli.options.arguments import file, is_share, needs, not_negative, positive
from erfattr.cli.options.groups import HelpFormatter, example, image_options, model_options, run_options


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "attack",
        help="change one pixel of each image so that the network's answer changes",
        description="Change one pixel of each image, or few, by differential evolution (Su et al. 2019): any "
        "pixel, or one of those that a sensitivity map calls strong. Colours are those that 8-bit files "
        "hold, and every success is checked on the image as it is written. Write the adversarial images "
        "(PNG), a contact sheet with the changed pixels circled and both labels, and all numbers with what "
        "is needed to repeat the run (result.json).",
        parents=[
            model_options(),
            image_options(count=10),
            run_options(
                "erfattr-attack",
                seed="the search, of the choice of images and of random weights",
                batch_size=64,
                batch="at most so many samples",
            ),
        ],
        epilog=example(
            "erfattr attack              # ten embedded images, the demo network's own answers",
            "erfattr attack -m resnet18 --images photos --target label --aim all -o attacked",
        ),
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--target",
        choices=("predicted", "label"),
        default="predicted",
        help="leave this class: the network's own answer, or that of the image's class folder; images whose "
        "answer is another one already are not attacked",
    )
    parser.add_argument(
        "--reach",
        type=not_negative,
        default=None,
        metavar="INDEX",
        help="reach this class instead of leaving one",
    )
    parser.add_argument(
        "--pixels", type=positive, default=1, metavar="N", help="change so many pixels of each image"
    )
    parser.add_argument(
        "--aim",
        choices=("all", "strong"),
        default="strong",
        help="try all pixels, or the strongest of the dead-pixel map",
    )
    parser.add_argument(
        "--fraction",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="try this share of the pixels with --aim strong",
    )
    parser.add_argument(
        "--map",
        type=file,
        default=None,
        metavar="FILE",
        help="read the map of --aim strong from there: an NPY file that erfattr map wrote (default: measure "
        "it over the attacked images)",
    )
    parser.add_argument(
        "--population",
        type=positive,
        default=40,
        metavar="N",
        help="try so many candidates a generation; the paper: 400",
    )
    parser.add_argument(
        "--generations",
        type=positive,
        default=9,
        metavar="N",
        help="breed so many generations after the first; the paper: 100",
    )


def check(options: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse what has no effect, and a class to leave where one is to be reached."""
    is_share(options, "fraction")
    if options.reach is not None and options.target == "label":
        raise argparse.ArgumentTypeError(
            "--reach: expected without --target label, since a class is reached and none left"
        )
    for name in ("map", "fraction"):
        needs(options, default, name, options.aim == "strong", "--aim strong")
    for name in ("strict", "workers"):
        needs(options, default, name, options.images != "embedded", "a folder of --images")
