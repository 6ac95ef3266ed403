"""Images under random transforms whose random numbers depend on seed, epoch and index alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from erfattr._checks import check_non_negative_int, describe
from erfattr._model import seeded
from erfattr.datasets.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_constants,
    standardize,
    to_tensor,
)

# Stands in the place of the epoch where items are the same in every epoch.
_FIXED = 2**32 - 1


class AugmentedDataset(Dataset[Any]):
    """Images of another data set, randomly transformed and normalised.

    The random numbers of an item depend on ``seed``, on the epoch and on its index, and on nothing else: not
    on the worker process that makes it, not on the order in which items are asked for, and not on how often a
    run was stopped and resumed. So the items of an epoch are the same on one machine and on eight.

    The epoch lies in shared memory: `set_epoch` reaches worker processes that are already running. Call it
    before a new pass over the ``DataLoader`` begins.

    Args:
        images: Data set of images or (image, label) pairs. An image is a PIL image, a uint8 tensor
            (3, H, W), or a floating-point tensor (3, H, W) of 0..1.
        transform: Takes and returns a uint8 or floating-point tensor as above, and draws its random numbers
            from torch's global generator, as ``torchvision.transforms.v2`` does; ``None`` for none.
        seed: Of the random numbers, at least 0.
        fixed: Give the same items in every epoch, as a test set needs.
        mean: Of the three channels on the scale 0..1; by default ImageNet's, (0, 0, 0) for none.
        std: Of the three channels on the scale 0..1; by default ImageNet's, (1, 1, 1) for none.

    Raises:
        TypeError: ``images`` has no length, ``transform`` is not callable, or ``seed`` not an integer. When
            an item is asked for: it is no image.
        ValueError: ``images`` is empty, ``seed`` negative, ``mean`` or ``std`` not three numbers. When an
            item is asked for: it has not three channels.

    Example:
        >>> from torchvision.transforms import v2
        >>> column = torch.tensor([0.0, 1.0]).expand(3, 1, 2)  # black, white
        >>> images = AugmentedDataset([column] * 4, v2.RandomHorizontalFlip(), mean=(0, 0, 0), std=(1, 1, 1))
        >>> [image[0, 0].tolist() for image in images]
        [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
        >>> images.set_epoch(1)
        >>> [image[0, 0].tolist() for image in images]
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        images: Any,
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        seed: int = 0,
        fixed: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
            raise TypeError(f"images: expected a data set with a length, got {describe(images)}")
        if len(images) == 0:
            raise ValueError("images: expected at least one image, got none")
        if transform is not None and not callable(transform):
            raise TypeError(f"transform: expected a callable or None, got {describe(transform)}")
        check_non_negative_int("seed", seed)
        self.images = images
        self.transform = transform
        self.seed = seed
        self.fixed = fixed
        self.mean, self.std = check_constants(mean, std)
        self._labels: Tensor | None = None
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def epoch(self) -> int:
        """The epoch that items are drawn for, from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw the items anew, as those of this epoch; does nothing for ``fixed`` items."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Any:
        """Return item ``index``: the normalised image (3, H, W), float32, with its label if there is one."""
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        pixels, labels = self._transformed(index, self._random_numbers(index))
        image = standardize(pixels, self.mean, self.std)
        return (image, *labels) if labels else image

    def pixels(self, index: int) -> Tensor:
        """Return an image as it is before any change: uint8, or floating-point of 0..1, (3, H, W)."""
        item = self.images[index]
        return _as_tensor(item[0] if isinstance(item, (tuple, list)) else item)

    def labels(self) -> Tensor:
        """Return the label of every item of this epoch, int64 (N,)."""
        if self._labels is None:  # asking a folder for one decodes its image
            self._labels = torch.tensor([int(self.images[index][1]) for index in range(len(self))])
        return self._labels

    def finished(
        self,
        pixels: Tensor,
        labels: Tensor,  # noqa: ARG002
        generator: torch.Generator,  # noqa: ARG002
    ) -> Tensor:
        """Return changed images of 0..255, (N, 3, H, W) on any device, as items are: normalised, float32.

        ``labels`` and ``generator`` are for data sets that add to the images.
        """
        return standardize(pixels, self.mean, self.std)

    def _random_numbers(self, *place: int) -> np.random.Generator:
        epoch = _FIXED if self.fixed else self.epoch
        return np.random.default_rng(np.random.SeedSequence((self.seed, epoch), spawn_key=place))

    def _transformed(self, index: int, numbers: np.random.Generator) -> tuple[Tensor, tuple[Any, ...]]:
        """Return the transformed image on the scale 0..255, and what came with it."""
        item = self.images[index]
        image, labels = (item[0], tuple(item[1:])) if isinstance(item, (tuple, list)) else (item, ())
        pixels = _as_tensor(image)
        seed = int(numbers.integers(2**63))  # also without a transform: what is drawn later is the same
        if self.transform is not None:
            with seeded(seed):
                pixels = _as_tensor(self.transform(pixels))
        # One scale from here on: 8-bit colours are then exact in both kinds of image.
        return (pixels * 255 if pixels.is_floating_point() else pixels), labels


def _as_tensor(image: Any) -> Tensor:
    if isinstance(image, Image.Image):
        return to_tensor(image)
    if not isinstance(image, Tensor) or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise TypeError(
            "images: expected PIL images, or uint8 or floating-point tensors (3, H, W), "
            f"got {describe(image)}"
        )
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"images: expected tensors of shape (3, H, W), got {describe(image)}")
    return image
