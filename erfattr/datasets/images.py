"""Images to run the analyses on: folders of image files, and crops that need neither files nor a network.

Conventions: an image is a float32 tensor (3, H, W), channels red, green, blue, scaled to 0..1 and then
normalised, ``(image - mean) / std``, by the constants that torchvision's ImageNet models expect. A dataset is
a ``torch.utils.data.Dataset`` of such images, or of ``(image, label)`` pairs; ``ImageLoader`` turns it into
the batches that the attributions take.
"""

from __future__ import annotations

import importlib.util
import math
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import functional as F

from erfattr._checks import check_positive_int, describe

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

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


def resize_and_crop(image: Image.Image, size: int) -> Tensor:
    """Return the centre square of an image whose shorter side is resized to ``size`` (bilinear, antialiased).

    The result is uint8 of shape (3, ``size``, ``size``).
    """
    square: Tensor = F.pil_to_tensor(F.center_crop(F.resize(image, [size]), [size]))
    return square


def sample_images(
    count: int | None = None,
    size: int = 224,
    *,
    normalize: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Return fixed square crops of the photographs inside scikit-image's wheel: no download, nothing random.

    Eight photographs (``SAMPLE_PHOTOGRAPHS``) are cut by eight boxes (``SAMPLE_CROPS``), from the whole
    shorter side down to 0.6 of it; image ``k`` is crop ``k // 8`` of photograph ``k % 8``, so the first eight
    show eight different photographs. The 64 images overlap: they are for demonstrations and tests, and 64 of
    them say less about a network than 64 independent photographs.

    Args:
        count: How many, 1 to 64; ``None`` is all 64.
        size: Side of the images in pixels.
        normalize: Subtract ``mean`` and divide by ``std``; otherwise values are 0..1.
        mean: Of the three channels on the scale 0..1; by default ImageNet's.
        std: Of the three channels on the scale 0..1; by default ImageNet's.

    Returns:
        Shape (``count``, 3, ``size``, ``size``), float32.

    Raises:
        TypeError: ``count`` or ``size`` is not an integer.
        ValueError: ``count`` is not 1 to 64, ``size`` is not positive, or ``mean`` or ``std`` are not three
            numbers.
        FileNotFoundError: this installation of scikit-image came without its photographs.

    Example:
        >>> images = sample_images(3, size=32, normalize=False)
        >>> images.shape, images.dtype, bool(images.min() >= 0), bool(images.max() <= 1)
        (torch.Size([3, 3, 32, 32]), torch.float32, True, True)
    """
    available = len(SAMPLE_PHOTOGRAPHS) * len(SAMPLE_CROPS)
    count = available if count is None else count
    check_positive_int("count", count)
    check_positive_int("size", size)
    if count > available:
        raise ValueError(
            f"count: expected at most {available} sample images, got {count}; use a folder of images"
        )
    mean, std = check_constants(mean, std)
    photographs = [read_image(_photograph(name)) for name in SAMPLE_PHOTOGRAPHS[:count]]
    crops = []
    for index in range(count):
        crop, photograph = divmod(index, len(SAMPLE_PHOTOGRAPHS))
        square = _square(photographs[photograph], *SAMPLE_CROPS[crop])
        crops.append(resize_and_crop(square, size))
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


class ImageFiles(Dataset[Any]):
    """The images under a folder and its subfolders, sorted by path, or a seeded random choice of them.

    Files are taken by their ending (those of ``torchvision.datasets.ImageFolder``); names that begin with a
    dot are passed over. The shorter side is resized to ``size``, then the centre is cropped. Item ``i`` is
    ``(image, label)`` where every image lies in a subfolder: the sorted subfolders of ``path`` are the
    classes, as in ``ImageFolder``. Otherwise it is the image alone. Asking for an unreadable file raises;
    ``ImageLoader`` passes over it and records it in ``unreadable``, unless ``strict`` is set.

    Args:
        path: The folder.
        size: Side of the images in pixels.
        count: Take at most so many files, chosen at random but kept in order; ``None`` takes all.
        seed: Of that choice, which is the same on every machine. Global random numbers are not used.
        mean: Of the three channels on the scale 0..1; by default ImageNet's, (0, 0, 0) for none.
        std: Of the three channels on the scale 0..1; by default ImageNet's, (1, 1, 1) for none.
        strict: Let ``ImageLoader`` stop at the first unreadable file.

    Attributes:
        paths: The files. Nothing is decoded before it is asked for: unreadable files are among them.
        labels: Class index of each file, or ``None``.
        classes: Name of each class.
        unreadable: Reason by file name, of the files that ``ImageLoader`` could not read so far.

    Raises:
        TypeError: ``size`` or ``count`` is not an integer.
        ValueError: the folder is missing, a file, or holds no image; ``size`` or ``count`` is not positive;
            ``mean`` or ``std`` are not three numbers.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> Image.new("RGB", (6, 4), (255, 0, 51)).save(Path(folder.name) / "red.png")
        >>> files = ImageFiles(folder.name, size=2, mean=(0, 0, 0), std=(1, 1, 1))
        >>> [round(value, 3) for value in files[0][:, 0, 0].tolist()]
        [1.0, 0.0, 0.2]
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 224,
        count: int | None = None,
        seed: int = 0,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        strict: bool = False,
    ) -> None:
        check_positive_int("size", size)
        if count is not None:
            check_positive_int("count", count)
        self.size = size
        self.mean, self.std = check_constants(mean, std)
        self.strict = strict
        self.unreadable: dict[str, str] = {}
        root = Path(path)
        if not root.is_dir():
            fault = "is a file" if root.exists() else "does not exist"
            raise ValueError(f"path: expected a folder of images, but {root} {fault}")
        paths = _image_paths(root)
        if not paths:
            endings = " ".join(IMG_EXTENSIONS)
            raise ValueError(
                f"path: expected a folder of images, but {root} holds no file ending in {endings}"
            )
        owners = [file.relative_to(root).parts for file in paths]
        self.classes: tuple[str, ...] = ()
        if all(len(parts) > 1 for parts in owners):
            folders = (folder.name for folder in root.iterdir() if folder.is_dir())
            self.classes = tuple(sorted(name for name in folders if not name.startswith(".")))
        chosen: Sequence[int] = range(len(paths))
        if count is not None and count < len(paths):
            chosen = sorted(random.Random(seed).sample(chosen, count))
        index = {name: label for label, name in enumerate(self.classes)}
        self.paths = tuple(paths[i] for i in chosen)
        self.labels = tuple(index[owners[i][0]] for i in chosen) if self.classes else None

    def __len__(self) -> int:
        """Return the number of files, unreadable ones among them."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        """Return image ``index``, (3, size, size), with its label if there are labels.

        Raises:
            UnreadableImageError: (a ``ValueError``) the file cannot be read.
        """
        image = standardize(resize_and_crop(read_image(self.paths[index]), self.size), self.mean, self.std)
        return image if self.labels is None else (image, self.labels[index])


def _image_paths(root: Path) -> list[Path]:
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in names
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)


class ImageLoader:
    """Batches of a dataset, in order, that pass over unreadable image files and record them.

    It yields what ``torch.utils.data.DataLoader`` would: a tensor (N, 3, H, W), or ``(images, labels)``. A
    batch with unreadable files is smaller by their number, and one without any image left is not yielded;
    ``len()`` counts the batches of a dataset whose files are all readable. Random numbers are not drawn.

    Args:
        dataset: ``ImageFiles``, or any dataset of images or (image, label) pairs of one size.
        batch_size: Images a batch.
        num_workers: Processes that decode; 0 decodes in this one.

    Raises:
        TypeError: ``batch_size`` or ``num_workers`` is not an integer.
        ValueError: ``batch_size`` is not positive or ``num_workers`` negative. While iterating: a file is
            unreadable and the dataset strict, or no file is readable.

    Example:
        >>> images = torch.arange(5.0).view(5, 1, 1, 1)
        >>> [batch.flatten().tolist() for batch in ImageLoader(images, batch_size=2)]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """

    def __init__(self, dataset: Dataset[Any] | Tensor, batch_size: int = 16, num_workers: int = 0) -> None:
        check_positive_int("batch_size", batch_size)
        if isinstance(num_workers, bool) or not isinstance(num_workers, int):
            raise TypeError(f"num_workers: expected an integer of at least 0, got {describe(num_workers)}")
        if num_workers < 0:
            raise ValueError(f"num_workers: expected an integer of at least 0, got {num_workers}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers

    def __len__(self) -> int:
        """Return the number of batches if every file is readable."""
        return math.ceil(len(self.dataset) / self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches; each pass reads the files anew."""
        for _, _, batch in self.batches_from(0, (0, 1)):
            yield batch

    def batches_from(self, start: int, share: tuple[int, int]) -> Iterator[tuple[int, int, Any]]:
        """Yield number of the batch, of its first item, and the batch, reading no other files than these.

        Args:
            start: Leave out the batches that begin before this item.
            share: (r, k): of all batches take every k-th from the r-th on.
        """
        rank, world = share
        numbers = [
            number
            for number in range(len(self))
            if number % world == rank and number * self.batch_size >= start
        ]
        length = len(self.dataset)  # type: ignore[arg-type]
        ranges = [
            range(number * self.batch_size, min((number + 1) * self.batch_size, length)) for number in numbers
        ]
        loader = DataLoader(
            _Attempts(self.dataset),
            batch_sampler=ranges,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # otherwise torch draws the workers' seed from the global generator
        )
        failures: dict[str, str] = {}
        empty = True
        for number, (batch, failed) in zip(numbers, loader, strict=True):
            # Workers only report: a copy of the dataset lives in each, and what it recorded would be lost.
            failures.update(failed)
            if isinstance(self.dataset, ImageFiles):
                self.dataset.unreadable.update(failed)
                if failed and self.dataset.strict:
                    raise UnreadableImageError(*next(iter(failed.items())))
            if batch is not None:
                empty = False
                yield number, number * self.batch_size, batch
        if empty and failures:
            path, reason = next(iter(failures.items()))
            raise ValueError(
                f"images: expected a readable file, got {len(failures)} unreadable ones; {path}: {reason}"
            )


class _Attempts(Dataset[Any]):
    """Item ``i`` is ``(item, None)``, or ``(None, (path, reason))`` where the file is unreadable."""

    def __init__(self, dataset: Dataset[Any] | Tensor) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, tuple[str, str] | None]:
        try:
            return self.dataset[index], None
        except UnreadableImageError as error:
            return None, (error.path, error.reason)


def _collate(attempts: list[tuple[Any, tuple[str, str] | None]]) -> tuple[Any, dict[str, str]]:
    items = [item for item, failure in attempts if failure is None]
    failed = dict(failure for _, failure in attempts if failure is not None)
    return default_collate(items) if items else None, failed
