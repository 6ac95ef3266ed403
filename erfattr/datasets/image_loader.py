"""Batches of a data set, as the attributions take them."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from erfattr._checks import check_non_negative_int, check_positive_int
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.preprocessing import UnreadableImageError

# Threads that decode files while the network works on those before; and bytes of images that wait for it.
_THREADS = 4
_AHEAD = 1 << 28

_Attempt = tuple[Any, tuple[str, str] | None]


class ImageLoader:
    """Batches of a dataset, in order, that pass over unreadable image files and record them.

    It yields what ``torch.utils.data.DataLoader`` would: a tensor (N, C, H, W), or ``(images, labels)``. A
    batch with unreadable files is smaller by their number, and one without any image left is not yielded;
    ``len()`` counts the batches of a dataset whose files are all readable. Random numbers are not drawn.

    Args:
        dataset: ``ImageFiles``, or any dataset of images or (image, label) pairs of one size.
        batch_size: Images a batch.
        num_workers: Processes that decode; 0 decodes in this one, files of `ImageFiles` in threads, up to a
            batch ahead of the one that is used.

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
        # Another data set need not stand being read by several threads.
        in_threads = isinstance(self.dataset, ImageFiles) and self.num_workers == 0
        loader = self._ahead(ranges) if in_threads else self._loaded(ranges)
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

    def _loaded(self, ranges: Sequence[range]) -> Iterator[tuple[Any, dict[str, str]]]:
        """Yield each batch and the failures in it, as torch's loader reads them."""
        loader = DataLoader(
            _Attempts(self.dataset),
            batch_sampler=ranges,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # otherwise torch draws the workers' seed from the global generator
        )
        return iter(loader)

    def _ahead(self, ranges: Sequence[range]) -> Iterator[tuple[Any, dict[str, str]]]:
        """Yield the same, with the items of the next batch read while this one is used."""
        attempts = _Attempts(self.dataset)
        left = iter([index for numbers in ranges for index in numbers])
        begun: deque[Future[_Attempt]] = deque()
        pool = ThreadPoolExecutor(max(1, min(_THREADS, (os.cpu_count() or 1) - 1)), "erfattr-images")

        def begin(count: int) -> None:
            for _, index in zip(range(count), left, strict=False):
                begun.append(pool.submit(attempts.__getitem__, index))

        try:
            begin(1)
            for numbers in ranges:
                read: list[_Attempt] = []
                while len(read) < len(numbers):
                    read.append(begun.popleft().result())
                    begin(self._window(read) - len(begun))
                yield _collate(read)
        finally:
            # A pass may be left in the middle: nothing goes on reading then.
            pool.shutdown(cancel_futures=True)

    def _window(self, read: Sequence[_Attempt]) -> int:
        """How many items are read ahead: a batch of them, or fewer that hold `_AHEAD` bytes."""
        item = next((item for item, _ in reversed(read) if item is not None), None)
        image = item[0] if isinstance(item, tuple) else item
        held = 1 if image is None else image.numel() * image.element_size()
        return max(1, min(self.batch_size, _AHEAD // held))


class _Attempts(Dataset[Any]):
    """Item ``i`` is ``(item, None)``, or ``(None, (path, reason))`` where the file is unreadable."""

    def __init__(self, dataset: Dataset[Any] | Tensor) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> _Attempt:
        try:
            return self.dataset[index], None
        except UnreadableImageError as error:
            return None, (error.path, error.reason)


def _collate(attempts: list[_Attempt]) -> tuple[Any, dict[str, str]]:
    items = [item for item, failure in attempts if failure is None]
    failed = dict(failure for _, failure in attempts if failure is not None)
    return default_collate(items) if items else None, failed
