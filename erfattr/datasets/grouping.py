"""Which group of a map's statistics an image counts in, where images belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from erfattr._checks import describe
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader

Group = Sequence[Hashable] | Tensor | Callable[[Path], Hashable] | None


class Grouping:
    """The group of every image, such that all images of one label are in one group.

    Labels are dealt out from the one with most images on, each to the group with the fewest so far.

    Args:
        group: A label for each image, or a function of its file's path.
        inputs: The images; their files where ``group`` is a function.
        groups: Number of groups at most; there are no more than labels.

    Attributes:
        groups: Number of groups.
        fingerprint: SHA-256 of the groups, for a run that goes on.

    Raises:
        TypeError: ``group`` is neither.
        ValueError: fewer than two different labels; a function for images without files.
    """

    def __init__(self, group: Group, inputs: Any, groups: int) -> None:
        labels = _labels(group, inputs)
        count: dict[Hashable, int] = {}
        for label in labels:
            count[label] = count.get(label, 0) + 1
        if len(count) < 2:
            raise ValueError(f"group: expected two or more different labels, got {len(count)}")
        self.groups = min(groups, len(count))
        loads = [0] * self.groups
        place: dict[Hashable, int] = {}
        for label, images in sorted(count.items(), key=lambda item: -item[1]):  # of equals the first
            place[label] = loads.index(min(loads))
            loads[place[label]] += images
        self._of_image = [place[label] for label in labels]
        self.fingerprint = hashlib.sha256(repr(self._of_image).encode()).hexdigest()
        dataset = getattr(inputs, "dataset", None)
        self._files = dataset if isinstance(inputs, ImageLoader) and isinstance(dataset, ImageFiles) else None
        self._batch_size = inputs.batch_size if isinstance(inputs, ImageLoader) else 0

    def of_batch(self, first_index: int, images: int) -> list[int]:
        """Return the group of each image of a batch.

        Raises:
            ValueError: there is no label for one of them.
        """
        indices: Iterable[int] = range(first_index, first_index + images)
        if self._files is not None and self._files.unreadable:
            # A batch of files lacks those that could not be read.
            batch = range(first_index, min(first_index + self._batch_size, len(self._files)))
            failed = self._files.unreadable
            indices = [index for index in batch if str(self._files.paths[index]) not in failed][:images]
        try:
            return [self._of_image[index] for index in indices]
        except IndexError:
            raise ValueError(
                f"group: expected a label for each image, got {len(self._of_image)} for more images"
            ) from None


def _labels(group: Group, inputs: Any) -> list[Hashable]:
    if callable(group):
        dataset: Any = getattr(inputs, "dataset", None)
        paths = getattr(dataset, "paths", None)
        if paths is None and hasattr(dataset, "samples"):  # torchvision's ImageFolder
            paths = [path for path, _ in dataset.samples]
        if paths is None:
            raise ValueError(
                "group: expected a label for each image, since these images come from no files of ImageFiles "
                "or ImageFolder that a function could look at"
            )
        return [group(Path(path)) for path in paths]
    if isinstance(group, Tensor):
        return list(group.flatten().tolist())
    if isinstance(group, Sequence) and not isinstance(group, (str, bytes)):
        return list(group)
    raise TypeError(
        f"group: expected a label for each image or a function of a file's path, got {describe(group)}"
    )
