"""What several commands share: options of the model, types of arguments, the command as it would be typed."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from erfattr._checks import check_positive_int
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader
from erfattr.datasets.photographs import sample_images
from erfattr.models.loading import ModelInfo

MODEL_HELP = (
    "a torchvision name such as resnet50, timm/NAME, module.path:factory for your own, or demo, the small "
    "network that ships with the package"
)
WEIGHTS_HELP = (
    "a torchvision weights name such as IMAGENET1K_V1, a checkpoint file, or none for a seeded random "
    "initialisation (default: the model's own)"
)


def positive(text: str) -> int:
    """Read a positive integer."""
    value = int(text)
    check_positive_int("value", value)
    return value


def pair(text: str) -> tuple[int, int]:
    """Read two integers, ``I,J``."""
    first, second = text.split(",")
    return int(first), int(second)


def size(text: str) -> tuple[int, int]:
    """Read (H, W) from ``S`` or ``H,W``."""
    return pair(text) if "," in text else (positive(text), positive(text))


def typed_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options as they would be typed."""
    words = []
    for key, value in vars(options).items():
        flag = f"--{key.replace('_', '-')}"
        if key in ("call", "command") or value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words


def chosen_images(
    options: argparse.Namespace, info: ModelInfo
) -> tuple[Any, dict[str, Any], Callable[[], dict[str, str]]]:
    """Return the batches, what is said of them in the record, and what was unreadable once they were read."""
    size = options.size or info.size
    described: dict[str, Any] = {"size": size, "seed": options.seed}
    if options.images == "embedded":
        if options.target == "label":
            raise ValueError('--target: "label" needs a folder of images with a subfolder for each class')
        images = sample_images(options.count, size, mean=info.mean, std=info.std)
        described |= {"source": "scikit-image's photographs", "count": len(images), "files": None}
        return ImageLoader(images, options.batch_size), described, dict
    files = ImageFiles(
        options.images, size, options.count, options.seed, mean=info.mean, std=info.std, strict=options.strict
    )
    root = Path(options.images)
    digest = hashlib.sha256()
    for path in files.paths:
        digest.update(path.read_bytes())
    described |= {
        "source": options.images,
        "count": len(files),
        "files": [str(path.relative_to(root)) for path in files.paths],
        "sha256_of_all_files": digest.hexdigest(),
    }
    return ImageLoader(files, options.batch_size), described, lambda: dict(files.unreadable)
