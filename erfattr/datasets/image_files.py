"""A folder of image files as a data set."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from erfattr._checks import check_positive_int
from erfattr.datasets.preprocessing import (
    check_channels,
    check_constants,
    check_size,
    read_image,
    resize_and_crop,
    standardize,
)
from erfattr.datasets.sealed_files import SealedFiles

# torchvision.datasets.folder.IMG_EXTENSIONS, written out: importing it takes longer than all of this package.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageFiles(Dataset[Any]):
    """The images under a folder and its subfolders, sorted by path, or a seeded random choice of them.

    Files are taken by their ending (those of ``torchvision.datasets.ImageFolder``); names that begin with a
    dot are passed over. An image is resized until it just covers ``size``, then the centre is cropped. Item
    ``i`` is ``(image, label)`` where every image lies in a subfolder: the sorted subfolders of ``path`` are
    the classes, as in ``ImageFolder``. Otherwise it is the image alone. Asking for an unreadable file raises;
    ``ImageLoader`` passes over it and records it in ``unreadable``, unless ``strict`` is set.

    Args:
        path: The folder.
        size: (H, W) of the images in pixels, or one number for both.
        count: Take at most so many files, chosen at random but kept in order; ``None`` takes all.
        seed: Of that choice, which is the same on every machine. Global random numbers are not used.
        mean: Of the channels on the scale 0..1, (0, 0, 0) for none; by default ImageNet's, and for grey their
            average.
        std: Of the channels on the scale 0..1, (1, 1, 1) for none; by default likewise.
        channels: 1 for grey, 3 for red, green, blue, 4 for these and alpha.
        strict: Let ``ImageLoader`` stop at the first unreadable file.

    Attributes:
        paths: The files. Nothing is decoded before it is asked for: unreadable files are among them.
        labels: Class index of each file, or ``None``.
        classes: Name of each class.
        unreadable: Reason by file name, of the files that ``ImageLoader`` could not read so far.

    Raises:
        TypeError: ``size`` or ``count`` is not an integer.
        ValueError: the folder is missing, a file, or holds no image; ``size`` or ``count`` is not positive;
            ``channels`` is not 1, 3 or 4; ``mean`` or ``std`` are not a number for each channel.

    Example:
        >>> import tempfile
        >>> from PIL import Image
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
        size: int | tuple[int, int] = 224,
        count: int | None = None,
        seed: int = 0,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels: int = 3,
        strict: bool = False,
    ) -> None:
        self.size = check_size(size)
        check_channels(channels)
        if count is not None:
            check_positive_int("count", count)
        self.channels = channels
        self.mean, self.std = check_constants(mean, std, channels)
        self.strict = strict
        self.unreadable: dict[str, str] = {}
        root = Path(path)
        if not root.is_dir():
            fault = "is a file" if root.exists() else "does not exist"
            raise ValueError(f"path: expected a folder of images, but {root} {fault}")
        paths = _image_paths(root, self.unreadable)
        if not paths and self.unreadable:
            name, reason = next(iter(self.unreadable.items()))
            raise ValueError(f"path: expected a folder of readable images, but of {root} {name}: {reason}")
        if not paths:
            raise ValueError(
                f"path: expected a folder of images, but {root} holds no file ending in {' '.join(ENDINGS)}"
            )
        owners = [file.relative_to(root).parts for file in paths]
        self.classes: tuple[str, ...] = ()
        if all(len(parts) > 1 for parts in owners):
            # A link to a folder that counts elsewhere holds no class of its own.
            filled = {parts[0] for parts in owners}
            folders = (
                folder.name
                for folder in root.iterdir()
                if folder.is_dir() and (folder.name in filled or not folder.is_symlink())
            )
            self.classes = tuple(sorted(name for name in folders if not name.startswith(".")))
        chosen: Sequence[int] = range(len(paths))
        if count is not None and count < len(paths):
            chosen = sorted(random.Random(seed).sample(chosen, count))
        index = {name: label for label, name in enumerate(self.classes)}
        self.paths = tuple(paths[i] for i in chosen)
        self.labels = tuple(index[owners[i][0]] for i in chosen) if self.classes else None
        self._sealed: SealedFiles | None = None

    def __len__(self) -> int:
        """Return the number of files, unreadable ones among them."""
        return len(self.paths)

    def seal(self) -> str:
        """Read all files, and return the SHA-256 of their contents, one behind the other, as hex digits.

        From then on an item whose file holds something else, or is gone, raises `ChangedFileError`.
        """
        self._sealed = SealedFiles(self.paths)
        return self._sealed.sha256

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        """Return image ``index``, (C, H, W), with its label if there are labels.

        Raises:
            UnreadableImageError: (a ``ValueError``) the file cannot be read.
            ChangedFileError: (a ``ValueError``) the file was changed since `seal`.
        """
        picture = read_image(self.paths[index], self.channels, self._sealed)
        image = standardize(resize_and_crop(picture, self.size, self.channels), self.mean, self.std)
        return image if self.labels is None else (image, self.labels[index])


def _image_paths(root: Path, unreadable: dict[str, str]) -> list[Path]:
    """Return the image files below a folder; of what cannot be one, write into ``unreadable`` why.

    A folder that links lead to again counts once, so a link to a folder above ends nothing.
    """
    found = []
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        unreadable[str(error.filename)] = f"{type(error).__name__}: {error.strerror}"

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=note):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Links last: a folder counts where it is.
        visible = [name for name in subfolders if not name.startswith(".")]
        subfolders[:] = sorted(visible, key=lambda name: (Path(folder, name).is_symlink(), name))
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or not name.lower().endswith(ENDINGS):
                continue
            # To open a pipe is to wait for ever. What a link leads to may be gone: that shows on reading.
            if path.exists() and not path.is_file():
                unreadable[str(path)] = "no regular file"
            else:
                found.append(path)
    return sorted(found)
