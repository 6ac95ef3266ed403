"""From an image file to the tensor that a network takes.

Conventions: an image is a float32 tensor (3, H, W), channels red, green, blue, scaled to 0..1 and then
normalised, ``(image - mean) / std``, by the constants that torchvision's ImageNet models expect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from erfattr._checks import describe

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class UnreadableImageError(ValueError):
    """An image file that no decoder could read; ``path`` and ``reason`` say which and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"image file {path} cannot be read: {reason}")
        self.path = path
        self.reason = reason


def standardize(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Return images (..., 3, H, W) of 0..255 as float32 ``(images / 255 - mean) / std``, channel by channel.

    Example:
        >>> white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
        >>> standardize(white, mean=(0.5, 0.5, 0.0), std=(0.5, 0.25, 1.0)).flatten().tolist()
        [1.0, 2.0, 1.0]
    """
    shift, scale = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))
    return (images.float() / 255 - shift) / scale


def read_image(path: str | Path) -> Image.Image:
    """Return the image in a file as 8-bit RGB, upright: EXIF orientation applied, alpha laid on white.

    Grey becomes RGB, 16-bit grey is scaled to 8 bits, and of several frames the first is read.

    Raises:
        UnreadableImageError: (a ``ValueError``) the file is missing, damaged, cut short or no image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                image = _eight_bits(image)
            if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        raise UnreadableImageError(str(path), f"{type(error).__name__}: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips values above 255 instead of scaling them.
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"expected integers of at most 16 bits, got values up to {values.max()}")
    return Image.fromarray((values // 257).astype(np.uint8))


def to_tensor(image: Image.Image) -> Tensor:
    """Return the pixels of an image as 8-bit RGB, (3, H, W)."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def resize_and_crop(image: Image.Image, size: int) -> Tensor:
    """Return the centre square of an image whose shorter side is resized to ``size`` (bilinear, antialiased).

    The result is uint8 of shape (3, ``size``, ``size``). Lengths are rounded as torchvision's ``Resize`` and
    ``CenterCrop`` do.
    """
    shorter = min(image.size)
    width, height = (length * size // shorter for length in image.size)
    left, top = (round((length - size) / 2) for length in (width, height))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return to_tensor(resized.crop((left, top, left + size, top + size)))


def check_constants(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return both as floats, or raise unless they are three numbers each, ``std`` positive."""
    for name, values in (("mean", mean), ("std", std)):
        try:
            good = len(values) == 3 and all(math.isfinite(value) for value in values)
        except TypeError:
            good = False
        if not good or (name == "std" and min(values) <= 0):
            kind = "positive numbers" if name == "std" else "numbers"
            raise ValueError(f"{name}: expected three {kind}, got {describe(values)}")
    return tuple(map(float, mean)), tuple(map(float, std))
