"""What a training run reads: images of a folder, split 70 : 15 : 15, prepared as a recipe says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from erfattr.datasets.augmented_images import AugmentedDataset
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.preprocessing import read_image, resize_and_crop
from erfattr.datasets.sealed_files import SealedFiles
from erfattr.training.recipes import Augmentation, Recipe
from erfattr.training.tasks import task_of

if TYPE_CHECKING:
    from torchvision.transforms import v2

# Share of the images that validation and test get, each.
HELD_OUT = 0.15


class Split(NamedTuple):
    """Indices of the images of each part."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def split_indices(names: Sequence[str], labels: Sequence[int] | None = None, seed: int = 0) -> Split:
    """Split images 70 : 15 : 15 into training, validation and test, class by class.

    The images of a class are put in the order of a hash of their names; the first 15 % (rounded) are for
    testing, the next as many for validation. So the split is the same on every machine, whatever the order of
    the files, and does not change for the others when an image is added. No random numbers are drawn.

    Args:
        names: A different name for each image, such as ``"class/image_0001"``.
        labels: Class of each image; ``None``: they are of one class.
        seed: Goes into the hash: another seed, another split.

    Returns:
        `Split`, whose parts are sorted.

    Raises:
        ValueError: two names are equal; not one label for each name; a part is empty.

    Example:
        >>> [len(part) for part in split_indices([str(number) for number in range(100)])]
        [70, 15, 15]
    """
    if len(set(names)) < len(names):
        raise ValueError("names: expected a different name for each image, got some twice")
    if labels is not None and len(labels) != len(names):
        raise ValueError(f"labels: expected one for each of {len(names)} names, got {len(labels)}")
    of_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels if labels is not None else [0] * len(names)):
        of_class.setdefault(label, []).append(index)
    train: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    for members in of_class.values():
        members.sort(key=lambda index: _digest(f"{seed}/{names[index]}"))
        held_out = round(HELD_OUT * len(members))
        test += members[:held_out]
        validation += members[held_out : 2 * held_out]
        train += members[2 * held_out :]
    split = Split(tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))
    for name, part in split._asdict().items():
        if not part:
            raise ValueError(
                f"names: expected enough images for a split 70 : 15 : 15, got {len(names)}, which leaves "
                f"none for {name}"
            )
    return split


def _digest(text: str) -> str:
    # A file's name may hold bytes that are no text.
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True)
class ImageSource:
    """Image files with their classes, before anything is read.

    Attributes:
        paths: The files.
        names: Of each file, without its ending: ``"class/image_0001"``. Splits are made from these.
        labels: Class index of each; all 0 where the folder has no subfolders.
        classes: Names of the classes.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    @cached_property
    def sealed(self) -> SealedFiles:
        """The contents of the files, as they are when they are first asked for."""
        return SealedFiles(self.paths)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, labels and contents, by which a resumed run knows its images again."""
        listed = "\n".join(
            f"{name} {label} {self.sealed.digest(path)}"
            for name, label, path in zip(self.names, self.labels, self.paths, strict=True)
        )
        return _digest(listed)


def find_images(root: str | Path, *, download: bool = False) -> ImageSource:
    """Find the images under a folder: Caltech-101 as torchvision keeps it, or any folder of images.

    Args:
        root: A folder of images, one subfolder for each class; or the ``root`` of
            ``torchvision.datasets.Caltech101``, which holds ``caltech101/101_ObjectCategories``. The latter's
            class BACKGROUND_Google is left out, as torchvision does.
        download: Download Caltech-101 to ``root`` if it is not there.

    Raises:
        ValueError: the folder is missing, or holds no image; two files of a class differ in their ending
            alone.
        RuntimeError: from torchvision: the download failed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> for name in ("cat", "dog"):
        ...     (Path(folder.name) / name).mkdir()
        ...     Image.new("RGB", (2, 2)).save(Path(folder.name) / name / "1.png")
        >>> source = find_images(folder.name)
        >>> source.names, source.labels
        (('cat/1', 'dog/1'), (0, 1))
        >>> folder.cleanup()
    """
    if download or (Path(root) / "caltech101" / "101_ObjectCategories").is_dir():
        return _caltech101(root, download)
    files = ImageFiles(root)
    labels = files.labels or (0,) * len(files)
    return _source(Path(root), files.paths, labels, files.classes)


