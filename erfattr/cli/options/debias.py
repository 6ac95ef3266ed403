"""What ``erfattr debias`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Literal, get_args

from erfattr._checks import Mode
from erfattr.cli.options.arguments import file, index_or, is_share, needs, positive
from erfattr.cli.options.groups import (
    ON_CPU,
    HelpFormatter,
    example,
    image_options,
    model_options,
    run_options,
)

Method = Literal["saliency", "input-x-gradient", "integrated-gradients", "smoothgrad", "guided-backprop"]
EMBEDDED = 3
"""How many images are explained where none is named: the first crops of the embedded photographs."""


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "debias",
        help="saliency of images without the network's own grid",
        description="Explain images by a method of Captum, and divide out what the network's sensitivity "
        "alone contributes: the method's expected map, measured over many images or read from a file. "
        "Write one figure (original, raw, debiased, difference, sensitivity map), all of it as NPY, the map "
        "for the next run (calibration.pt), and all that is needed to repeat the run (result.json).",
        parents=[
            model_options(),
            image_options("images that the map is measured on"),
            run_options(
                "erfattr-debias",
                seed="the choice of images, of random weights and of noise",
                batch_size=ON_CPU,
            ),
        ],
        epilog=example(
            "erfattr debias photo.jpg -m resnet50 --images photos --count 200",
            "erfattr debias other.jpg -m resnet50 --map erfattr-debias/calibration.pt -o other",
        ),
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "image",
        nargs="*",
        type=file,
        default=[],
        metavar="IMAGE",
        help=f"explain these image files (default: {EMBEDDED} photographs inside scikit-image)",
    )
    parser.add_argument(
        "--method", choices=get_args(Method), default="saliency", help="explain by this method of Captum"
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=16,
        metavar="N",
        help="take so many steps of integrated-gradients, or noisy copies of smoothgrad",
    )
    parser.add_argument(
        "--target",
        type=index_or("predicted"),
        default="predicted",
        metavar="predicted|INDEX",
        help="explain this class",
    )
    parser.add_argument(
        "--mode",
        choices=get_args(Mode),
        default="phase",
        help="divide out what repeats with the stride, all fine structure, or the whole map",
    )
    parser.add_argument(
        "--period",
        type=positive,
        default=None,
        metavar="PIXELS",
        help="let the pattern have this period (default: the model's total stride)",
    )
    parser.add_argument(
        "--epsilon",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="let no attribution grow by more than 1 / epsilon",
    )
    parser.add_argument(
        "--map",
        type=file,
        default=None,
        metavar="FILE",
        help="read the map from there: calibration.pt of an earlier run, or an NPY file that erfattr map "
        "wrote (default: measure it)",
    )


def check(options: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse what has no effect."""
    is_share(options, "epsilon")
    sampled = ("integrated-gradients", "smoothgrad")
    needs(options, default, "samples", options.method in sampled, f"--method {' or '.join(sampled)}")
    needs(options, default, "period", options.mode != "global", "--mode phase or local")
    needs(options, default, "images", options.map is None, "a map that is measured, not with --map")
    for name in ("strict", "workers"):
        needs(options, default, name, options.images != "embedded", "a folder of --images")
