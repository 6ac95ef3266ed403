"""Training images that stay on the device as 8-bit squares and are changed there, a batch at a time.

A GPU trains a ResNet faster than processors decode and change its images one by one. Here the images are
decoded once, and an epoch costs the processor nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from erfattr.datasets.augmented_images import AugmentedDataset
from erfattr.training.recipes import Augmentation, Recipe

_T = TypeVar("_T")

# As torchvision's RandomResizedCrop: share of the image's area, and width / height.
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_TRIES = 10


class Changes(NamedTuple):
    """The random changes of each image of a batch, all of shape (N, ...), on the device.

    Attributes:
        box: Part of the image that is kept, (top, left, height, width) in its own pixels, (N, 4).
        angle: Rotation in degrees, counter-clockwise.
        brightness: Factor.
        contrast: Factor.
        saturation: Factor.
        flip: Whether it is mirrored.
    """

    box: Tensor
    angle: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    flip: Tensor


def draw_changes(sizes: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Changes:
    """Draw what `Augmentation.transform` draws, for images of these (height, width), (N, 2).

    The distributions are torchvision's; the numbers are not, since they are drawn for all images at once.
    """
    count, device = len(sizes), sizes.device

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=device)

    jitter = augmentation.jitter
    brightness, contrast, saturation = (between(max(0.0, 1 - jitter), 1 + jitter) for _ in range(3))
    return Changes(
        box=_boxes(sizes.double(), between) if augmentation.resized_crop is not None else _whole(sizes),
        angle=between(-augmentation.rotation, augmentation.rotation),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        flip=between(0, 1) < (0.5 if augmentation.flip else 0.0),
    )


def _whole(sizes: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(sizes), sizes], 1).float()


def _boxes(sizes: Tensor, between: Callable[..., Tensor]) -> Tensor:
    """Draw parts of images as RandomResizedCrop does, the first of ten tries that lies inside."""
    height, width = sizes[:, :1], sizes[:, 1:]
    area = height * width * between(*_AREA, _TRIES)
    ratio = between(float(np.log(_RATIO[0])), float(np.log(_RATIO[1])), _TRIES).exp()
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.double().argmax(1, keepdim=True)
    # Where none fits: the largest part in the middle whose sides are in proportion.
    widest = torch.minimum(width, (height * _RATIO[1]).round())
    highest = torch.minimum(height, (width / _RATIO[0]).round())
    found = fits.any(1, keepdim=True)
    chosen_height = torch.where(found, heights.gather(1, first), highest)
    chosen_width = torch.where(found, widths.gather(1, first), widest)
    # One more than the largest offset, so that it is drawn as often as the others.
    top = (between(0, 1, 1) * (height - chosen_height + 1)).floor()
    left = (between(0, 1, 1) * (width - chosen_width + 1)).floor()
    top = torch.where(found, top, ((height - highest) / 2).floor())
    left = torch.where(found, left, ((width - widest) / 2).floor())
    return torch.cat([top, left, chosen_height, chosen_width], 1).float()


def apply_changes(squares: Tensor, sizes: Tensor, changes: Changes, frame: int, size: int) -> Tensor:
    """Return the changed images on the scale 0..255, float32 (N, 3, ``size``, ``size``).

    Part, rotation, mirroring and centre crop are one affine map of pixels, which is sampled once, bilinearly;
    torchvision samples twice, the second time the nearest pixel. A part that is made smaller is not filtered
    first. What lies outside of the part after a rotation is black. The colours are changed in the order
    brightness, contrast, saturation; torchvision draws the order, and takes the mean of the frame for the
    contrast where this takes that of the crop.

    Args:
        squares: uint8 (N, 3, S, S): whole images, both sides resized to S.
        sizes: (height, width) of the images before, (N, 2).
        changes: What is done.
        frame: Side that the part is resized to before it is rotated and cropped.
        size: Side of the result.
    """
    device = squares.device
    centres = torch.arange(size, device=device) + 0.5 - size / 2  # of the pixels, from the frame's centre
    x = torch.where(changes.flip[:, None, None], -1.0, 1.0) * centres.view(1, 1, -1)
    y = centres.view(1, -1, 1).expand(len(squares), size, size)
    x = x.expand(len(squares), size, size)
    angle = torch.deg2rad(changes.angle)[:, None, None]
    # Where in the frame a pixel came from: rotated back.
    from_x = angle.cos() * x - angle.sin() * y
    from_y = angle.sin() * x + angle.cos() * y
    inside = (from_x.abs() <= frame / 2) & (from_y.abs() <= frame / 2)
    top, left, height, width = (changes.box[:, index, None, None] for index in range(4))
    # Not beyond the middle of the part's outermost pixels: others are not its own.
    in_y = (top + height * (from_y / frame + 0.5)).clamp(top + 0.5, top + height - 0.5)
    in_x = (left + width * (from_x / frame + 0.5)).clamp(left + 0.5, left + width - 0.5)
    scale = 2 / sizes[:, :, None, None].float()
    grid = torch.stack([in_x * scale[:, 1] - 1, in_y * scale[:, 0] - 1], -1)
    images = F.grid_sample(squares.float(), grid, padding_mode="border", align_corners=False)
    return _recoloured(images * inside[:, None], changes)


def _recoloured(images: Tensor, changes: Changes) -> Tensor:
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    def mixed(images: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
        factor = factor[:, None, None, None]
        return (factor * images + (1 - factor) * other).clamp(0, 255)

    images = mixed(images, 0.0, changes.brightness)
    images = mixed(images, rgb_to_grayscale(images).mean((1, 2, 3), keepdim=True), changes.contrast)
    return mixed(images, rgb_to_grayscale(images), changes.saturation)


@dataclass(frozen=True)
class _Squares:
    images: Tensor
    sizes: Tensor


# By data set, as long as it lives: all runs over the same images share them.
_KEPT: WeakKeyDictionary[Dataset[Any], dict[Any, Any]] = WeakKeyDictionary()


def _kept(part: AugmentedDataset, key: Any, make: Callable[[], _T]) -> _T:
    images = part.images
    if isinstance(images, Subset):
        key = (*key, tuple(images.indices))
        images = images.dataset
    if not isinstance(images, Dataset):  # a list has no place for a weak reference
        images = part
    by_key = _KEPT.setdefault(images, {})
    if key not in by_key:
        by_key[key] = make()
    value: _T = by_key[key]
    return value


def _squares(part: AugmentedDataset, side: int, device: torch.device) -> _Squares:
    """Decode a part's images and put them onto the device, both sides resized to ``side``."""
    from torchvision.transforms.v2.functional import resize

    def one(index: int) -> tuple[Tensor, tuple[int, int]]:
        pixels = part.pixels(index)
        return resize(pixels, [side, side], antialias=True), (pixels.shape[1], pixels.shape[2])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images, sizes = zip(*pool.map(one, range(len(part))), strict=True)
    return _Squares(torch.stack(images).to(device), torch.tensor(sizes).to(device))


