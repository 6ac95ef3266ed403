"""Images, and labels where wanted, out of whatever a loader yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor

from erfattr._checks import describe

_IMAGE_KEYS = ("image", "images", "pixel_values", "img", "inputs", "input", "x")
_LABEL_KEYS = ("label", "labels", "target", "targets", "y")


def batches_of(inputs: Any) -> Iterator[Any]:
    """Yield the batches of a loader; a tensor, a dict or an (images, labels) tuple is one batch."""
    if isinstance(inputs, (Tensor, Mapping)):
        yield inputs
        return
    if isinstance(inputs, tuple) and inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
        others = inputs[1:]
        if others and not any(isinstance(other, Tensor) and other.ndim == 4 for other in others):
            yield inputs
            return
    if not isinstance(inputs, Iterable):
        raise TypeError(
            f"inputs: expected a tensor (N, C, H, W) or an iterable of batches, got {describe(inputs)}"
        )
    iterator = iter(inputs)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            # What torch's default collate says of images that do not stack.
            if "equal size" in str(error):
                raise ValueError(
                    f"inputs: expected the images of a batch to share one size, but they do not: {error}"
                ) from error
            raise
        yield batch


def images_and_labels(batch: Any, wants_labels: bool) -> tuple[Tensor, Tensor | None]:
    """Take images, and labels where wanted, out of a batch."""
    if isinstance(batch, Mapping):
        tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        images = [key for key in _IMAGE_KEYS if key in tensors]
        images = images or [key for key, value in tensors.items() if value.ndim == 4]
        if len(images) != 1:
            raise TypeError(
                f"inputs: expected a dict with one tensor of images under one of {', '.join(_IMAGE_KEYS)}, "
                f"got keys {', '.join(map(repr, batch)) or 'none'}"
            )
        labels = next((tensors[key] for key in _LABEL_KEYS if key in tensors), None)
        return tensors[images[0]], labels if wants_labels else None
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Tensor):
        if wants_labels and len(batch) > 1:
            labels = batch[1] if isinstance(batch[1], Tensor) else torch.as_tensor(batch[1])
            return batch[0], labels
        return batch[0], None
    raise TypeError(
        "inputs: expected batches to be a tensor, (images, labels) or a dict of tensors, got "
        f"{describe(batch)}"
    )


def check_images(images: Tensor, first_index: int, shape: tuple[int, int, int] | None) -> None:
    """Raise unless ``images`` is a finite floating-point batch, and of ``shape`` (C, H, W) where given."""
    if images.ndim != 4:
        raise ValueError(f"inputs: expected images of shape (N, C, H, W), got {describe(images)}")
    if not images.is_floating_point():
        raise TypeError(
            f"inputs: expected floating-point images, got {describe(images)}; convert and normalise them "
            "as the network was trained"
        )
    if len(images) == 0 or images[0].numel() == 0:
        raise ValueError(f"inputs: expected at least one image and pixel a batch, got {describe(images)}")
    if shape is not None and tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"inputs: expected images of one size, {shape} as the first, got {tuple(images.shape[1:])} from "
            f"image {first_index} on"
        )
    # Images that are on a GPU already are not waited for: their NaN shows in the gradient.
    if not images.is_cuda:
        finite = torch.isfinite(images).flatten(1).all(1)
        if not bool(finite.all()):
            bad = first_index + int(torch.nonzero(~finite)[0])
            raise ValueError(f"inputs: expected finite images, got NaN or infinity in image {bad}")


def count_images(inputs: Any, max_examples: int | None) -> int | None:
    """Return how many images will come, as far as it can be known."""
    dataset = getattr(inputs, "dataset", None)
    total = (
        len(dataset) if isinstance(dataset, Sized) else len(inputs) if isinstance(inputs, Tensor) else None
    )
    if total is None or max_examples is None:
        return total if max_examples is None else max_examples
    return min(total, max_examples)
