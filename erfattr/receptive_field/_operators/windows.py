"""Rules for operators that slide windows over a map: convolutions, pools, padding, patches."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._operators.moving import moved
from erfattr.receptive_field._operators.registry import Call, Results, rule
from erfattr.receptive_field._operators.taps import Taps, adaptive_taps, window_taps
from erfattr.receptive_field._provenance import Provenance
from erfattr.receptive_field._sets import compressed

Plan = Callable[[int, int, int], tuple[Taps, Fraction]]
"""Gives taps and step of the k-th window from the old and the new length."""


def slide(
    call: Call,
    tensor: Tensor,
    output: Tensor,
    plan: Plan,
    dims: Sequence[int],
    reads: Callable[[int, int, int], Taps] | None = None,
) -> Provenance | None:
    """Slide windows along ``dims``; ``plan(k, old, new)`` gives taps and step of the k-th of them."""
    found = call[tensor]
    if found is None:
        return None

    def along(axis: Axis) -> Axis:
        for k, dim in enumerate(dims):
            old, new = tensor.shape[dim], output.shape[dim]
            if axis.ids.shape[dim] > 1 or dim == axis.dim:
                taps, step = plan(k, old, new)
                axis = axis.windows(dim, old, taps, step, reads(k, old, new) if reads else None)
        return axis

    slid = found.each(along)
    return slid if slid is found else slid.consistent()


def per_dim(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


@rule("convolution", "_convolution")
def convolution(call: Call) -> Results | None:
    """Windows of the kernel over all channels of a group."""
    image, weight, (output,) = call.bound["input"], call.bound["weight"], call.outputs
    if call[image] is None or call[weight] is not None or isinstance(call.bound["padding"], str):
        return None
    count = weight.ndim - 2
    dims = range(image.ndim - count, image.ndim)
    channel, groups = image.ndim - count - 1, call.bound["groups"]
    stride, padding, dilation = (per_dim(call.bound[key], count) for key in ("stride", "padding", "dilation"))
    transposed = call.bound["transposed"]

    def plan(k: int, old: int, new: int) -> tuple[Taps, Fraction]:
        del old
        taps = window_taps(
            new, weight.shape[2 + k], stride[k], padding[k], dilation[k], transposed=transposed
        )
        return taps, Fraction(1, stride[k]) if transposed else Fraction(stride[k])

    def channels(axis: Axis) -> Axis:
        if axis.ids.shape[channel] == 1:
            return axis
        split = list(axis.ids.shape)
        split[channel : channel + 1] = [groups, split[channel] // groups]
        ids = axis.sets.unite_along(axis.ids.reshape(split), [channel + 1]).squeeze(channel + 1)
        return axis.with_ids(compressed(np.repeat(ids, output.shape[channel] // groups, axis=channel)))

    slid = slide(call, image, output, plan, dims)
    return [slid and slid.each(channels)]


@rule(pattern=r"_?(max|avg)_pool[123]d(_with_indices)?")
def pool(call: Call) -> Results | None:
    """Windows, each channel for itself."""
    image, output = call.tensors[0], call.outputs[0]
    count = int(re.findall(r"pool(\d)d", call.func._schema.name)[0])
    dims = range(image.ndim - count, image.ndim)
    kernel = per_dim(call.bound["kernel_size"], count)
    stride = per_dim(call.bound["stride"] or kernel, count)
    padding, dilation = per_dim(call.bound["padding"], count), per_dim(call.bound.get("dilation", 1), count)

    def plan(k: int, old: int, new: int) -> tuple[Taps, Fraction]:
        del old
        return window_taps(new, kernel[k], stride[k], padding[k], dilation[k]), Fraction(stride[k])

    return [slide(call, image, output, plan, dims)] * len(call.outputs)


@rule(pattern=r"_?adaptive_(max|avg)_pool[123]d")
def adaptive_pool(call: Call) -> Results | None:
    """Windows that divide the map into as many parts as wanted; one of all the map has no place."""
    image, output = call.tensors[0], call.outputs[0]
    count = int(re.findall(r"pool(\d)d", call.func._schema.name)[0])
    dims = range(image.ndim - count, image.ndim)
    slid = slide(call, image, output, lambda _, old, new: (adaptive_taps(old, new), Fraction(old, new)), dims)

    def placed(axis: Axis) -> Axis:
        dim = axis.dim
        whole = dim is not None and dim in dims and image.shape[dim] > 1 and output.shape[dim] == 1
        return axis.mixed() if whole else axis

    return [slid and slid.each(placed)] * len(call.outputs)


@rule("constant_pad_nd")
def pad(call: Call) -> Results | None:
    """More image on all sides, which nothing has been read of."""
    image, output = call.tensors[0], call.outputs[0]
    before = call.bound["pad"][::2]
    dims = [image.ndim - 1 - k for k in range(len(before))]
    found = slide(
        call, image, output, lambda k, _, new: (window_taps(new, 1, 1, before[k], 1), Fraction(1)), dims
    )
    if found is None:
        return None

    places = {found.rows.dim, found.columns.dim}

    def other(axis: Axis) -> Axis:
        """Padding along another dim, channels say, adds elements that have read nothing."""
        ids = axis.ids
        for k, dim in enumerate(dims):
            if dim not in places and ids.shape[dim] == 1 and output.shape[dim] != image.shape[dim]:
                inside = np.arange(output.shape[dim]) - before[k]
                inside = (inside >= 0) & (inside < image.shape[dim])
                ids = ids * inside.reshape([-1 if d == dim else 1 for d in range(ids.ndim)])
        return axis if ids is axis.ids else axis.with_ids(compressed(ids))

    return [found.each(other)]


@rule(pattern=r"(reflection|replication)_pad[123]d")
def mirror(call: Call) -> Results | None:
    """More image, which is the real one turned over or its border once more."""
    image, output = call.tensors[0], call.outputs[0]
    before = call.bound["padding"][::2]
    dims = [image.ndim - 1 - k for k in range(len(before))]
    reflect = call.name.startswith("reflection")

    def reads(k: int, old: int, new: int) -> Taps:
        taps = window_taps(new, 1, 1, before[k], 1)
        if not reflect:
            return taps.clip(0, old - 1)
        mirrored: Taps = (old - 1) - np.abs((old - 1) - np.abs(taps))
        return mirrored

    def plan(k: int, old: int, new: int) -> tuple[Taps, Fraction]:
        del old
        return window_taps(new, 1, 1, before[k], 1), Fraction(1)

    return [slide(call, image, output, plan, dims, reads)]


@rule("im2col")
def im2col(call: Call) -> Results | None:
    """Windows as columns: pad as a convolution does, then only move elements."""
    image = call.tensors[0]
    before = call.bound["padding"]
    padded = torch.empty(
        [*image.shape[:-2], *(n + 2 * p for n, p in zip(image.shape[-2:], before, strict=True))],
        device="meta",
    )
    dims = [image.ndim - 2, image.ndim - 1]
    found = slide(
        call, image, padded, lambda k, _, new: (window_taps(new, 1, 1, before[k], 1), Fraction(1)), dims
    )
    if found is None:
        return None
    bound = {**call.bound, "self": padded, "padding": [0, 0]}
    return moved(Call(call.func, call.name, bound, [padded], call.outputs, lambda _: found))


@rule("col2im")
def col2im(call: Call) -> Results | None:
    """Columns laid back as windows, one over the other, and added up."""
    columns, (output,) = call.tensors[0], call.outputs
    found = call[columns]
    if found is None or columns.ndim != 3:
        return None
    kernel, stride, padding, dilation, size = (
        [int(value) for value in call.bound[key]]
        for key in ("kernel_size", "stride", "padding", "dilation", "output_size")
    )
    grid = [(size[k] + 2 * padding[k] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1 for k in (0, 1)]

    def inside(k: int, tap: int) -> tuple[Taps, Taps]:
        """Windows of which one tap lies inside the output, and where."""
        places = np.arange(grid[k]) * stride[k] - padding[k] + tap * dilation[k]
        windows = np.flatnonzero((places >= 0) & (places < size[k]))
        return windows, places[windows]

    def folded(axis: Axis) -> Axis:
        images, channels, _ = axis.ids.shape
        ids = np.broadcast_to(axis.ids, (images, channels, columns.shape[2]))
        if channels > 1:
            ids = ids.reshape(images, -1, *kernel, *grid)
        else:
            ids = np.broadcast_to(ids.reshape(images, 1, 1, 1, *grid), (images, 1, *kernel, *grid))
        result = np.zeros((images, ids.shape[1], *size), dtype=np.int64)
        for tap in np.ndindex(*kernel):
            (from_rows, to_rows), (from_columns, to_columns) = inside(0, tap[0]), inside(1, tap[1])
            read = ids[:, :, tap[0], tap[1]][:, :, from_rows][:, :, :, from_columns]
            where = (slice(None), slice(None), to_rows[:, None], to_columns[None, :])
            result[where] = axis.sets.unite(result[where], read)
        return axis.replaced(result, output.shape, None)

    return [found.each(folded)]
