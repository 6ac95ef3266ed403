"""Batches of a data set, as the attributions take them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from erfattr._checks import check_non_negative_int, check_positive_int
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.preprocessing import UnreadableImageError


class ImageLoader:
    """Batches of a dataset, in order, that pass over unreadable image files and record them.

    It yields what ``torch.utils.data.DataLoader`` would: a tensor (N, C, H, W), or ``(images, labels)``. A
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
        check_non_negative_int("num_workers", num_workers)
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
