"""Which output of a network is explained: the predicted class, the label, an index, the mean of all."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from erfattr._checks import describe, is_int

OutputTarget = int | tuple[int, ...] | Literal["predicted", "label", "mean"] | None

WORDS = ("predicted", "label", "mean")


def check_target(target: Any) -> None:
    """Raise ``ValueError`` unless ``target`` is one of the kinds of ``OutputTarget``."""
    whole = isinstance(target, tuple) and target and all(map(is_int, target))
    words = isinstance(target, str) and target in WORDS
    if not (target is None or is_int(target) or whole or words):
        raise ValueError(
            'target: expected None, an integer, a tuple of integers, "predicted", "label" or "mean", '
            f"got {describe(target)}"
        )


def output_sum(
    output: Tensor, target: OutputTarget, labels: Tensor | None, images: int, first_index: int
) -> Tensor:
    """Select what ``target`` names from the output of ``images`` images, and sum it over them.

    ``None`` and ``"predicted"`` name the largest output; of an output (N, classes, ...) the mean over its
    positions of the largest class there, of one number an image that number.

    Raises:
        ValueError: its shape does not have what ``target`` names; labels that are missing or do not fit.
    """
    if output.ndim < 1 or len(output) != images:
        raise ValueError(f"model: expected an output of shape ({images}, ...), got {tuple(output.shape)}")
    if not output.is_floating_point():
        raise ValueError(f"model: expected floating-point outputs, got {describe(output)}")
    if target == "mean" or (output.ndim == 1 and target in (None, "predicted")):
        return output.flatten(1).mean(1).sum() if output.ndim > 1 else output.sum()
    if target is None or (target == "predicted" and output.ndim > 2):
        largest = output.gather(1, output.argmax(1, keepdim=True))
        return largest.flatten(1).mean(1).sum()
    if isinstance(target, str):
        return output.gather(1, named_classes(target, output, labels, first_index)[:, None]).sum()
    index = (target,) if isinstance(target, int) else target
    shape = output.shape[1:]
    if len(index) != len(shape) or not all(
        0 <= position < length for position, length in zip(index, shape, strict=True)
    ):
        raise ValueError(f"target: expected an index into outputs of shape {tuple(shape)}, got {target}")
    return output[(slice(None),) + index].sum()  # noqa: RUF005  (an index unpacked needs Python 3.11)


def named_classes(target: str, output: Tensor, labels: Tensor | None, first_index: int) -> Tensor:
    """Return the class of each image that ``target``, ``"predicted"`` or ``"label"``, names."""
    if output.ndim != 2:
        raise ValueError(
            f'target: "{target}" expects an output of shape (N, classes), got {tuple(output.shape)}'
        )
    return output.argmax(1) if target == "predicted" else _as_labels(labels, output, first_index)


def _as_labels(labels: Tensor | None, output: Tensor, first_index: int) -> Tensor:
    if labels is None or labels.ndim != 1 or len(labels) != len(output) or labels.is_floating_point():
        came = "none" if labels is None else describe(labels)
        raise ValueError(
            f'target: "label" expects one integer label an image with every batch, got {came} in the '
            f"batch that begins with image {first_index}"
        )
    labels = labels.to(device=output.device, dtype=torch.int64)
    classes = output.shape[1]
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(
            f'target: "label" expects labels from 0 to {classes - 1}, got {labels.min().item()} to '
            f"{labels.max().item()} in the batch that begins with image {first_index}"
        )
    return labels
