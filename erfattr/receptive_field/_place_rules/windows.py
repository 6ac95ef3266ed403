"""Rules for operators that slide windows over a map: convolutions, pools, padding, patches, resized maps."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from erfattr.receptive_field._operators.windows import per_dim
from erfattr.receptive_field._place_rules.moving import one_dim
from erfattr.receptive_field._place_rules.registry import Found, Placing, place_rule
from erfattr.receptive_field._places import (
    Line,
    Places,
    Vector,
    along,
    contracted,
    resampled,
    step_of,
    viewed,
)

Way = tuple[float, float]
"""The index that the first window's middle lies at, and the step from window to window."""


def slid(found: Places, old: Sequence[int], new: Sequence[int], ways: Sequence[Way | None]) -> Places:
    """Return the places of windows along the last dims of a tensor.

    Args:
        found: The places in the tensor.
        old: Its shape.
        new: The shape of the output.
        ways: How the windows go along each of the dims; ``None`` where there is one, of everything.
    """
    first = len(old) - len(ways)

    def slide(line: Line) -> Line:
        for dim, way in enumerate(ways, first):

            def windows(vector: Vector, dim: int = dim, way: Way | None = way) -> Vector | None:
                if way == (0, 1) and new[dim] == old[dim]:
                    return vector
                # How far it is from the only entry to a next one is not known.
                if way is None or old[dim] == 1 < new[dim]:
                    return None
                return resampled(vector, *way, new[dim])

            line = along(line, dim, windows)
        return line

    return found.each(slide)


@place_rule("convolution", "_convolution")
def convolution(call: Placing) -> Found:
    """Windows of the kernel over the channels of a group."""
    count = call.bound["weight"].ndim - 2
    stride, padding, dilation = (per_dim(call.bound[k], count) for k in ("stride", "padding", "dilation"))
    return [_convolved(call, stride, padding, dilation, call.bound["groups"], call.bound["transposed"])]


@place_rule("deform_conv2d")
def deformable_convolution(call: Placing) -> Found:
    """The same, each tap moved by an offset of its own; the middle stays."""
    stride, padding, dilation = (
        [int(call.bound[f"{k}_h"]), int(call.bound[f"{k}_w"])] for k in ("stride", "pad", "dilation")
    )
    return [_convolved(call, stride, padding, dilation, groups=1, transposed=False)]


def _convolved(
    call: Placing,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed: bool,
) -> Places:
    """Return the places after a convolution."""
    image, weight, output = call.bound["input"], call.bound["weight"], call.outputs[0]
    found, count = call.places(image), weight.ndim - 2
    channel = image.ndim - count - 1
    ways: list[Way | None] = []
    for k in range(count):
        middle = dilation[k] * (weight.shape[2 + k] - 1) / 2 - padding[k]
        ways.append((-middle / stride[k], 1 / stride[k]) if transposed else (middle, stride[k]))

    def channels(line: Line) -> Line:
        vector = line[channel]
        if vector is None:
            return line
        by_group = vector.reshape(groups, -1)
        if groups > 1 and (by_group == by_group[:, :1]).all():
            # Each group is an image of its own, as where kernels are computed image by image.
            own = np.repeat(by_group[:, 0], output.shape[channel] // groups)
            return (*line[:channel], own, *line[channel + 1 :])
        return contracted(line, [channel])

    return slid(found, image.shape, output.shape, ways).each(channels)


@place_rule(pattern=r"_?(mkldnn_)?(max|avg)_pool[123]d(_with_indices)?")
def pool(call: Placing) -> Found:
    """Windows, each channel for itself."""
    count = int(re.findall(r"pool(\d)d", call.name)[0])
    kernel = per_dim(call.bound["kernel_size"], count)
    stride = per_dim(call.bound["stride"] or kernel, count)
    padding = per_dim(call.bound["padding"], count)
    dilation = per_dim(call.bound.get("dilation", 1), count)
    ways = [(d * (k - 1) / 2 - p, s) for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)]
    return call.all(slid(call.first, call.tensors[0].shape, call.outputs[0].shape, ways))


@place_rule(pattern=r"_?adaptive_(max|avg)_pool[123]d")
def adaptive_pool(call: Placing) -> Found:
    """As many windows as wanted, evenly over the map; one of all the map has no place."""
    count = int(re.findall(r"pool(\d)d", call.name)[0])
    return call.all(_spread(call, call.tensors[0].ndim - count))


@place_rule(pattern=r"_?upsample_.*")
def upsample(call: Placing) -> Found:
    """As many entries as wanted, evenly over the map."""
    count = call.tensors[0].ndim - 2
    scales = call.bound.get("scale_factors")
    if not scales:
        keys = ("scales",) if count == 1 else ("scales_d", "scales_h", "scales_w")[3 - count :]
        scales = [call.bound.get(key) for key in keys]
    return call.all(_spread(call, 2, scales, align=bool(call.bound.get("align_corners"))))


