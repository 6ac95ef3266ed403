"""From an image file to the tensor that a network takes.

Conventions: an image is a float32 tensor (C, H, W), scaled to 0..1 and then normalised,
``(image - mean) / std``, by default by the constants that torchvision's ImageNet models expect. Three
channels are red, green, blue; one is their luma; the fourth is alpha, 1 where the image is opaque.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from erfattr._checks import check_choice, check_positive_int, describe
from erfattr.datasets.sealed_files import ChangedFileError, SealedFiles

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of images with so many channels."""

_IN_WORDS = {1: "one", 3: "three", 4: "four"}


class UnreadableImageError(ValueError):
    """An image file that no decoder could read; ``path`` and ``reason`` say which and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"image file {path} cannot be read: {reason}")
        self.path = path
        self.reason = reason


def standardize(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Return images (..., C, H, W) of 0..255 as float32 ``(images / 255 - mean) / std``, channel by channel.

    Example:
        >>> white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
        >>> standardize(white, mean=(0.5, 0.5, 0.0), std=(0.5, 0.25, 1.0)).flatten().tolist()
        [1.0, 2.0, 1.0]
    """
    shift, scale = (
        torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).to(images.device, non_blocking=True)
        for values in (mean, std)
    )
    return (images.float() / 255 - shift) / scale


class _Content(io.BytesIO):
    """The content of a file, which messages call by the name of the file."""

    def __init__(self, content: bytes, path: str | Path) -> None:
        super().__init__(content)
        self._path = path

    def __repr__(self) -> str:
        return repr(str(self._path))


def read_image(path: str | Path, channels: int = 3, sealed: SealedFiles | None = None) -> Image.Image:
    """Return the image in a file, upright (EXIF orientation applied), of 8 bits a channel.

    One channel is the luma of ITU-R BT.601, as Pillow computes it, and three are RGB, both with alpha laid
    on white; four are RGBA, opaque where the file has no alpha. Grey becomes RGB, 16-bit grey is scaled to 8
    bits, and of several frames the first is read.

    Args:
        path: The file.
        channels: 1, 3 or 4.
        sealed: The files of the run, where its content must be that of one of these.

    Raises:
        UnreadableImageError: (a ``ValueError``) the file is missing, damaged, cut short or no image.
        ChangedFileError: (a ``ValueError``) it was changed since it was sealed.
    """
    try:
        content = path if sealed is None else _Content(sealed.read(Path(path)), path)
        with Image.open(content) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                image = _eight_bits(image)
            if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
                image = image.convert("RGBA")
                if channels != 4:
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert(MODES[channels])
    except ChangedFileError:
        raise
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        raise UnreadableImageError(str(path), f"{type(error).__name__}: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips values above 255 instead of scaling them.
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"expected integers of at most 16 bits, got values up to {values.max()}")
    return Image.fromarray((values // 257).astype(np.uint8))


def to_tensor(image: Image.Image, channels: int = 3) -> Tensor:
    """Return the pixels of an image as 8-bit grey, RGB or RGBA, (``channels``, H, W)."""
    pixels = torch.from_numpy(np.array(image.convert(MODES[channels])))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


def resize_and_crop(image: Image.Image, size: int | tuple[int, int], channels: int = 3) -> Tensor:
    """Return the centre of an image that is resized until it just covers ``size`` (bilinear, antialiased).

    ``size`` is (H, W), or one number for both: then the shorter side is resized to it. The result is uint8 of
    shape (``channels``, H, W). Lengths are rounded as torchvision's ``Resize`` and ``CenterCrop`` do.
    """
    rows, columns = size if isinstance(size, tuple) else (size, size)
    width, height = image.size
    if rows * width >= columns * height:
        width, height = width * rows // height, rows
    else:
        width, height = columns, height * columns // width
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return to_tensor(resized.crop((left, top, left + columns, top + rows)), channels)


def check_size(size: Any) -> tuple[int, int]:
    """Return (H, W) of a size that is one number for both or two, or raise unless they are positive."""
    if not isinstance(size, tuple):
        check_positive_int("size", size)
        return size, size
    if len(size) != 2:
        raise ValueError(f"size: expected one number or (H, W), got {describe(size)}")
    for length in size:
        check_positive_int("size", length)
    return size


def check_channels(channels: Any) -> None:
    """Raise unless images can have so many channels."""
    check_choice("channels", channels, tuple(MODES))


def constants_for(
    channels: int, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return constants of red, green and blue as those of images of ``channels``.

    Grey takes their averages, alpha stays 0..1; constants of grey hold for every colour.

    Example:
        >>> constants_for(1, (0.25, 0.5, 0.75), (0.25, 0.5, 0.75))
        ((0.5,), (0.5,))
        >>> constants_for(4, (0.25, 0.5, 0.75), (0.5, 0.5, 0.5))
        ((0.25, 0.5, 0.75, 0.0), (0.5, 0.5, 0.5, 1.0))
    """
    found = []
    for values, of_alpha in ((mean, 0.0), (std, 1.0)):
        colors = tuple(values[:3])
        if len(values) == channels:
            found.append(tuple(values))
        elif channels == 1:
            found.append((sum(colors) / len(colors),))
        else:
            found.append((colors if len(colors) == 3 else 3 * colors) + (of_alpha,) * (channels - 3))
    return found[0], found[1]


def check_constants(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int = 3
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return both as floats, or raise unless they are a number for each channel, ``std`` positive.

    ``None`` stands for ImageNet's.
    """
    imagenet = constants_for(channels)
    mean, std = (imagenet[0] if mean is None else mean), (imagenet[1] if std is None else std)
    for name, values in (("mean", mean), ("std", std)):
        try:
            good = len(values) == channels and all(math.isfinite(value) for value in values)
        except TypeError:
            good = False
        if not good or (name == "std" and min(values) <= 0):
            kind = ("positive " if name == "std" else "") + ("number" if channels == 1 else "numbers")
            raise ValueError(f"{name}: expected {_IN_WORDS[channels]} {kind}, got {describe(values)}")
    return tuple(map(float, mean)), tuple(map(float, std))
