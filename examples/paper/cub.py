"""CUB-200-2011, the photographs of birds over which the paper averages: its official test images."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Subset

from erfattr import ImageFiles

_ADDRESS = "https://data.caltech.edu/records/65de6-vp158"


def cub_test_images(root: str | Path, size: int = 224) -> Subset[object]:
    """Return the official test images of CUB-200-2011, 5,794 in the original.

    Args:
        root: The folder ``CUB_200_2011`` of the archive, with ``images.txt``, ``train_test_split.txt`` and
            ``images``.
        size: Side of the images in pixels; the shorter side is resized to it, then the centre is cropped.

    Returns:
        A dataset of ``(image, label)``; image (3, ``size``, ``size``), float32, normalised with ImageNet's
        constants, in the order of the files' paths. `ImageLoader` makes batches of it.

    Raises:
        FileNotFoundError: a file of the split or the folder of images is not there; the message says where to
            get it.
        ValueError: a split file has another form, or names no image that is there.

    References:
        C. Wah, S. Branson, P. Welinder, P. Perona and S. Belongie, *The Caltech-UCSD Birds-200-2011 Dataset*,
        2011.
    """
    folder = Path(root)
    names = _table(folder, "images.txt")
    is_training = _table(folder, "train_test_split.txt")
    if names.keys() != is_training.keys():
        raise ValueError(f"root: expected {folder}'s two split files to list the same images")
    wanted = {name for number, name in names.items() if is_training[number] == "0"}
    images = folder / "images"
    if not images.is_dir():
        raise FileNotFoundError(_missing(images))
    files = ImageFiles(images, size)
    chosen = [
        index for index, path in enumerate(files.paths) if path.relative_to(images).as_posix() in wanted
    ]
    if not chosen:
        raise ValueError(f"root: expected test images of {folder}'s split in {images}, found none")
    return Subset(files, chosen)


def _table(folder: Path, name: str) -> dict[str, str]:
    """Read lines of a number and a word."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(_missing(path))
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise ValueError(f"root: expected lines of a number and a word in {path}, got {' '.join(wrong)!r}")
    return dict(rows)


def _missing(path: Path) -> str:
    return (
        f"root: {path} is not there; expected the folder CUB_200_2011 of the archive CUB_200_2011.tgz, which "
        f"{_ADDRESS} offers"
    )