def _caltech101(root: str | Path, download: bool) -> ImageSource:
    from torchvision.datasets import Caltech101

    found = Caltech101(root, download=download)
    folder = Path(found.root) / "101_ObjectCategories"
    paths = [
        folder / found.categories[label] / f"image_{number:04d}.jpg"
        for label, number in zip(found.y, found.index, strict=True)
    ]
    return _source(folder, paths, found.y, found.categories)


def _source(root: Path, paths: Iterable[Path], labels: Iterable[int], classes: Iterable[str]) -> ImageSource:
    paths = tuple(paths)
    names = tuple(path.relative_to(root).with_suffix("").as_posix() for path in paths)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"root: expected files that differ in more than their ending, got {twice} twice")
    return ImageSource(paths, names, tuple(labels), tuple(classes))


@dataclass(frozen=True)
class TrainingData:
    """The three parts of a run's images, ready for a network.

    Attributes:
        train: Items change from epoch to epoch.
        validation: Items are the same in every epoch.
        test: As validation.
        classes: Names of the classes, in the order of the labels.
        fingerprint: What the images and their split are known by.
    """

    train: AugmentedDataset
    validation: AugmentedDataset
    test: AugmentedDataset
    classes: tuple[str, ...]
    fingerprint: str


class TrainingImages:
    """The images of a source as a recipe keeps them: in memory, or in their files.

    Args:
        source: What `find_images` gave.
        recipe: Says how they are kept and prepared.
        split_seed: Of `split_indices`; one split serves all runs that are compared.

    Raises:
        ValueError: too few images for a split; for classification, fewer than two classes.
        UnreadableImageError: (a ``ValueError``) a file cannot be read.
    """

    def __init__(self, source: ImageSource, recipe: Recipe, split_seed: int = 0) -> None:
        self.classes = task_of(recipe).classes(source.classes)
        self.source = source
        self.recipe = recipe
        self.split_seed = split_seed
        self.split = split_indices(source.names, source.labels, split_seed)
        self._images: Dataset[Any]
        if recipe.stored_size is None:
            self._images = _Files(source)
        else:
            stored = [
                resize_and_crop(read_image(path, sealed=source.sealed), recipe.stored_size)
                for path in source.paths
            ]
            self._images = TensorDataset(torch.stack(stored), torch.tensor(source.labels))

    def prepared(self, seed: int) -> TrainingData:
        """Return the parts as the run of this seed sees them; validation and test depend on no seed."""
        return TrainingData(
            train=self._part(self.split.train, seed=seed, fixed=False),
            validation=self._part(self.split.validation, seed=0, fixed=True),
            test=self._part(self.split.test, seed=0, fixed=True),
            classes=self.classes,
            fingerprint=f"{self.source.fingerprint} split {self.split_seed}",
        )

    def maps(self, count: int) -> Tensor:
        """Return ``count`` test images (or all, if there are fewer) of the recipe's map size.

        They are evenly spread over the sorted test images, and prepared as those are.
        """
        recipe = replace(self.recipe, size=self.recipe.map_size, stored_size=None)
        step = max(len(self.split.test) // count, 1)
        chosen = self.split.test[::step][:count]
        part = _part(Subset(_Files(self.source), chosen), recipe, seed=0, fixed=True)
        return torch.stack([part[index][0] for index in range(len(part))])

    def _part(self, indices: Sequence[int], *, seed: int, fixed: bool) -> AugmentedDataset:
        return _part(Subset(self._images, indices), self.recipe, seed=seed, fixed=fixed)


def _part(images: Dataset[Any], recipe: Recipe, *, seed: int, fixed: bool) -> AugmentedDataset:
    augmentation = recipe.augmentation
    make = augmentation.without_chance if fixed else augmentation.transform
    transform: v2.Transform | None = make(recipe.size)
    if augmentation == Augmentation() and recipe.stored_size == recipe.size:
        transform = None  # the images are what they should be, and 32 pixels are drawn faster than resized
    return task_of(recipe).dataset(images, transform, seed=seed, fixed=fixed)


class _Files(Dataset[Any]):
    """Image files decoded in full when they are asked for: uint8 (3, H, W), label."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from torchvision.transforms.v2.functional import pil_to_tensor

        picture = read_image(self.source.paths[index], sealed=self.source.sealed)
        return pil_to_tensor(picture), self.source.labels[index]
