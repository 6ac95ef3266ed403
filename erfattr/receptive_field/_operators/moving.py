"""Rules for operators that move elements about and compute nothing: there the operator is run on the ids."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from erfattr.receptive_field._axes import Axis, reshaped
from erfattr.receptive_field._operators.registry import Call, Results, rule
from erfattr.receptive_field._provenance import Provenance
from erfattr.receptive_field._rules import dims_of
from erfattr.receptive_field._sets import Ids

_INDEX_ARGUMENTS = ("index", "indices")


@rule("view", "_unsafe_view", "reshape", "flatten", "unflatten")
def reshape(call: Call) -> Results | None:
    """The elements in the same order, in another shape."""
    (output,) = call.outputs
    found = call[call.tensors[0]]
    old, new = list(call.tensors[0].shape), list(output.shape)
    if found is None or call.tensors[0].numel() != output.numel() or output.numel() == 0:
        return None
    return [found.each(lambda axis: reshaped(axis, old, new))]


@rule("expand")
def expand(call: Call) -> Results | None:
    """The elements repeated along dims of length 1; one that was the only one has no place any more."""
    found = call[call.tensors[0]]
    if found is None:
        return None
    old = (1,) * (call.outputs[0].ndim - call.tensors[0].ndim) + tuple(call.tensors[0].shape)

    def spread(axis: Axis) -> Axis:
        axis = axis.aligned(call.outputs[0].ndim)
        if axis.dim is not None and old[axis.dim] == 1 and call.outputs[0].shape[axis.dim] > 1:
            return axis.mixed()
        return axis

    return [found.each(spread)]


@rule("cat")
def cat(call: Call) -> Results | None:
    """Tensors one behind the other."""
    (output,) = call.outputs
    (dim,) = dims_of(call.bound["dim"], output.ndim)
    parts = [tensor for tensor in call.bound["tensors"] if tensor.numel()]
    found = [call[tensor] for tensor in parts]

    def join(pick: Callable[[Provenance], Axis]) -> Axis:
        axes = [pick(each) if each is not None else None for each in found]
        known = [axis for axis in axes if axis is not None]
        wide = [max(axis.ids.shape[d] for axis in known) for d in range(output.ndim)]
        pieces, counts = [], []
        for axis, part in zip(axes, parts, strict=True):
            ids = np.zeros((1,) * output.ndim, dtype=np.int64) if axis is None else axis.ids
            full = [ids.shape[d] if d == dim else wide[d] for d in range(ids.ndim)]
            pieces.append(ids if list(ids.shape) == full else np.broadcast_to(ids, full))
            # A part along which nothing changes is one index, to be repeated.
            counts += [part.shape[dim]] if ids.shape[dim] == 1 else [1] * ids.shape[dim]
        joined = np.repeat(np.concatenate(pieces, axis=dim), counts, axis=dim)
        main = next((axis for axis in known if axis.dim is not None and axis.dim in axis.varies()), known[0])
        # Joining moves no dim: of maps of one row, say, the row's place stays though only channels differ.
        return main.renewed(joined) if main.dim is not None else main.replaced(joined, output.shape, None)

    unknown = tuple(dict.fromkeys(name for each in found if each for name in each.unknown))
    return [Provenance(join(lambda each: each.rows), join(lambda each: each.columns), unknown)]


@rule("permute", "transpose", "t", "unsqueeze", "numpy_T", "movedim", "swapaxes")
def rearrange(call: Call) -> Results | None:
    """Dims in another order; where a dim goes is asked of the operator."""
    ndim = call.tensors[0].ndim

    def place(dim: int) -> int | None:
        marked = torch.empty([2 if d == dim else 1 for d in range(ndim)])
        result = _functional(call)(*_ordered(call, {**call.bound, "self": marked}))
        return next((d for d, length in enumerate(result.shape) if length > 1), dim)

    return moved(call, grown=(), place=place)


@rule("slice", "split", "split_with_sizes", "chunk", "index_select", "narrow", "unfold")
def cut(call: Call) -> Results | None:
    """Elements picked along one dim."""
    return moved(call, grown=_one_dim(call))


@rule("select", "unbind")
def pick_one(call: Call) -> Results | None:
    """One index of a dim, which goes."""
    (gone,) = _one_dim(call)
    return moved(call, grown=(gone,), place=lambda dim: None if dim == gone else dim - (gone < dim))


@rule("flip", "roll")
def turn(call: Call) -> Results | None:
    """Another order along some dims."""
    ndim = call.tensors[0].ndim
    return moved(call, grown=dims_of(call.bound["dims"], ndim) if call.bound["dims"] else range(ndim))


@rule(
    *("as_strided", "channel_shuffle", "diagonal", "gather", "index", "index_put", "pixel_shuffle"),
    *("pixel_unshuffle", "repeat", "repeat_interleave", "rot90", "select_scatter", "slice_scatter"),
    *("squeeze", "stack", "take", "take_along_dim", "tile", "tril", "triu", "unsafe_split"),
    *("unsafe_split_with_sizes", "unsafe_chunk", "scatter", "diagonal_scatter", "diag_embed"),
    *("native_channel_shuffle", "unfold_copy", "squeeze_copy", "slice_copy", "select_copy", "view_copy"),
    *("permute_copy", "expand_copy", "as_strided_copy"),
)
def move(call: Call) -> Results | None:
    """Elements moved in any way."""
    return moved(call)


def _one_dim(call: Call) -> list[int]:
    return dims_of(call.bound.get("dim", call.bound.get("dimension", 0)), call.tensors[0].ndim)


def moved(
    call: Call, grown: Collection[int] | None = None, place: Callable[[int], int | None] | None = None
) -> Results | None:
    """Run the operator on the ids.

    Args:
        call: The call.
        grown: The dims that the operator moves elements along; along others, ids that are the same
            everywhere stay one. All, if not given.
        place: Gives the dim of the output that a dim of the operand becomes. The same, if not given.
    """
    operands = call.operands(call.tensors)
    first, shape = operands[0]
    grown = range(len(shape)) if grown is None else grown
    indices = [
        t for key in _INDEX_ARGUMENTS for t in tree_leaves(call.bound.get(key)) if isinstance(t, Tensor)
    ]
    if any(index.is_meta or call[index] is not None for index in indices):
        return None
    if call.bound.get("accumulate") or call.bound.get("reduce") or call.bound.get("sparse_grad"):
        return None
    # im2col has no integer kernel; doubles hold ids exactly.
    kind = torch.float64 if call.name == "im2col" else torch.int64

    def run(pick: Callable[[Provenance], Axis]) -> list[Ids]:
        def convert(value: Any) -> Any:
            if not isinstance(value, Tensor) or any(value is index for index in indices):
                return value.cpu() if isinstance(value, Tensor) else value
            found = call[value]
            if found is None:
                return torch.zeros(value.shape, dtype=kind)
            ids = pick(found).ids
            full = [value.shape[d] if d in grown else ids.shape[d] for d in range(ids.ndim)]
            return torch.from_numpy(np.broadcast_to(ids, full).copy()).to(kind)

        result = _functional(call)(*_ordered(call, tree_map(convert, call.bound)))
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return [np.asarray(leaf.to(torch.int64).numpy()) for leaf in leaves]

    def replaced(axis: Axis, ids: Ids, output: Tensor) -> Axis:
        kept = axis.dim if axis.dim is None or place is None else place(axis.dim)
        return axis.replaced(ids, output.shape, kept)

    rows, columns = run(lambda found: found.rows), run(lambda found: found.columns)
    unknown = tuple(dict.fromkeys(each for found, _ in operands for each in found.unknown))
    return [
        Provenance(replaced(first.rows, row, output), replaced(first.columns, column, output), unknown)
        for row, column, output in zip(rows, columns, call.outputs, strict=True)
    ]


def _functional(call: Call) -> Any:
    """The operator in the form that returns its result instead of writing it."""
    if not call.func._schema.is_mutable:
        return call.func
    return getattr(getattr(torch.ops.aten, call.name), call.func._overloadname)


def _ordered(call: Call, values: dict[str, Any]) -> list[Any]:
    arguments = _functional(call)._schema.arguments
    return [values[argument.name] for argument in arguments if not argument.kwarg_only]
