"""ResNet-D: 1x1 convolutions with a stride read means of pixels, in a copy of the model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, overload

import torch.nn.functional as F
from torch import Tensor, nn

from erfattr._checks import check_bool
from erfattr.remedies.model_changes import (
    OTHER_FUNCTION,
    Model,
    ModelChanges,
    Plan,
    changed_copy,
    check_convolution,
    check_model,
    words,
)


class AveragedConv2d(nn.Conv2d):
    """A 1x1 convolution of means over as many pixels as it used to step.

    Attributes:
        window: Rows and columns of the mean, and its stride.
    """

    window: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Average the pixels of each window that lie in the image, then convolve."""
        means = F.avg_pool2d(input, self.window, self.window, ceil_mode=True)
        return super().forward(means)

    def extra_repr(self) -> str:
        """Return ``nn.Conv2d``'s line and the window."""
        return f"{super().extra_repr()}, window={self.window}"  # type: ignore[no-untyped-call]


@overload
def average_shortcuts(
    model: Model, *, skip: Collection[str] = ..., return_changes: Literal[False] = ...
) -> Model: ...


@overload
def average_shortcuts(
    model: Model, *, skip: Collection[str] = ..., return_changes: Literal[True]
) -> tuple[Model, ModelChanges]: ...


def average_shortcuts(
    model: Model, *, skip: Collection[str] = (), return_changes: bool = False
) -> Model | tuple[Model, ModelChanges]:
    """Return a copy of ``model`` in which 1x1 convolutions with a stride read means of pixels (ResNet-D).

    A 1x1 convolution with stride 2, as in the shortcuts of ResNets, reads one pixel of four. Here it reads
    the mean of the four, at the border of those that exist. Outputs have the size of the original's and other
    values. Weights are shared in value and have the same names. Larger kernels keep their imbalance.

    Args:
        model: Any module; only read. Every 1x1 convolution with a stride and without padding is changed.
        skip: Dotted names of layers to leave.
        return_changes: Return the record of the changes as well.

    Returns:
        The copy; with ``return_changes`` also the :class:`ModelChanges`.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: ``skip`` names no layer; a layer to be changed is of a class of its own, is parametrised
            or has no weights yet. All such layers are named.

    Example:
        >>> import torch
        >>> model = torch.nn.Conv2d(1, 1, 1, stride=2, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> image = torch.tensor([[[[0.0, 4.0, 8.0], [0.0, 4.0, 8.0]]]])
        >>> model(image).flatten().tolist(), average_shortcuts(model)(image).flatten().tolist()
        ([0.0, 8.0], [2.0, 8.0])

    References:
        T. He et al.: Bag of Tricks for Image Classification with Convolutional Neural Networks, CVPR 2019.
    """
    check_bool("return_changes", return_changes)
    check_model(model, skip)
    changed, changes = changed_copy(model, _plan_average, skip)
    return (changed, changes) if return_changes else changed


def _plan_average(module: nn.Module) -> Plan:
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1):
        return Plan("not a 1x1 convolution")
    if module.padding not in ((0, 0), "valid"):
        return Plan("it pads")
    check_convolution(module, nn.Conv2d)
    rows, columns = module.stride
    return Plan(OTHER_FUNCTION, f"{words(module, stride=(1, 1))}, of {rows}x{columns} means", _average)


def _average(module: Any) -> None:
    module.__class__ = AveragedConv2d
    module.window, module.stride = module.stride, (1, 1)
