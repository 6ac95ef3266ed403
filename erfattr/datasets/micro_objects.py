"""The micro-object task: tell small squares by their colour, wherever they lie (section 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erfattr._checks import check_positive_int, describe
from erfattr.datasets.augmented_images import AugmentedDataset
from erfattr.datasets.colors import BLACK, RED, Color
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD, standardize


class MicroObjectDataset(AugmentedDataset):
    """Photographs with one small square each, whose colour is the class.

    Item ``i`` is ``(image, label)``: template ``i``, transformed, with a square of ``colors[label]`` at a
    random place that lies inside the image as a whole, then normalised. The square is laid on after every
    transform, so its size and its colour are exact, and it covers each position with equal chance. Labels of
    the templates are not used.

    Places and classes are drawn anew for every item and epoch, from ``seed``, epoch and index alone (see
    `AugmentedDataset`). In each epoch every class has an equal share of the items, to one item, and a
    template's class changes from epoch to epoch: what is learnt by heart about a photograph says nothing
    about its class. A ``fixed`` data set has the same places and classes in every epoch.

    The task asks whether a network notices small things at any place. It does not say how it would fare with
    objects that have a shape.

    Args:
        templates: Data set of images or (image, label) pairs, as `AugmentedDataset` takes them. Split them
            before (`split_indices`): no photograph may be in two of training, validation and test.
        object_size: Side of the square in pixels.
        colors: Colour of each class, (red, green, blue) from 0 to 255, at least two. The paper's: black and
            red.
        transform: As for `AugmentedDataset`.
        seed: As for `AugmentedDataset`.
        fixed: As for `AugmentedDataset`.
        mean: As for `AugmentedDataset`.
        std: As for `AugmentedDataset`.

    Raises:
        TypeError: ``object_size`` is not an integer, ``colors`` are not triples of integers, or as
            `AugmentedDataset`.
        ValueError: the first template is smaller than the object (or a later one, when it is asked for);
            fewer than two colours, two that are equal, one outside 0..255; or as `AugmentedDataset`.

    Example:
        >>> white = torch.ones(3, 4, 4)
        >>> items = MicroObjectDataset([white] * 2, object_size=2, mean=(0, 0, 0), std=(1, 1, 1), seed=1)
        >>> items[0][1], items[1][1]
        (0, 1)
        >>> items[0][0].sum((1, 2)).tolist(), items[1][0].sum((1, 2)).tolist()  # 4 of 16 pixels
        ([12.0, 12.0, 12.0], [16.0, 12.0, 12.0])

    References:
        Kim et al., *Dead Pixel Test Using Effective Receptive Field*, section 5.
    """

    def __init__(
        self,
        templates: Any,
        object_size: int = 8,
        colors: Sequence[Color] = (BLACK, RED),
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        seed: int = 0,
        fixed: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(templates, transform, seed=seed, fixed=fixed, mean=mean, std=std)
        check_positive_int("object_size", object_size)
        self.object_size = object_size
        self.colors = _check_colors(colors)
        self._paint = torch.tensor(self.colors, dtype=torch.uint8)
        self._classes: tuple[int, np.ndarray[Any, Any]] | None = None
        self[0]  # an object that does not fit shows here, before a long run begins

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the normalised image (3, H, W), float32, and the class of its object."""
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        numbers = self._random_numbers(index)
        pixels, _ = self._transformed(index, numbers)
        height, width = pixels.shape[-2:]
        side = self.object_size
        if side > min(height, width):
            raise ValueError(
                f"object_size: expected at most the image's {min(height, width)} pixels, got {side} "
                f"(image {index} is {height} x {width})"
            )
        label = self._label(index)
        top, left = numbers.integers(height - side + 1), numbers.integers(width - side + 1)
        pixels = pixels.clone()
        pixels[:, top : top + side, left : left + side] = self._paint[label][:, None, None]
        return standardize(pixels, self.mean, self.std), label

    def labels(self) -> Tensor:
        """Return the class of every item's object in this epoch, int64 (N,)."""
        return torch.tensor([self._label(index) for index in range(len(self))])

    def finished(self, pixels: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return images of 0..255, (N, 3, H, W), with an object of its label at a random place in each."""
        count, _, height, width = pixels.shape
        side, device = self.object_size, pixels.device
        if side > min(height, width):
            raise ValueError(
                f"object_size: expected at most the images' {min(height, width)} pixels, got {side}"
            )
        covered = []
        for length in (height, width):
            first = torch.randint(length - side + 1, (count, 1), generator=generator, device=device)
            place = torch.arange(length, device=device)
            covered.append((place >= first) & (place < first + side))
        object_mask = covered[0][:, None, :, None] & covered[1][:, None, None, :]
        paint = self._paint.to(device, pixels.dtype)[labels][:, :, None, None]
        return super().finished(torch.where(object_mask, paint, pixels), labels, generator)

    def _label(self, index: int) -> int:
        epoch = self.epoch
        if self._classes is None or self._classes[0] != epoch:
            # Of no index: one permutation an epoch, of equally many labels of each class.
            self._classes = epoch, self._random_numbers().permutation(len(self)) % len(self.colors)
        return int(self._classes[1][index])


def _check_colors(colors: Sequence[Color]) -> tuple[Color, ...]:
    try:
        triples = tuple((red, green, blue) for red, green, blue in colors)
    except (TypeError, ValueError) as error:
        raise TypeError(f"colors: expected triples (red, green, blue), got {describe(colors)}") from error
    for triple in triples:
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in triple):
            raise TypeError(f"colors: expected triples of integers, got {describe(triple)}")
        if not all(0 <= value <= 255 for value in triple):
            raise ValueError(f"colors: expected values from 0 to 255, got {triple}")
    if len(triples) < 2 or len(set(triples)) < len(triples):
        raise ValueError(f"colors: expected two or more different colours, got {triples}")
    return triples
