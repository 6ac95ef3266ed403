"""What several commands share: options of the model, types of arguments, the command as it would be typed."""

from __future__ import annotations

import argparse

from erfattr._checks import check_positive_int

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