def _spread(
    call: Placing, first: int, scales: Sequence[float | None] | None = None, *, align: bool = False
) -> Places:
    """Return the places of as many entries as wanted along the dims from ``first`` on."""
    old, new = call.tensors[0].shape, call.outputs[0].shape
    ways: list[Way | None] = []
    for k, dim in enumerate(range(first, len(old))):
        scale = scales[k] if scales else None
        step = 1 / scale if scale else old[dim] / new[dim]
        if align and new[dim] > 1:
            ways.append((0, (old[dim] - 1) / (new[dim] - 1)))
        elif new[dim] == 1 < old[dim]:
            ways.append(None)
        else:
            ways.append(((step - 1) / 2, step))
    return slid(call.first, old, new, ways)


@place_rule("constant_pad_nd", pattern=r"(reflection|replication)_pad[123]d")
def pad(call: Placing) -> Found:
    """More image on some sides; a flattened grid gets entries without a place."""
    amounts = call.bound["pad" if call.name == "constant_pad_nd" else "padding"]
    found, shape = call.first, call.outputs[0].shape
    # Behind the end of a row of tokens the next one begins, so that it does not go on.
    pairs = enumerate(zip(found.rows, found.columns, strict=True))
    flat = [dim for dim, (row, column) in pairs if row is not None and column is not None]

    def padded(line: Line) -> Line:
        for k, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
            dim = len(shape) - 1 - k

            def grown(vector: Vector, dim: int = dim, before: int = before, after: int = after) -> Vector:
                on = None if dim in flat else resampled(vector, -before, 1, shape[dim])
                if on is None:
                    inner = vector[max(0, -before) : len(vector) + min(0, after)]
                    on = np.pad(inner, (max(0, before), max(0, after)), constant_values=np.nan)
                return on

            line = along(line, dim, grown)
        return line

    return [found.each(padded)]


def _grid(call: Placing, size: Sequence[int]) -> tuple[list[int], list[float], list[int]]:
    """Return numbers of windows, their first middles and strides, of windows cut from a map of ``size``."""
    counts, middles, strides = [], [], []
    for k, length in enumerate(size):
        kernel, stride, padding, dilation = (
            int(call.bound[key][k]) for key in ("kernel_size", "stride", "padding", "dilation")
        )
        reach = dilation * (kernel - 1)
        counts.append((length + 2 * padding - reach - 1) // stride + 1)
        middles.append(reach / 2 - padding)
        strides.append(stride)
    return counts, middles, strides


@place_rule("im2col")
def im2col(call: Placing) -> Found:
    """Windows as columns: the last dim is the flattened grid of windows."""
    image, output = call.tensors[0], call.outputs[0]
    counts, middles, strides = _grid(call, image.shape[-2:])
    if image.ndim != 4 or counts[0] * counts[1] != output.shape[2]:
        return call.lost()
    grid = (*output.shape[:2], *counts)
    found = _channels_lost(call.first, 1)
    found = slid(found, image.shape, grid, list(zip(middles, strides, strict=True)))
    return [viewed(found, grid, output.shape)]


@place_rule("col2im")
def col2im(call: Placing) -> Found:
    """Windows laid over each other: the flattened grid of windows becomes a map again."""
    columns, output = call.tensors[0], call.outputs[0]
    counts, middles, strides = _grid(call, call.bound["output_size"])
    if columns.ndim != 3 or counts[0] * counts[1] != columns.shape[2]:
        return call.lost()
    grid = (*columns.shape[:2], *counts)
    ways = [(-middle / stride, 1 / stride) for middle, stride in zip(middles, strides, strict=True)]
    found = viewed(_channels_lost(call.first, 1), columns.shape, grid)
    return [slid(found, grid, output.shape, ways)]


def _channels_lost(found: Places, dim: int) -> Places:
    """Return places without what a dim of channels adds, and without those that it adds to."""
    return found.each(lambda line: along(line, dim, lambda _: None))


@place_rule("unfold", "unfold_copy")
def unfold(call: Placing) -> Found:
    """Windows along one dim, in a dim of their own."""
    dim, length = one_dim(call), call.outputs[0].shape[one_dim(call)]
    step, size = int(call.bound["step"]), int(call.bound["size"])

    def windows(line: Line) -> Line:
        vector = line[dim]
        if vector is None:
            return (*line, None)
        own = step_of(vector)
        if own is None:
            return (None,) * (len(line) + 1)
        return (
            *line[:dim],
            vector[::step][:length],
            *line[dim + 1 :],
            own * np.arange(size, dtype=np.float64),
        )

    return [call.first.each(windows)]


@place_rule("pixel_shuffle", "pixel_unshuffle")
def shuffle(call: Placing) -> Found:
    """Channels become places, or places channels."""
    old, new = call.tensors[0].shape, call.outputs[0].shape
    ways: list[Way | None] = []
    for dim in (len(old) - 2, len(old) - 1):
        step = old[dim] / new[dim]
        ways.append(((step - 1) / 2, step))
    return [slid(_channels_lost(call.first, len(old) - 3), old, new, ways)]
