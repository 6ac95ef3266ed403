"""Photographs that are there without files of one's own and without a network."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from erfattr._checks import check_positive_int
from erfattr.datasets.preprocessing import (
    check_channels,
    check_constants,
    check_size,
    read_image,
    resize_and_crop,
    standardize,
)

# Photographs that have shipped inside scikit-image's wheel, unchanged, since at least 0.21; colour first.
SAMPLE_PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "camera.png",
    "coins.png",
)
# Side as a fraction of the shorter side, and where in the free room the square lies: (top, left) in 0..1.
SAMPLE_CROPS = (
    (1.0, 0.5, 0.5),
    (0.75, 0.0, 0.0),
    (0.75, 0.0, 1.0),
    (0.75, 1.0, 0.0),
    (0.75, 1.0, 1.0),
    (0.6, 0.5, 0.5),
    (0.6, 0.5, 0.0),
    (0.6, 0.5, 1.0),
)


def sample_images(
    count: int | None = None,
    size: int | tuple[int, int] = 224,
    *,
    normalize: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int = 3,
) -> Tensor:
    """Return fixed square crops of the photographs inside scikit-image's wheel: no download, nothing random.

    Eight photographs (``SAMPLE_PHOTOGRAPHS``) are cut by eight boxes (``SAMPLE_CROPS``), from the whole
    shorter side down to 0.6 of it; image ``k`` is crop ``k // 8`` of photograph ``k % 8``, so the first eight
    show eight different photographs. The 64 images overlap: they are for demonstrations and tests, and 64 of
    them say less about a network than 64 independent photographs.

    Args:
        count: How many, 1 to 64; ``None`` is all 64.
        size: (H, W) of the images in pixels, or one number for both. Where they differ, the middle of each
            square is taken.
        normalize: Subtract ``mean`` and divide by ``std``; otherwise values are 0..1.
        mean: Of the channels on the scale 0..1; by default ImageNet's, and for grey their average.
        std: Of the channels on the scale 0..1; by default likewise.
        channels: 1 for grey, 3 for red, green, blue, 4 for these and an alpha of 1.

    Returns:
        Shape (``count``, ``channels``, H, W), float32.

    Raises:
        TypeError: ``count`` or ``size`` is not an integer.
        ValueError: ``count`` is not 1 to 64, ``size`` is not positive, ``channels`` is not 1, 3 or 4, or
            ``mean`` or ``std`` are not a number for each channel.
        FileNotFoundError: this installation of scikit-image came without its photographs.

    Example:
        >>> images = sample_images(3, size=32, normalize=False)
        >>> images.shape, images.dtype, bool(images.min() >= 0), bool(images.max() <= 1)
        (torch.Size([3, 3, 32, 32]), torch.float32, True, True)
    """
    available = len(SAMPLE_PHOTOGRAPHS) * len(SAMPLE_CROPS)
    count = available if count is None else count
    check_positive_int("count", count)
    size = check_size(size)
    check_channels(channels)
    if count > available:
        raise ValueError(
            f"count: expected at most {available} sample images, got {count}; use a folder of images"
        )
    mean, std = check_constants(mean, std, channels)
    photographs = [read_image(_photograph(name), channels) for name in SAMPLE_PHOTOGRAPHS[:count]]
    crops = []
    for index in range(count):
        crop, photograph = divmod(index, len(SAMPLE_PHOTOGRAPHS))
        square = _square(photographs[photograph], *SAMPLE_CROPS[crop])
        crops.append(resize_and_crop(square, size, channels))
    images = torch.stack(crops)
    return standardize(images, mean, std) if normalize else images.float() / 255


def _square(image: Image.Image, fraction: float, top: float, left: float) -> Image.Image:
    width, height = image.size
    side = round(fraction * min(width, height))
    y, x = round(top * (height - side)), round(left * (width - side))
    return image.crop((x, y, x + side, y + side))


def _photograph(name: str) -> Path:
    # Read as files: the functions of skimage.data would write to a cache folder, or download.
    package = importlib.util.find_spec("skimage")
    folders = package.submodule_search_locations if package is not None else None
    path = Path(next(iter(folders or ["skimage"]))) / "data" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"sample photograph {path} is not there; scikit-image's wheel holds it (pip install scikit-image)"
        )
    return path