class ResidentBatches:
    """Training batches that are drawn, changed and normalised on the device.

    Order, labels and changes depend on ``seed``, the epoch and the batch alone. They are not those of
    `AugmentedDataset`, whose numbers are drawn image by image.

    Args:
        part: Training images; decoded when the first run begins, and kept for the others.
        recipe: Says how they are changed.
        device: Where they lie: 3 S² bytes each, with S the recipe's crop size.
        seed: Of all random numbers.
        share: (r, k): the r-th of k equal parts of every batch.

    Attributes:
        sampler: This itself, which Lightning tells what epoch begins.
    """

    def __init__(
        self,
        part: AugmentedDataset,
        recipe: Recipe,
        device: torch.device,
        *,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.part, self.recipe, self.device, self.seed, self.share = part, recipe, device, seed, share
        self.frame = recipe.augmentation.resized_crop or recipe.size
        self.sampler = self
        side = max(self.frame, recipe.size)
        self._squares = _kept(part, ("squares", side, device), lambda: _squares(part, side, device))

    def __len__(self) -> int:
        """Return the number of whole batches."""
        return len(self.part) // self.recipe.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Draw everything anew, as for this epoch."""
        self.part.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (N, 3, H, W), float32, and labels."""
        epoch, (rank, world) = self.part.epoch, self.share
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.part))
        # One copy for all batches: the device is not waited for.
        indices = torch.from_numpy(order).to(self.device)
        labels = torch.as_tensor(self.part.labels()).to(self.device)
        generator = torch.Generator(self.device)
        count = self.recipe.batch_size
        for number in range(len(self)):
            chosen = indices[number * count : (number + 1) * count].tensor_split(world)[rank]
            seed = np.random.SeedSequence((self.seed, epoch, number, rank)).generate_state(1, np.uint64)[0]
            generator.manual_seed(int(seed >> np.uint64(1)))
            sizes = self._squares.sizes[chosen]
            changes = draw_changes(sizes, self.recipe.augmentation, generator)
            pixels = apply_changes(self._squares.images[chosen], sizes, changes, self.frame, self.recipe.size)
            yield self.part.finished(pixels, labels[chosen], generator), labels[chosen]


class ResidentItems:
    """The items of a part that is the same in every epoch, computed once and kept on the device as float32.

    Args:
        part: Its items are those that a ``DataLoader`` would give, to the last bit.
        recipe: Of the part.
        device: Where they lie.
        batch_size: Images a batch.
        num_workers: Processes that prepare them.
        share: (r, k): every k-th image from the r-th on.
    """

    def __init__(
        self,
        part: AugmentedDataset,
        recipe: Recipe,
        device: torch.device,
        *,
        batch_size: int,
        num_workers: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.batch_size = batch_size
        rank, world = share
        chosen = Subset(part, range(rank, len(part), world))

        def make() -> tuple[Tensor, Tensor]:
            loader = DataLoader(chosen, batch_size, num_workers=num_workers, generator=torch.Generator())
            images, labels = zip(*((one.to(device), its.to(device)) for one, its in loader), strict=True)
            return torch.cat(images), torch.cat(labels)

        self._images, self._labels = _kept(part, ("items", recipe, device, share), make)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels."""
        for start in range(0, len(self._images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield self._images[batch], self._labels[batch]
