"""Kernel padding: odd kernels that step by 2 grow by a row and a column of zeros, in a copy of the model."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erfattr._checks import check_bool, check_choice
from erfattr.remedies.model_changes import (
    OTHER_FUNCTION,
    Model,
    ModelChanges,
    Plan,
    RefusedError,
    changed_copy,
    check_convolution,
    check_model,
    layers_named,
    pair,
    words,
)

_SAME = "same outputs until the new weights are trained"


class PaddedConv2d(nn.Conv2d):
    """A convolution whose kernel has grown at the bottom and right; everything else is ``nn.Conv2d``.

    The input is extended by as much as the kernel has grown, at the bottom and right, so the output has the
    size of the original's and every old weight reads the pixel that it read. Beyond the padding stand zeros
    under ``padding_mode="zeros"``, and otherwise the last padded row or column once more: it exists at every
    input size, where one more row of a reflection may not. A state dict may hold the original's weight.

    Attributes:
        added: Rows and columns that the kernel has grown by.
    """

    added: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return what ``nn.Conv2d`` returns, with the input extended at the bottom and right."""
        below, right = (a * d for a, d in zip(self.added, self.dilation, strict=True))
        if self.padding_mode == "zeros":
            return super().forward(F.pad(input, (0, right, 0, below)))
        padded = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        padded = F.pad(padded, (0, right, 0, below), mode="replicate")
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """Return ``nn.Conv2d``'s line and what was added."""
        return f"{super().extra_repr()}, added={self.added}"  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        rows, columns = (k - a for k, a in zip(self.kernel_size, self.added, strict=True))
        if isinstance(weight, Tensor) and weight.shape == (*self.weight.shape[:2], rows, columns):
            state_dict[f"{prefix}weight"] = _grown(weight, self.added)
        super()._load_from_state_dict(state_dict, prefix, *args)


