"""Groups of options that several commands share, as argparse parents, and how their help is shown."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from erfattr.cli.options.arguments import (
    automatic,
    file,
    index_or,
    not_negative,
    numbers,
    positive,
    random_seed,
    size,
    unit,
    word,
)
from erfattr.training.hardware import ACCELERATORS, PRECISIONS
from erfattr.training.recipes import RECIPES

# Images a forward pass, where none are asked for.
ON_CPU, ON_GPU = 8, 64

MODEL_HELP = (
    "a torchvision name such as resnet50, timm/NAME, module.path:factory for your own, or demo, the small "
    "network that ships with the package"
)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tell the default where there is one, unless the help has told it in words; keep an example's lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if part.startswith("Example") else super(HelpFormatter, self)._fill_text(part, width, indent)
            for part in text.split("\n\n")
        )

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or "(default: " in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


WEIGHTS_HELP = (
    "a torchvision weights name such as IMAGENET1K_V1, a checkpoint file, or none for a seeded random "
    "initialisation (default: the model's own)"
)


def example(*lines: str) -> str:
    """Return the end of a command's help: what a person may type, line by line."""
    return "\n  ".join(["Example:" if len(lines) == 1 else "Examples:", *lines])


def model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the model as the command's first word, and ``--weights``."""
    parser.add_argument("model", type=word, help=f"{MODEL_HELP}; -m and --model may stand before it")
    parser.add_argument("--weights", type=word, default=None, help=WEIGHTS_HELP)


def output_options(group: Any, folder: str) -> None:
    """Add where the results go, and how much is printed.

    Args:
        group: Parser or group.
        folder: By default.
    """
    group.add_argument(
        "-o",
        "--output",
        type=file,
        default=Path(folder),
        metavar="FOLDER",
        help="write the results to this folder",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the result of another command in --output; without it that is refused",
    )
    quiet_option(group)


def quiet_option(group: Any) -> None:
    """Add how much is printed to a parser or a group."""
    group.add_argument(
        "-q", "--quiet", action="store_true", help="print the conclusion alone, and show no progress"
    )


def model_options(weights_help: str = WEIGHTS_HELP) -> argparse.ArgumentParser:
    """Return the parent with ``--model`` and ``--weights``."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("model")
    group.add_argument("-m", "--model", type=word, default="demo", help=MODEL_HELP)
    group.add_argument("--weights", type=word, default=None, help=weights_help)
    return parent


def size_options(group: Any) -> None:
    """Add ``--size`` and ``--channels`` of images to a parser or a group."""
    group.add_argument(
        "--size",
        type=size,
        default=None,
        metavar="S|H W",
        help="size of the images in pixels: one number, or height and width (default: the model's)",
    )
    group.add_argument(
        "--channels",
        type=int,
        choices=(1, 3, 4),
        default=None,
        help="read the images as grey, as colour, or as colour and alpha (default: what the model takes)",
    )


def unit_option(parser: argparse.ArgumentParser) -> None:
    """Add which unit of a layer is mapped."""
    parser.add_argument(
        "--unit",
        type=unit,
        default="center",
        metavar="center|I,J",
        help="take the unit at this position of every layer's map, from 0",
    )


def target_option(parser: argparse.ArgumentParser) -> None:
    """Add which of the network's outputs is mapped."""
    parser.add_argument(
        "--target",
        type=index_or("predicted", "label", "mean"),
        default="predicted",
        metavar="predicted|label|INDEX|mean",
        help="map this one of the network's outputs: the largest, the one of the image's class folder, one "
        "by its index, or the mean of all, which nearly cancels in a trained classifier (default: predicted)",
    )


