"""What ``erfattr map`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_args

from erfattr._checks import Precision, Rectify, ToleranceOf
from erfattr.cli.options.arguments import (
    file,
    is_share,
    layout,
    needs,
    positive,
    word,
)
from erfattr.cli.options.conditions import NUMBERS, condition
from erfattr.cli.options.groups import (
    HelpFormatter,
    example,
    image_options,
    model_options,
    run_options,
    target_option,
    unit_option,
)


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "map",
        help="effective receptive fields and the dead-pixel map of a network, over images",
        description="Average a network's sensitivity to its pixels over images: for units of feature maps "
        "(effective receptive fields), and for the output (dead-pixel map). Write figures (PNG), the maps "
        "(NPY), and every number with all that is needed to repeat the run (result.json).",
        parents=[
            model_options(),
            image_options(),
            run_options("erfattr-map", seed="the choice of images and of random weights"),
        ],
        epilog=example(
            "erfattr map                 # the demo network over photographs inside scikit-image",
            "erfattr map -m resnet50 --layers layer4 output --images photos --count 200 -o resnet50-maps",
            "erfattr map -m resnet50 --images photos --fail-if 'output: L1 > 0.2'",
        ),
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--layers",
        type=word,
        nargs="+",
        default=["last", "output"],
        metavar="LAYER",
        help="map these layers, by their dotted names; last: the last spatial feature map before global "
        "pooling; output: the network's output (default: last output)",
    )
    unit_option(parser)
    parser.add_argument(
        "--to-spatial",
        type=layout,
        default=None,
        metavar="LAYOUT",
        help="say where rows and columns lie in what the layers give: channels-last, tokens:HxW, or "
        "tokens:HxW+P for P other tokens before the grid, such as tokens:14x14+1 (default: found out)",
    )
    parser.add_argument(
        "--select",
        type=word,
        default=None,
        metavar="INDEX|KEY",
        help="take this tensor of the named layers and of the output, which give several; a key of digits "
        "stands in quotes (default: the only one, or the one called out or logits)",
    )
    target_option(parser)
    parser.add_argument(
        "--rectify", choices=get_args(Rectify), default="relu", help="do this to the gradient of each image"
    )
    parser.add_argument(
        "--group",
        choices=("folder",),
        default=None,
        help="count the images of a folder as one draw: frames of a video, tiles of a slide, copies",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=None,
        metavar="SHARE",
        help="stop as soon as the relative standard error of every map is below this",
    )
    parser.add_argument(
        "--tolerance-of",
        choices=get_args(ToleranceOf),
        default="pixels",
        help="look at the error's median over pixels, or at that of the noise-corrected imbalance index",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=None,
        help="run a copy of the model in this type (default: the model's own)",
    )
    parser.add_argument(
        "--fail-if",
        type=condition,
        nargs="+",
        default=None,
        metavar="CONDITION",
        help="end with status 3 where a number of a map lies beyond a limit, such as 'L1 > 0.2' or 'output: "
        f"contrast > 0.1'; numbers: {', '.join(NUMBERS)}",
    )
    parser.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="run the model as it is, on whole images: no folding, no crops, no channels last",
    )
    parser.add_argument(
        "--state",
        type=file,
        default=None,
        metavar="FILE",
        help="save the state there as the run goes on, and continue from it when started again",
    )
    parser.add_argument(
        "--state-interval", type=positive, default=256, metavar="N", help="save after this many images"
    )
    parser.add_argument(
        "--against",
        type=word,
        default=None,
        metavar="MODEL",
        help="map this network too, and compare the imbalance of both",
    )
    parser.add_argument(
        "--against-weights", type=word, default=None, metavar="WEIGHTS", help="take these weights for it"
    )


def check(options: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse what has no effect, and layers named twice."""
    is_share(options, "tolerance")
    layers = options.layers
    if len(set(layers)) < len(layers):
        raise argparse.ArgumentTypeError(f"--layers: expected different layers, got {' '.join(layers)}")
    for one in options.fail_if or []:
        if one.map is not None and one.map not in layers:
            raise argparse.ArgumentTypeError(
                f"--fail-if: expected a map of --layers ({', '.join(layers)}), got {one.map!r}"
            )
    of_features = set(layers) != {"output"}
    needs(options, default, "against_weights", options.against is not None, "--against")
    needs(options, default, "state_interval", options.state is not None, "--state")
    needs(options, default, "tolerance_of", options.tolerance is not None, "--tolerance")
    needs(options, default, "target", "output" in layers, "output among --layers")
    needs(options, default, "unit", of_features, "another layer than output among --layers")
    needs(options, default, "to_spatial", of_features, "another layer than output among --layers")
    needs(options, default, "select", set(layers) != {"last"}, "output or a name among --layers")
    for name in ("strict", "workers"):
        needs(options, default, name, options.images != "embedded", "a folder of --images")