class PaddedConv2dSame(PaddedConv2d):
    """The same for timm's ``Conv2dSame``: TensorFlow's padding, which depends on the size of the input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Pad as the original kernel wants it, then go on as ``PaddedConv2d``."""
        sides: list[int] = []
        for axis in (1, 0):
            kernel, length = self.kernel_size[axis] - self.added[axis], input.shape[axis - 2]
            stride, dilation = self.stride[axis], self.dilation[axis]
            total = max((-(-length // stride) - 1) * stride + dilation * (kernel - 1) + 1 - length, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(input, sides))


class WidenedMaxPool2d(nn.MaxPool2d):
    """A maximum over a window that has grown at the bottom and right, with as many outputs as before.

    Attributes:
        below: Rows of padding at the bottom, and columns at the right, beyond ``padding``.
    """

    below: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the maximum over the pixels of each window that lie in the image."""
        extended = F.pad(input, (0, self.below[1], 0, self.below[0]), value=-math.inf)
        result: Tensor = super().forward(extended)
        return result


class WidenedAvgPool2d(nn.AvgPool2d):
    """A mean over a window that has grown at the bottom and right, with as many outputs as before.

    Attributes:
        below: Rows of padding at the bottom, and columns at the right, beyond ``padding``.
    """

    below: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the mean of each window, padding counted as zeros only under ``count_include_pad``."""
        sides = (0, self.below[1], 0, self.below[0])
        if self.count_include_pad:
            return super().forward(F.pad(input, sides))
        size = (pair(self.kernel_size), pair(self.stride), pair(self.padding))
        share = F.avg_pool2d(F.pad(torch.ones_like(input[..., :1, :, :]), sides), *size)
        return F.avg_pool2d(F.pad(input, sides), *size) / share


_POOLS: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool2d: WidenedMaxPool2d,
    nn.AvgPool2d: WidenedAvgPool2d,
}


@overload
def pad_kernels(
    model: Model,
    *,
    pool: Literal["keep", "widen"] = ...,
    any_stride: bool = ...,
    skip: Collection[str] = ...,
    return_changes: Literal[False] = ...,
) -> Model: ...


@overload
def pad_kernels(
    model: Model,
    *,
    pool: Literal["keep", "widen"] = ...,
    any_stride: bool = ...,
    skip: Collection[str] = ...,
    return_changes: Literal[True],
) -> tuple[Model, ModelChanges]: ...


def pad_kernels(
    model: Model,
    *,
    pool: Literal["keep", "widen"] = "keep",
    any_stride: bool = False,
    skip: Collection[str] = (),
    return_changes: bool = False,
) -> Model | tuple[Model, ModelChanges]:
    """Return a copy of ``model`` in which every odd kernel with stride 2 is even: 7x7 is 8x8, 3x3 is 4x4.

    Along each axis with stride s and a kernel of k taps, s not dividing k, some pixels are read by more taps
    than others. The kernel grows to the next multiple of s by zeros at the bottom and right, and the input is
    padded by as much there, whatever its size::

        (H + 2 p + d a - d (k + a - 1) - 1) // s + 1  =  (H + 2 p - d (k - 1) - 1) // s + 1

    for a added taps, dilation d and padding p, so the copy has the same outputs at every input size. The new
    weights are trainable.

    Zeros change nothing: maps, imbalance and accuracy are the original's until the copy is trained, or
    initialised anew. With a dilation that shares a factor with the stride no kernel reads all pixels equally.
    Only modules are seen: not ``torch.nn.functional`` calls, nor a convolution's weight used elsewhere.

    Args:
        model: Any module; only read. Only two-dimensional convolutions, not transposed ones, are padded.
        pool: ``"keep"`` leaves pools. ``"widen"`` gives odd ``MaxPool2d`` and ``AvgPool2d`` a row and a
            column more as well, as the paper does: another function, with outputs of the same size.
        any_stride: Treat strides above 2 as well. By default only axes with stride 2.
        skip: Dotted names of layers to leave.
        return_changes: Return the record of the changes as well.

    Returns:
        The copy, on the same device, with the names of the original's parameters; the original's state dict
        can be loaded into it. With ``return_changes`` also the :class:`ModelChanges`.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: unknown ``pool``; ``skip`` names no layer; a layer to be padded is of a class of its own,
            is parametrised (weight or spectral norm, pruning), has no weights yet, or shares its weight with
            a layer that is not padded alike. All such layers are named.

    Example:
        >>> import torch
        >>> model = torch.nn.Conv2d(3, 8, 7, stride=2, padding=3)
        >>> padded, changes = pad_kernels(model, return_changes=True)
        >>> padded.weight.shape[-2:], padded.weight[..., 7:, :].abs().sum().item()
        (torch.Size([8, 8]), 0.0)
        >>> image = torch.randn(1, 3, 225, 225)
        >>> torch.allclose(padded(image), model(image), atol=1e-5)
        True

    References:
        B. J. Kim et al.: Dead Pixel Test Using Effective Receptive Field, section 4.
    """
    check_choice("pool", pool, ("keep", "widen"))
    check_bool("any_stride", any_stride)
    check_bool("return_changes", return_changes)
    check_model(model, skip)
    padded, changes = changed_copy(model, _Padding(model, pool, any_stride, skip).plan, skip)
    return (padded, changes) if return_changes else padded


def added_taps(module: Any, any_stride: bool = False) -> tuple[int, int]:
    """Return the rows and columns by which the kernel of a layer falls short of a multiple of its stride."""
    rows, columns = (
        -k % s if s == 2 or any_stride else 0
        for k, s in zip(pair(module.kernel_size), pair(module.stride), strict=True)
    )
    return rows, columns


def padding_below(module: Any, kernel: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns that a pool with another kernel, rounding down, needs to keep its size."""
    sides = []
    options = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1), kernel)
    for k, s, p, d, new in zip(*map(pair, options), strict=True):
        reach = 2 * p - d * (k - 1) - 1  # a map of H has (H + reach) // s + 1 outputs
        if module.ceil_mode:  # rounds up, but no window starts in the padding at the bottom
            reach = min(reach + s - 1, p - 1)
        sides.append(reach - (2 * p - d * (new - 1) - 1))
    return sides[0], sides[1]


class _Padding:
    """Plans the padding of one model's layers; weights that several layers share grow once."""

    def __init__(self, model: nn.Module, pool: str, any_stride: bool, skip: Collection[str]) -> None:
        self.pool, self.any_stride = pool, any_stride
        self.users: dict[int, dict[str, nn.Module]] = {}
        self.skipped = layers_named(model, skip)
        self.grown: dict[int, tuple[Tensor, nn.Parameter]] = {}
        for name, module in model.named_modules():
            for parameter in module._parameters.values():
                self.users.setdefault(id(parameter), {})[name] = module

    def plan(self, module: nn.Module) -> Plan:
        if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            return Plan("only two-dimensional convolutions and pools are padded")
        added = added_taps(module, self.any_stride)
        if added == (0, 0):
            whole = added_taps(module, any_stride=True) == (0, 0)
            return Plan("its kernel is a multiple of its stride" if whole else "its stride is not 2")
        rows, columns = pair(module.kernel_size)
        kernel = (rows + added[0], columns + added[1])
        if isinstance(module, nn.Conv2d):
            same = [type(module)] if _is_timm_same(module) else []
            check_convolution(module, nn.Conv2d, PaddedConv2d, PaddedConv2dSame, *same)
            self._check_users(module, added)
            return Plan(_SAME, words(module, kernel), partial(self._pad, added=added))
        if self.pool == "keep":
            return Plan('a wider pool is another function; pool="widen" widens it')
        if type(module) not in _POOLS:
            raise RefusedError(f"a {type(module).__name__}, a pool of its own kind, cannot be widened")
        if getattr(module, "return_indices", False):
            raise RefusedError("a pool that returns indices cannot be widened")
        if getattr(module, "divisor_override", None):
            raise RefusedError("a pool with a divisor of its own cannot be widened")
        return Plan(OTHER_FUNCTION, words(module, kernel), partial(_widen, kernel=kernel))

    def _check_users(self, module: nn.Conv2d, added: tuple[int, int]) -> None:
        for name, user in self.users[id(module.weight)].items():
            alike = isinstance(user, nn.Conv2d) and added_taps(user, self.any_stride) == added
            if id(user) in self.skipped or not alike:
                raise RefusedError(f"it shares its weight with {name!r}, which is not padded alike")

    def _pad(self, module: Any, added: tuple[int, int]) -> None:
        weight = module.weight
        if id(weight) not in self.grown:
            grown = nn.Parameter(_grown(weight.detach(), added), requires_grad=weight.requires_grad)
            self.grown[id(weight)] = (weight, grown)  # the old one is kept, and with it its id
        before = getattr(module, "added", (0, 0))
        if not isinstance(module, PaddedConv2d):
            # In place, as PyTorch does for lazy modules: hooks, flags and every reference to the layer stay.
            module.__class__ = PaddedConv2dSame if _is_timm_same(module) else PaddedConv2d
        module.weight = self.grown[id(weight)][1]
        rows, columns = module.weight.shape[2:]
        module.kernel_size = (rows, columns)
        module.added = (before[0] + added[0], before[1] + added[1])


def _is_timm_same(module: nn.Conv2d) -> bool:
    return f"{type(module).__module__}.{type(module).__name__}" == "timm.layers.conv2d_same.Conv2dSame"


def _grown(weight: Tensor, added: tuple[int, int]) -> Tensor:
    return F.pad(weight, (0, added[1], 0, added[0]))


def _widen(module: Any, kernel: tuple[int, int]) -> None:
    module.below = padding_below(module, kernel)
    module.kernel_size, module.ceil_mode = kernel, False
    module.__class__ = _POOLS[type(module)]
