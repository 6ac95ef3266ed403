"""BlurPool: odd kernels with stride 2 step only after a blur, in a copy of the model."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any, Literal, overload

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from erfattr._checks import check_bool, check_positive_int
from erfattr.remedies.kernel_padding import added_taps, padding_below
from erfattr.remedies.model_changes import (
    OTHER_FUNCTION,
    Model,
    ModelChanges,
    Plan,
    RefusedError,
    changed_copy,
    check_convolution,
    check_model,
    pair,
    words,
)


def binomial(size: int, stride: tuple[int, int]) -> Tensor:
    """Return the binomial filter of ``size`` taps along axes with a stride above 1, of one along others."""
    line = torch.tensor([math.comb(size - 1, tap) / 2 ** (size - 1) for tap in range(size)])
    rows, columns = (line if step > 1 else torch.ones(1) for step in stride)
    return torch.outer(rows, columns)


# One step in a traced graph: PyTorch 2.4 cannot trace a convolution whose groups are read off a shape.
@torch.fx.wrap
def blurred(maps: Tensor, taps: Tensor, stride: tuple[int, int]) -> Tensor:
    """Blur every channel with ``taps`` and step.

    Pixels beyond the border repeat it: a reflection, as in the paper, does not exist on a map of one pixel.
    """
    rows, columns = (((size - 1) // 2, size // 2) for size in taps.shape)
    channels = maps.shape[-3]
    maps = F.pad(maps, (*columns, *rows), mode="replicate")
    return F.conv2d(maps, taps.to(maps).expand(channels, 1, -1, -1), stride=stride, groups=channels)


class BlurredConv2d(nn.Conv2d):
    """A convolution that steps only after a blur.

    Attributes:
        taps: The filter, a buffer that is not in the state dict.
        blur_stride: The step of the blur; ``stride`` is the rest.
    """

    taps: Tensor
    blur_stride: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Convolve, then blur; the other way round where it is the same and costs less."""
        if self.kernel_size == (1, 1) and self.padding in ((0, 0), "valid"):
            return super().forward(blurred(input, self.taps, self.blur_stride))
        return blurred(super().forward(input), self.taps, self.blur_stride)

    def extra_repr(self) -> str:
        """Return ``nn.Conv2d``'s line and the blur."""
        line = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{line}, taps={tuple(self.taps.shape)}, blur_stride={self.blur_stride}"


class BlurredMaxPool2d(nn.MaxPool2d):
    """A maximum that steps only after a blur.

    Attributes:
        taps: The filter, a buffer that is not in the state dict.
        blur_stride: The step of the blur; ``stride`` is the rest.
        below: Rows of padding at the bottom, and columns at the right, beyond ``padding``.
    """

    taps: Tensor
    blur_stride: tuple[int, int]
    below: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Take the maximum of each window, then blur."""
        extended = F.pad(input, (0, self.below[1], 0, self.below[0]), value=-math.inf)
        return blurred(super().forward(extended), self.taps, self.blur_stride)

    def extra_repr(self) -> str:
        """Return ``nn.MaxPool2d``'s line and the blur."""
        return f"{super().extra_repr()}, taps={tuple(self.taps.shape)}, blur_stride={self.blur_stride}"


@overload
def blur_downsampling(
    model: Model,
    *,
    filter_size: int = ...,
    skip: Collection[str] = ...,
    return_changes: Literal[False] = ...,
) -> Model: ...


@overload
def blur_downsampling(
    model: Model,
    *,
    filter_size: int = ...,
    skip: Collection[str] = ...,
    return_changes: Literal[True],
) -> tuple[Model, ModelChanges]: ...


def blur_downsampling(
    model: Model,
    *,
    filter_size: int = 3,
    skip: Collection[str] = (),
    return_changes: bool = False,
) -> Model | tuple[Model, ModelChanges]:
    """Return a copy of ``model`` in which odd kernels with stride 2 step only after a blur (BlurPool).

    A convolution or maximum with stride 2 gets stride 1, and a binomial blur with stride 2 follows, which
    reads even and odd rows alike. Outputs have the size of the original's and other values. Weights are
    shared in value and have the same names.

    The paper blurs behind the activation. Here the blur stands directly behind the convolution, since a
    module does not know its activation; a batch normalisation between changes nothing. Maxima are as in the
    paper.

    Args:
        model: Any module; only read. What :func:`pad_kernels` would pad or widen is blurred: convolutions and
            maxima with stride 2 along axes with an odd kernel. Averages are left: they blur already.
        filter_size: Taps of the filter: 2 for 1, 1; 3 for 1, 2, 1; 4 for 1, 3, 3, 1. An even one moves the
            centre of each unit by half a pixel to the bottom right, as an even kernel does.
        skip: Dotted names of layers to leave.
        return_changes: Return the record of the changes as well.

    Returns:
        The copy; with ``return_changes`` also the :class:`ModelChanges`.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: ``filter_size`` below 2; ``skip`` names no layer; a layer to be changed is of a class of
            its own, is parametrised, has no weights yet, or returns indices. All such layers are named.

    Example:
        >>> import torch
        >>> model = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
        >>> blur_downsampling(model)(torch.zeros(1, 1, 225, 224)).shape
        torch.Size([1, 1, 113, 112])

    References:
        R. Zhang: Making Convolutional Networks Shift-Invariant Again, ICML 2019.
    """
    check_positive_int("filter_size", filter_size)
    if filter_size < 2:
        raise ValueError(f"filter_size: expected at least 2 taps, got {filter_size}")
    check_bool("return_changes", return_changes)
    check_model(model, skip)
    changed, changes = changed_copy(model, partial(_plan_blur, size=filter_size), skip)
    return (changed, changes) if return_changes else changed


def _plan_blur(module: nn.Module, size: int) -> Plan:
    if not isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
        return Plan("only two-dimensional convolutions and maxima are blurred")
    uneven = added_taps(module)
    if uneven == (0, 0):
        return Plan("no axis has stride 2 and an odd kernel")
    stride = pair(module.stride)
    blur = (stride[0] if uneven[0] else 1, stride[1] if uneven[1] else 1)
    rest = (1 if uneven[0] else stride[0], 1 if uneven[1] else stride[1])
    if isinstance(module, nn.Conv2d):
        check_convolution(module, nn.Conv2d)
        edit = partial(_blur_convolution, size=size, blur=blur, rest=rest)
    elif type(module) is not nn.MaxPool2d or module.return_indices:
        raise RefusedError(f"a {type(module).__name__} of its own kind or with indices cannot be blurred")
    else:
        edit = partial(_blur_pool, size=size, blur=blur, rest=rest)
    return Plan(OTHER_FUNCTION, f"{words(module, stride=rest)}, then a blur of {size} taps", edit)


def _blur_convolution(module: Any, size: int, blur: tuple[int, int], rest: tuple[int, int]) -> None:
    module.__class__ = BlurredConv2d
    module.register_buffer("taps", binomial(size, blur).to(module.weight), persistent=False)
    module.blur_stride, module.stride = blur, rest


def _blur_pool(module: Any, size: int, blur: tuple[int, int], rest: tuple[int, int]) -> None:
    module.below = padding_below(module, pair(module.kernel_size))
    module.__class__ = BlurredMaxPool2d
    module.register_buffer("taps", binomial(size, blur), persistent=False)
    module.blur_stride, module.stride, module.ceil_mode = blur, rest, False
