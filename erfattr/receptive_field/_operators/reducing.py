"""Rules for operators that take in many positions along a dim: sums, statistics, softmax, normalisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._operators.registry import (
    Call,
    Results,
    anywhere,
    rule,
)
from erfattr.receptive_field._rules import dims_of
from erfattr.receptive_field._sets import compressed


@rule(
    *("sum", "mean", "amax", "amin", "max", "min", "aminmax", "prod", "var", "std", "var_mean", "std_mean"),
    *("norm", "linalg_vector_norm", "logsumexp", "any", "all", "argmax", "argmin", "median", "nanmedian"),
    *("mode", "nansum", "nanmean", "count_nonzero"),
)
def reduce(call: Call) -> Results | None:
    """One value of all along some dims."""
    tensor = call.tensors[0]
    found = call[tensor]
    if found is None:
        return None
    dims = dims_of(call.bound.get("dim"), tensor.ndim)
    output = call.outputs[0]

    def reduce(axis: Axis) -> Axis:
        result = axis.united(dims)
        if output.ndim == tensor.ndim:
            return result
        left = [d for d in range(tensor.ndim) if d not in dims]
        ids = result.ids.reshape([result.ids.shape[d] for d in left])
        return replace(result, ids=ids, dim=left.index(axis.dim) if axis.dim in left else None)

    return [found.each(reduce)] * len(call.outputs)


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax")
def softmax(call: Call) -> Results | None:
    """Each element keeps its place and is divided by a sum along a dim."""
    return _along(call, Axis.normalised)


@rule("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
def cumulate(call: Call) -> Results | None:
    """Each element keeps its place and takes in all before it."""
    return _along(call, lambda axis, dims: axis.cumulated(dims[0]))


@rule("sort", "argsort", "topk")
def order(call: Call) -> Results | None:
    """Any element of the dim may come out at any place."""
    return _along(
        call, lambda axis, dims: gathered_along(axis, dims) if axis.ids.shape[dims[0]] > 1 else axis
    )


def _along(call: Call, change: Callable[[Axis, Sequence[int]], Axis]) -> Results | None:
    tensor = call.tensors[0]
    found = call[tensor]
    if found is None:
        return None
    dims = dims_of(call.bound.get("dim", -1), tensor.ndim)
    return [found.each(lambda axis: change(axis, dims))] * len(call.outputs)


def gathered_along(axis: Axis, dims: Sequence[int]) -> Axis:
    """Union over ``dims``, without a place."""
    return axis.with_ids(axis.sets.unite_along(axis.ids, dims)).mixed()


@rule("glu")
def glu(call: Call) -> Results | None:
    """One half of the channels gates the other."""
    found = call[call.tensors[0]]
    if found is None:
        return None
    (dim,) = dims_of(call.bound["dim"], call.tensors[0].ndim)

    def fold(axis: Axis) -> Axis:
        if axis.ids.shape[dim] == 1:
            return axis
        return axis.with_ids(compressed(axis.sets.unite(*np.split(axis.ids, 2, axis=dim))))

    return [found.each(fold)]


@rule(pattern=r".*batch_norm.*")
def batch_norm(call: Call) -> Results | None:
    """Element by element in evaluation; in training with statistics over all but the channels."""
    image = call.tensors[0]
    found = call[image]
    if found is None or any(call[tensor] is not None for tensor in call.tensors[1:]):
        return None
    if "no_training" in call.name or call.bound.get("training", call.bound.get("train")) is False:
        return [found, *[None] * (len(call.outputs) - 1)]
    return _with_statistics(call, [dim for dim in range(image.ndim) if dim != 1])


@rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Results | None:
    """Statistics over the last dims."""
    ndim = call.tensors[0].ndim
    return _with_statistics(call, range(ndim - len(call.bound["normalized_shape"]), ndim))


@rule("native_group_norm")
def group_norm(call: Call) -> Results | None:
    """Statistics over all positions and the channels of a group."""
    image = call.tensors[0]
    found = call[image]
    if found is None or any(call[tensor] is not None for tensor in call.tensors[1:]):
        return None

    def normalised(axis: Axis) -> Axis:
        shape, groups = axis.ids.shape, call.bound["group"] if axis.ids.shape[1] > 1 else 1
        split = axis.with_ids(axis.ids.reshape(shape[0], groups, shape[1] // groups, *shape[2:]))
        ids = split.normalised(range(2, image.ndim + 1)).ids
        return axis.with_ids(ids.reshape(ids.shape[0], -1, *ids.shape[3:]))

    return [found.each(normalised), *(anywhere(found, output) for output in call.outputs[1:])]


def _with_statistics(call: Call, dims: Sequence[int]) -> Results | None:
    """The first output is normalised with statistics over ``dims``, the others are those statistics."""
    found = call[call.tensors[0]]
    if found is None or any(call[tensor] is not None for tensor in call.tensors[1:]):
        return None
    return [
        found.each(lambda axis: axis.normalised(dims)),
        *(anywhere(found, out) for out in call.outputs[1:]),
    ]
