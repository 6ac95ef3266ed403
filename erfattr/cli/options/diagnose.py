"""What ``erfattr diagnose`` takes."""

from __future__ import annotations

from typing import Any

from erfattr.cli.options.arguments import positive, random_seed, word
from erfattr.cli.options.groups import (
    HelpFormatter,
    example,
    model_argument,
    output_options,
    size_options,
    unit_option,
)


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    parser = commands.add_parser(
        "diagnose",
        help="forecast a network's grid without images: which layers make it, what remedies change",
        description="Forecast a sensitivity map from architecture and weights alone: how strong its grid is, "
        "how much of it each strided layer makes, and what each remedy would change, at which cost. Write "
        "the tables as text, the figure (diagnosis.png), the forecast (forecast.npy) and every number "
        "(result.json). With --images measure the map beside it.",
        epilog=example(
            "erfattr diagnose resnet18 --weights none --expected",
            "erfattr diagnose my_package.models:build --expected",
        )
        + "\n\nThe first asks what the architecture alone does: conv1 makes most of the grid, and padding "
        "its kernel takes most of it away. Change the stem of your own network, ask again with the second, "
        "and compare before you train.",
        formatter_class=HelpFormatter,
    )
    model_argument(parser)
    parser.add_argument(
        "--expected",
        action="store_true",
        help="look at the architecture alone: take each layer's mean squared weight instead of its weights",
    )
    parser.add_argument(
        "--layer",
        type=word,
        default="last",
        metavar="LAYER",
        help="forecast the map of this layer's unit; last: the last spatial feature map before global "
        "pooling; output: the network's output",
    )
    unit_option(parser)
    parser.add_argument(
        "--all-layers-only",
        action="store_true",
        help="try no remedies on single layers",
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "--images",
        type=word,
        default=None,
        metavar="FOLDER|embedded",
        help="measure the map over these images too: a folder, or embedded, the photographs inside "
        "scikit-image (default: none)",
    )
    images.add_argument("--count", type=positive, default=64, metavar="N", help="take so many images")
    size_options(images)
    images.add_argument(
        "--batch-size", type=positive, default=8, metavar="N", help="run so many images at once"
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--seed", type=random_seed, default=0, metavar="N", help="seed of random weights and images"
    )
    output_options(run, "erfattr-diagnosis")