def image_options(title: str = "images", count: int | None = None) -> argparse.ArgumentParser:
    """Return the parent that says which images are read: all that there are, or ``count`` by default."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group(title)
    group.add_argument(
        "--images",
        type=word,
        default="embedded",
        metavar="FOLDER|embedded",
        help="a folder of images, searched with its subfolders, or embedded: crops of the photographs inside "
        "scikit-image",
    )
    group.add_argument(
        "--count",
        type=positive,
        default=count,
        metavar="N",
        help="take so many images" if count else "take so many images (default: all)",
    )
    size_options(group)
    group.add_argument(
        "--mean",
        type=numbers,
        default=None,
        metavar="M",
        help="subtract this from the images, on the scale 0 to 1: one number, or one for each channel "
        "(default: the model's)",
    )
    group.add_argument(
        "--std",
        type=numbers,
        default=None,
        metavar="S",
        help="divide the images by this: one number, or one for each channel (default: the model's)",
    )
    group.add_argument(
        "--workers",
        type=not_negative,
        default=0,
        metavar="N",
        help="decode image files in so many processes, ahead of the network",
    )
    group.add_argument(
        "--strict", action="store_true", help="stop at the first image file that cannot be read"
    )
    return parent


def run_options(
    folder: str,
    *,
    seed: str,
    batch_size: int | None = None,
    batch: str = "so many images",
    page: bool = False,
) -> argparse.ArgumentParser:
    """Return the parent that says how a command runs and where its results go.

    Args:
        folder: For the results, by default.
        seed: What is drawn at random.
        batch_size: Default; ``None``: by the device, for commands whose batches are run in parts where a
            GPU's memory does not hold them.
        batch: What a batch is.
        page: The results are one file, whose name is given instead of a folder's.
    """
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("run")
    group.add_argument(
        "--batch-size",
        type=positive if batch_size else automatic(positive),
        default=batch_size,
        metavar="N" if batch_size else "N|auto",
        help=f"run {batch} a forward pass"
        + ("" if batch_size else f" (default: auto, {ON_CPU} on a processor, {ON_GPU} on a GPU)"),
    )
    group.add_argument(
        "--device",
        type=word,
        default="auto",
        help="compute on this torch device, such as cpu or cuda; auto takes a GPU if there is one",
    )
    group.add_argument("--seed", type=random_seed, default=0, metavar="N", help=f"seed of {seed}")
    if page:
        group.add_argument(
            "-o",
            "--output",
            type=file,
            default=Path(folder),
            metavar="FILE",
            help="write the page to this file",
        )
        group.add_argument("--overwrite", action="store_true", help="replace a file that is there")
        quiet_option(group)
        return parent
    output_options(group, folder)
    return parent


def training_options() -> argparse.ArgumentParser:
    """Return the parent that says what is trained, on which images, and where."""
    parent = argparse.ArgumentParser(
        add_help=False,
        parents=[
            model_options(
                "a torchvision weights name, a checkpoint file, or none (default: none for the micro-object "
                "task, otherwise the model's own); a last layer of another number of outputs is replaced"
            )
        ],
    )
    recipe = parent.add_argument_group("recipe")
    recipe.add_argument(
        "--recipe", type=word, required=True, help=f"follow one of these: {_recipes_in_words()}"
    )
    recipe.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the recipe, such as epochs=5 learning_rate=0.02 (default: none)",
    )
    images = parent.add_argument_group("images")
    images.add_argument(
        "--data",
        type=word,
        required=True,
        metavar="FOLDER",
        help="read images from there: a subfolder for each class, or the root of torchvision's Caltech101",
    )
    images.add_argument(
        "--download", action="store_true", help="download Caltech-101 to --data if it is missing"
    )
    images.add_argument(
        "--split-seed", type=random_seed, default=0, metavar="N", help="seed of the split 70 : 15 : 15"
    )
    hardware = parent.add_argument_group("hardware")
    hardware.add_argument(
        "--accelerator", choices=ACCELERATORS, default="auto", help="auto takes a GPU if there is one"
    )
    hardware.add_argument(
        "--devices",
        type=positive,
        default=1,
        metavar="N",
        help="train on so many GPUs, which share every batch",
    )
    hardware.add_argument(
        "--precision", choices=PRECISIONS, default="32-true", help="compute in this precision"
    )
    hardware.add_argument(
        "--workers",
        type=not_negative,
        default=0,
        metavar="N",
        help="prepare images in so many processes for each device",
    )
    hardware.add_argument(
        "--resident",
        action="store_true",
        help="keep the images in the GPU's memory and change them there, for a GPU that waits for --workers",
    )
    hardware.add_argument(
        "--cuda-graph",
        action="store_true",
        help="with --resident: replay each step as one CUDA graph, for a GPU that waits for a processor",
    )
    hardware.add_argument("-q", "--no-progress", action="store_true", help="show no progress bar")
    return parent


def _recipes_in_words() -> str:
    said = [
        f"{name} ({recipe.task.replace('_', ' ')}, {recipe.epochs} epochs, {recipe.size} pixels)"
        for name, recipe in RECIPES.items()
    ]
    return ", ".join(said)
