"""Images, and labels where wanted, out of whatever a loader yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor

from erfattr._checks import describe

_IMAGE_KEYS = ("image", "images", "pixel_values", "img", "inputs", "input", "x")
NOT_FINITE = "inputs: expected finite images, got NaN or infinity in image {image}"
_LABEL_KEYS = ("label", "labels", "target", "targets", "y")


def numbered_batches(
    inputs: Any,
    wants_labels: bool,
    *,
    max_examples: int | None = None,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Yield number of the first image, images and labels of each batch, checked.

    Args:
        inputs: A loader, or one batch.
        wants_labels: Whether labels are looked for.
        max_examples: Stop after this many images.
        start: Pass over the batches that begin before this image.
        share: (r, k): take every k-th batch from the r-th on; of a single batch the r-th of k parts.
    """
    rank, world = share
    shape: tuple[int, int, int] | None = None
    for number, first_index, batch in _counted(inputs, start, share):
        images, labels = _images_and_labels(batch, wants_labels)
        if max_examples is not None and first_index >= max_examples:
            return
        _check_images(images, first_index, shape)
        shape = (images.shape[1], images.shape[2], images.shape[3])
        if max_examples is not None:
            images = images[: max_examples - first_index]
            labels = None if labels is None else labels[: max_examples - first_index]
        if number is None and world > 1:
            lengths = [len(part) for part in torch.arange(len(images)).tensor_split(world)]
            first_index += sum(lengths[:rank])
            images = images.tensor_split(world)[rank]
            labels = None if labels is None else labels.tensor_split(world)[rank]
        mine = number is None or number % world == rank
        if mine and first_index >= start and len(images) > 0:
            yield first_index, images, labels


def _counted(inputs: Any, start: int, share: tuple[int, int]) -> Iterator[tuple[int | None, int, Any]]:
    """Yield number (``None`` for a single batch), number of the first image, and each batch."""
    # A loader that can leave out what is not wanted says so by having this method; see ImageLoader.
    if hasattr(inputs, "batches_from"):
        yield from inputs.batches_from(start, share)
        return
    single = _is_batch(inputs)
    first_index = 0
    for number, batch in enumerate(_batches_of(inputs)):
        yield None if single else number, first_index, batch
        images, _ = _images_and_labels(batch, False)
        first_index += len(images)


def _is_batch(inputs: Any) -> bool:
    """Whether ``inputs`` is one batch and no iterable of batches.

    Raises:
        ValueError: a tuple of several image tensors, which may be meant as either.
    """
    if isinstance(inputs, (Tensor, Mapping)):
        return True
    if not isinstance(inputs, (tuple, list)) or not inputs or not _are_images(inputs[0]):
        return False
    others = inputs[1:]
    images = [other for other in others if _are_images(other)]
    # What a DataLoader yields is a list [images, labels]; a list of images alone is a list of batches.
    if others and not images:
        return True
    if isinstance(inputs, tuple) and images and not _are_parts_of_one([inputs[0], *images]):
        raise ValueError(
            f"inputs: a tuple of {len(images) + 1} image tensors may be one batch or several; give several "
            "batches as a list, and what belongs to each image besides as additional_forward_args"
        )
    return False


def _are_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _are_parts_of_one(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors share their memory, as those that ``images.split(8)`` returns do."""
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


def _batches_of(inputs: Any) -> Iterator[Any]:
    """Yield the batches of a loader, or the one batch."""
    if _is_batch(inputs):
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


def _images_and_labels(batch: Any, wants_labels: bool) -> tuple[Tensor, Tensor | None]:
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


def _check_images(images: Tensor, first_index: int, shape: tuple[int, int, int] | None) -> None:
    """Raise unless ``images`` is a finite floating-point batch, and of ``shape`` (C, H, W) where given."""
    if images.ndim != 4:
        other = {3: "signals", 5: "volumes"}.get(images.ndim)
        why = "" if other is None else f"; {other} are not supported yet"
        raise ValueError(f"inputs: expected images of shape (N, C, H, W), got {describe(images)}{why}")
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
    # Images that are on a GPU already are not waited for; who runs them looks later.
    # A sum reads them once: only where it is not finite, be it by an overflow, each number is looked at.
    if not images.is_cuda and not bool(torch.isfinite(images.sum())):
        refuse_non_finite([Finite.of(first_index, images, NOT_FINITE)])


class Finite(NamedTuple):
    """Which images of a batch had only finite numbers, where that was not waited for.

    Attributes:
        first_index: Number of the first image.
        finite: (N,) booleans, on the device.
        message: What is said of the first image that had not, with ``{image}`` for its number.
    """

    first_index: int
    finite: Tensor
    message: str

    @classmethod
    def of(cls, first_index: int, values: Tensor, message: str) -> Finite:
        """Look at values (N, ...), one entry for each image."""
        return cls(first_index, torch.isfinite(values).flatten(1).all(1), message)


def refuse_non_finite(pending: list[Finite]) -> None:
    """Raise for the first image with something that is not finite; forget the images looked at."""
    bad = [
        (batch.first_index + int(torch.nonzero(~batch.finite)[0]), number, batch.message)
        for number, batch in enumerate(pending)
        if not bool(batch.finite.all())
    ]
    pending.clear()
    if bad:
        image, _, message = min(bad)
        raise ValueError(message.format(image=image))


def count_images(inputs: Any, max_examples: int | None) -> int | None:
    """Return how many images will come, as far as it can be known."""
    dataset = getattr(inputs, "dataset", None)
    total = None
    if isinstance(dataset, Sized):
        total = len(dataset)
    elif _is_batch(inputs):
        total = len(_images_and_labels(inputs, False)[0])
    if total is None or max_examples is None:
        return total if max_examples is None else max_examples
    return min(total, max_examples)


def as_arguments(additional_forward_args: Any) -> tuple[Any, ...]:
    """Return further arguments of a model as Captum means them: a tuple is several, anything else is one."""
    if additional_forward_args is None:
        return ()
    if isinstance(additional_forward_args, tuple):
        return additional_forward_args
    return (additional_forward_args,)


def arguments_of_each(inputs: Any, arguments: tuple[Any, ...]) -> Callable[[int, int], tuple[Any, ...]]:
    """Return what gives the further arguments of some of the images, by number of the first and how many.

    Of one batch, a tensor with one entry for each image belongs to the images, as Captum means it; every
    other argument, and all arguments of a loader, are the same for every batch.
    """
    whole = count_images(inputs, None) if arguments and _is_batch(inputs) else None

    def chosen(first_index: int, images: int) -> tuple[Any, ...]:
        return tuple(
            argument[first_index : first_index + images]
            if isinstance(argument, Tensor) and argument.ndim and len(argument) == whole
            else argument
            for argument in arguments
        )

    return chosen
