"""What an operator's outputs have read, from what its operands have read: one rule for each family.

Families: element by element, windows, sums, statistics, matrix products and attention, and everything that
moves elements about without computing; there the operator itself is run on the ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from erfattr.receptive_field._provenance import (
    Axis,
    Ids,
    Provenance,
    adaptive_taps,
    compressed,
    pointwise,
    reshaped,
    taps_from_mask,
    window_taps,
)

Results = list[Provenance | None]
"""One provenance for each output; ``None`` for an output that does not depend on the image."""

_SAME = {
    "_to_copy", "alias", "clone", "contiguous", "copy", "detach", "dropout", "feature_dropout",
    "lift_fresh", "lift", "native_dropout", "_reshape_alias", "prelu", "_prelu_kernel", "hardswish",
    "hardsigmoid", "hardtanh", "elu", "leaky_relu", "celu", "selu", "softplus", "threshold",
    "masked_fill", "where", "clamp", "nan_to_num", "gelu", "addcmul", "addcdiv", "lerp", "fmod",
    "remainder", "view_as_real", "silu", "mish", "rrelu", "to",
}  # fmt: skip
_CONSTANT = {
    "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "bernoulli", "sym_size",
    "sym_numel", "sym_stride",
}  # fmt: skip
_RESHAPE = {"view", "_unsafe_view", "reshape", "flatten", "unflatten"}
_NO_DIM = {"permute", "transpose", "t", "unsqueeze", "numpy_T", "movedim", "swapaxes"}
_ONE_DIM = {
    "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "index_select", "narrow",
    "unfold",
}  # fmt: skip
_SOME_DIMS = {"flip", "roll"}
_MOVING = {
    "as_strided", "channel_shuffle", "diagonal", "gather", "index", "index_put", "pixel_shuffle",
    "pixel_unshuffle", "repeat", "repeat_interleave", "rot90", "select_scatter", "slice_scatter",
    "squeeze", "stack", "take", "take_along_dim", "tile", "tril", "triu", "unsafe_split",
    "unsafe_split_with_sizes", "unsafe_chunk", "scatter", "diagonal_scatter", "diag_embed",
    "native_channel_shuffle", "unfold_copy", "squeeze_copy",
}  # fmt: skip
_MOVING |= {"slice_copy", "select_copy", "view_copy", "permute_copy", "expand_copy", "as_strided_copy"}
_REDUCING = {
    "sum", "mean", "amax", "amin", "max", "min", "aminmax", "prod", "var", "std", "var_mean",
    "std_mean", "norm", "linalg_vector_norm", "logsumexp", "any", "all", "argmax", "argmin", "median",
    "nanmedian", "mode", "nansum", "nanmean", "count_nonzero",
}  # fmt: skip
_SOFTMAX = {"_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax"}
_ORDERING = {"sort", "argsort", "topk"}
_CUMULATING = {"cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"}
_PRODUCT = {"mm", "bmm", "addmm", "baddbmm", "linear", "mv", "addmv", "dot", "_addmm_activation", "matmul"}
_INDEX_ARGUMENTS = {"index", "indices"}


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        func: The operator.
        name: Its name without namespace, overload and the underscore of the in-place form.
        bound: Its arguments by name, defaults filled in.
        tensors: The tensors among them, in order.
        outputs: The tensors that it gives, or writes to.
        known: Gives the provenance of a tensor, ``None`` if it does not depend on the image.
    """

    func: Any
    name: str
    bound: dict[str, Any]
    tensors: list[Tensor]
    outputs: list[Tensor]
    known: Callable[[Tensor], Provenance | None]

    def __getitem__(self, tensor: Tensor) -> Provenance | None:
        return self.known(tensor)

    def operands(self, tensors: Iterable[Tensor]) -> list[tuple[Provenance, Sequence[int]]]:
        """Provenance and shape of those of ``tensors`` that depend on the image."""
        return [(found, tensor.shape) for tensor in tensors if (found := self[tensor]) is not None]


def base_name(func: Any) -> str:
    """Name of the operator without namespace, overload and the underscore of the in-place form."""
    name: str = func._schema.name.split("::")[-1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _is_pointwise(func: Any) -> bool:
    """Whether PyTorch tags the operator, or its functional form, as working element by element."""
    if torch.Tag.pointwise in func.tags:
        return True
    functional = getattr(torch.ops.aten, base_name(func), None)
    if functional is None or not func._schema.name.startswith("aten::"):
        return False
    return any(torch.Tag.pointwise in getattr(functional, name).tags for name in functional.overloads())


def results(call: Call) -> Results:
    """Return the provenance of every output of ``call``."""
    rule = _rule(call.func)
    found = rule(call) if rule is not None else None
    return not_understood(call) if found is None else found


def not_understood(call: Call) -> Results:
    """Take every output to depend on all that any operand has read, and say so."""
    operands = call.operands(call.tensors)
    merged = pointwise([(found.each(lambda axis: axis.anywhere(1)), (1,)) for found, _ in operands], 1)
    names = tuple(dict.fromkeys([*merged.unknown, str(call.func._schema.name)]))
    results: Results = []
    for output in call.outputs:
        whole = _anywhere(merged, output)
        like = next((found for found, shape in operands if shape == output.shape), None)
        if like is not None:
            rows, columns = (
                replace(whole.rows, dim=like.rows.dim),
                replace(whole.columns, dim=like.columns.dim),
            )
            whole = replace(whole, rows=rows, columns=columns)
        results.append(replace(whole, unknown=names))
    return results


def _dims(value: Any, ndim: int) -> list[int]:
    """Normalise a ``dim`` argument; none given means all."""
    if value is None or value == []:
        return list(range(ndim))
    return [dim % ndim for dim in (value if isinstance(value, (list, tuple)) else [value])]


def _per_dim(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


def _elementwise(call: Call) -> Results | None:
    return [pointwise(call.operands(call.tensors), output.ndim) for output in call.outputs]


def _reshape(call: Call) -> Results | None:
    (output,) = call.outputs
    found = call[call.tensors[0]]
    old, new = list(call.tensors[0].shape), list(output.shape)
    if found is None or call.tensors[0].numel() != output.numel() or output.numel() == 0:
        return None
    return [found.each(lambda axis: reshaped(axis, old, new))]


def _expand(call: Call) -> Results | None:
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


def _im2col(call: Call) -> Results | None:
    """Windows as columns: pad as a convolution does, then only move elements."""
    image = call.tensors[0]
    before = call.bound["padding"]
    padded = torch.empty(
        [*image.shape[:-2], *(n + 2 * p for n, p in zip(image.shape[-2:], before, strict=True))],
        device="meta",
    )
    dims = [image.ndim - 2, image.ndim - 1]
    found = _slide(
        call, image, padded, lambda k, _, new: (window_taps(new, 1, 1, before[k], 1), Fraction(1)), dims
    )
    if found is None:
        return None
    bound = {**call.bound, "self": padded, "padding": [0, 0]}
    return _move(replace(call, bound=bound, tensors=[padded], known=lambda _: found))


def _move(call: Call) -> Results | None:
    """Run the operator on the ids: it moves elements and computes nothing."""
    name = call.name
    operands = call.operands(call.tensors)
    first, shape = operands[0]
    ndim = len(shape)
    if name in _NO_DIM:
        grown: list[int] = []
    elif name in _ONE_DIM:
        grown = _dims(call.bound.get("dim", call.bound.get("dimension", 0)), ndim)
    elif name in _SOME_DIMS and call.bound["dims"]:
        grown = _dims(call.bound["dims"], ndim)
    else:
        grown = list(range(ndim))
    indices = [
        t for key in _INDEX_ARGUMENTS for t in tree_leaves(call.bound.get(key)) if isinstance(t, Tensor)
    ]
    if any(index.is_meta or call[index] is not None for index in indices):
        return None
    if call.bound.get("accumulate") or call.bound.get("reduce") or call.bound.get("sparse_grad"):
        return None

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

        # im2col has no integer kernel; doubles hold ids exactly.
        kind = torch.float64 if name == "im2col" else torch.int64
        values = tree_map(convert, call.bound)
        functional = call.func
        if call.func._schema.is_mutable:
            overload = call.func._overloadname
            functional = getattr(getattr(torch.ops.aten, name), overload)
        ordered = [
            values[argument.name] for argument in functional._schema.arguments if not argument.kwarg_only
        ]
        result = functional(*ordered)
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return [np.asarray(leaf.to(torch.int64).numpy()) for leaf in leaves]

    def kept(axis: Axis) -> int | None:
        if axis.dim is None or name not in _NO_DIM | {"select", "unbind"} | _ONE_DIM | _SOME_DIMS:
            return axis.dim
        marked = torch.empty([2 + d if d == axis.dim else 1 for d in range(ndim)], device="meta")
        if name == "permute":
            marked = marked.permute(call.bound["dims"])
        elif name == "transpose":
            marked = marked.transpose(call.bound["dim0"], call.bound["dim1"])
        elif name == "t":
            marked = marked.t()
        elif name == "unsqueeze":
            marked = marked.unsqueeze(call.bound["dim"])
        elif name in ("select", "unbind"):
            if grown[0] == axis.dim:
                return None
            return axis.dim - (grown[0] < axis.dim)
        return next((d for d, length in enumerate(marked.shape) if length > 1), axis.dim)

    rows, columns = run(lambda found: found.rows), run(lambda found: found.columns)
    unknown = tuple(dict.fromkeys(each for found, _ in operands for each in found.unknown))
    return [
        Provenance(
            first.rows.replaced(row, output.shape, kept(first.rows)),
            first.columns.replaced(column, output.shape, kept(first.columns)),
            unknown,
        )
        for row, column, output in zip(rows, columns, call.outputs, strict=True)
    ]


def _cat(call: Call) -> Results | None:
    (output,) = call.outputs
    (dim,) = _dims(call.bound["dim"], output.ndim)
    parts = [tensor for tensor in call.bound["tensors"] if tensor.numel()]
    found = [call[tensor] for tensor in parts]

    def join(pick: Callable[[Provenance], Axis]) -> Axis:
        axes = [pick(each) if each is not None else None for each in found]
        known = [axis for axis in axes if axis is not None]
        wide = [max(axis.ids.shape[d] for axis in known) for d in range(output.ndim)]
        pieces = []
        for axis, part in zip(axes, parts, strict=True):
            ids = np.zeros((1,) * output.ndim, dtype=np.int64) if axis is None else axis.ids
            pieces.append(
                np.broadcast_to(ids, [part.shape[d] if d == dim else wide[d] for d in range(ids.ndim)])
            )
        main = next((axis for axis in known if axis.dim is not None and axis.dim in axis.varies()), known[0])
        return main.replaced(np.concatenate(pieces, axis=dim), output.shape, main.dim)

    unknown = tuple(dict.fromkeys(name for each in found if each for name in each.unknown))
    return [Provenance(join(lambda each: each.rows), join(lambda each: each.columns), unknown)]


def _slide(
    call: Call,
    tensor: Tensor,
    output: Tensor,
    plan: Callable[[int, int, int], tuple[npt.NDArray[np.int64], Fraction]],
    dims: Sequence[int],
    reads: Callable[[int, int, int], npt.NDArray[np.int64]] | None = None,
) -> Provenance | None:
    """Slide windows along ``dims``; ``plan(k, old, new)`` gives taps and step of the k-th of them."""
    found = call[tensor]
    if found is None:
        return None

    def slide(axis: Axis) -> Axis:
        for k, dim in enumerate(dims):
            old, new = tensor.shape[dim], output.shape[dim]
            if axis.ids.shape[dim] > 1 or dim == axis.dim:
                taps, step = plan(k, old, new)
                axis = axis.windows(dim, old, taps, step, reads(k, old, new) if reads else None)
        return axis

    slid = found.each(slide)
    return slid if slid is found else slid.consistent()


def _convolution(call: Call) -> Results | None:
    image, weight, (output,) = call.bound["input"], call.bound["weight"], call.outputs
    if call[image] is None or call[weight] is not None or isinstance(call.bound["padding"], str):
        return None
    count = weight.ndim - 2
    dims = range(image.ndim - count, image.ndim)
    channel, groups = image.ndim - count - 1, call.bound["groups"]
    stride, padding, dilation = (
        _per_dim(call.bound[key], count) for key in ("stride", "padding", "dilation")
    )
    transposed = call.bound["transposed"]

    def plan(k: int, old: int, new: int) -> tuple[npt.NDArray[np.int64], Fraction]:
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

    slid = _slide(call, image, output, plan, dims)
    return [slid and slid.each(channels)]


def _pool(call: Call) -> Results | None:
    image, output = call.tensors[0], call.outputs[0]
    count = int(re.findall(r"pool(\d)d", call.func._schema.name)[0])
    dims = range(image.ndim - count, image.ndim)
    kernel = _per_dim(call.bound["kernel_size"], count)
    stride = _per_dim(call.bound["stride"] or kernel, count)
    padding, dilation = _per_dim(call.bound["padding"], count), _per_dim(call.bound.get("dilation", 1), count)

    def plan(k: int, old: int, new: int) -> tuple[npt.NDArray[np.int64], Fraction]:
        del old
        return window_taps(new, kernel[k], stride[k], padding[k], dilation[k]), Fraction(stride[k])

    return [_slide(call, image, output, plan, dims)] * len(call.outputs)


def _adaptive(call: Call) -> Results | None:
    image, output = call.tensors[0], call.outputs[0]
    count = int(re.findall(r"pool(\d)d", call.func._schema.name)[0])
    dims = range(image.ndim - count, image.ndim)
    slid = _slide(
        call, image, output, lambda _, old, new: (adaptive_taps(old, new), Fraction(old, new)), dims
    )

    def placed(axis: Axis) -> Axis:
        dim = axis.dim
        whole = dim is not None and dim in dims and image.shape[dim] > 1 and output.shape[dim] == 1
        return axis.mixed() if whole else axis

    return [slid and slid.each(placed)] * len(call.outputs)


def _pad(call: Call) -> Results | None:
    image, output = call.tensors[0], call.outputs[0]
    before = call.bound["pad"][::2]
    dims = [image.ndim - 1 - k for k in range(len(before))]
    found = _slide(
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


def _mirror(call: Call) -> Results | None:
    image, output = call.tensors[0], call.outputs[0]
    before = call.bound["padding"][::2]
    dims = [image.ndim - 1 - k for k in range(len(before))]
    reflect = call.name.startswith("reflection")

    def reads(k: int, old: int, new: int) -> npt.NDArray[np.int64]:
        taps = window_taps(new, 1, 1, before[k], 1)
        if not reflect:
            return taps.clip(0, old - 1)
        mirrored: npt.NDArray[np.int64] = (old - 1) - np.abs((old - 1) - np.abs(taps))
        return mirrored

    def plan(k: int, old: int, new: int) -> tuple[npt.NDArray[np.int64], Fraction]:
        del old
        return window_taps(new, 1, 1, before[k], 1), Fraction(1)

    return [_slide(call, image, output, plan, dims, reads)]


def _upsample(call: Call) -> Results | None:
    """Ask the operator itself which positions it reads, on one NaN per channel of a small image."""
    image, output = call.tensors[0], call.outputs[0]
    count = image.ndim - 2
    dims = range(2, image.ndim)
    align = bool(call.bound.get("align_corners"))

    def table(k: int, old: int, new: int) -> npt.NDArray[np.int64]:
        # Two wide across: of a map one wide, memory formats cannot be told apart, and antialiasing fails.
        poison = torch.where(torch.eye(old, dtype=torch.bool), torch.nan, 0.0)
        poison = poison.reshape([1, old] + [old if d == k else 1 for d in range(count)])
        poison = poison.expand([-1, -1] + [-1 if d == k else 2 for d in range(count)]).contiguous()
        values = dict(call.bound)
        values["self" if "self" in values else "input"] = poison
        values["output_size"] = [new if d == k else 2 for d in range(count)]
        for d, key in enumerate(("scales_d", "scales_h", "scales_w")[3 - count :]):
            if key in values and d != k:
                values[key] = None
        if call.bound.get("scale_factors"):
            values["output_size"] = None
            values["scale_factors"] = [
                call.bound["scale_factors"][d] if d == k else 1.0 for d in range(count)
            ]
        result = call.func(*(values[argument.name] for argument in call.func._schema.arguments))
        nan = result.isnan()[0].movedim(1 + k, 1).flatten(2).any(2)
        return taps_from_mask(nan.numpy())

    def plan(k: int, old: int, new: int) -> tuple[npt.NDArray[np.int64], Fraction]:
        if align:
            return table(k, old, new), Fraction(max(old - 1, 1), max(new - 1, 1))
        if new % old:
            return table(k, old, new), Fraction(old, new)
        # Away from the borders every phase reads the same neighbours: those of a map of 9, in its middle.
        factor = new // old
        middle = table(k, 9, 9 * factor)[:, 4 * factor : 5 * factor]
        block, phase = np.divmod(np.arange(new), factor)
        taps = middle[:, phase]
        missing = taps == taps.min() if (taps < 0).any() else np.zeros_like(taps, dtype=bool)
        return np.where(missing, taps, taps - 4 + block), Fraction(1, factor)

    return [_slide(call, image, output, plan, dims, table)]


def _reduce(call: Call) -> Results | None:
    tensor = call.tensors[0]
    found = call[tensor]
    if found is None:
        return None
    dims = _dims(call.bound.get("dim"), tensor.ndim)
    output = call.outputs[0]

    def reduce(axis: Axis) -> Axis:
        result = axis.united(dims)
        if output.ndim == tensor.ndim:
            return result
        left = [d for d in range(tensor.ndim) if d not in dims]
        ids = result.ids.reshape([result.ids.shape[d] for d in left])
        return replace(result, ids=ids, dim=left.index(axis.dim) if axis.dim in left else None)

    return [found.each(reduce)] * len(call.outputs)


def _along(call: Call) -> Results | None:
    tensor = call.tensors[0]
    found = call[tensor]
    if found is None:
        return None
    dims = _dims(call.bound.get("dim", -1), tensor.ndim)
    if call.name in _SOFTMAX:
        return [found.each(lambda axis: axis.normalised(dims))] * len(call.outputs)
    if call.name in _CUMULATING:
        return [found.each(lambda axis: axis.cumulated(dims[0]))] * len(call.outputs)

    def lost(axis: Axis) -> Axis:
        return _gathered_along(axis, dims) if axis.ids.shape[dims[0]] > 1 else axis

    return [found.each(lost)] * len(call.outputs)


def _glu(call: Call) -> Results | None:
    found = call[call.tensors[0]]
    if found is None:
        return None
    (dim,) = _dims(call.bound["dim"], call.tensors[0].ndim)

    def fold(axis: Axis) -> Axis:
        if axis.ids.shape[dim] == 1:
            return axis
        return axis.with_ids(compressed(axis.sets.unite(*np.split(axis.ids, 2, axis=dim))))

    return [found.each(fold)]


def _with_statistics(call: Call, dims: Sequence[int]) -> Results | None:
    """The first output is normalised with statistics over ``dims``, the others are those statistics."""
    found = call[call.tensors[0]]
    if found is None or any(call[tensor] is not None for tensor in call.tensors[1:]):
        return None
    return [
        found.each(lambda axis: axis.normalised(dims)),
        *(_anywhere(found, out) for out in call.outputs[1:]),
    ]


def _anywhere(found: Provenance, output: Tensor) -> Provenance:
    return found.each(lambda axis: axis.anywhere(output.ndim))


def _batch_norm(call: Call) -> Results | None:
    image = call.tensors[0]
    found = call[image]
    if found is None or any(call[tensor] is not None for tensor in call.tensors[1:]):
        return None
    if "no_training" in call.name or call.bound.get("training", call.bound.get("train")) is False:
        return [found, *[None] * (len(call.outputs) - 1)]
    return _with_statistics(call, [dim for dim in range(image.ndim) if dim != 1])


def _layer_norm(call: Call) -> Results | None:
    ndim = call.tensors[0].ndim
    return _with_statistics(call, range(ndim - len(call.bound["normalized_shape"]), ndim))


def _group_norm(call: Call) -> Results | None:
    image = call.tensors[0]
    found = call[image]
    if found is None or any(call[tensor] is not None for tensor in call.tensors[1:]):
        return None

    def normalised(axis: Axis) -> Axis:
        shape, groups = axis.ids.shape, call.bound["group"] if axis.ids.shape[1] > 1 else 1
        split = axis.with_ids(axis.ids.reshape(shape[0], groups, shape[1] // groups, *shape[2:]))
        ids = split.normalised(range(2, image.ndim + 1)).ids
        return axis.with_ids(ids.reshape(ids.shape[0], -1, *ids.shape[3:]))

    return [found.each(normalised), *(_anywhere(found, output) for output in call.outputs[1:])]


def _product(call: Call) -> Results | None:
    """A matrix product: each output has read a row of the first factor and a column of the second."""
    name = call.name
    keys = {
        "addmm": ("mat1", "mat2"),
        "_addmm_activation": ("mat1", "mat2"),
        "baddbmm": ("batch1", "batch2"),
    }
    keys |= {"linear": ("input", "weight"), "mv": ("self", "vec"), "addmv": ("mat", "vec")}
    keys |= {"dot": ("self", "tensor"), "matmul": ("self", "other")}
    first, second = (call.bound[key] for key in keys.get(name, ("self", "mat2")))
    left, right = call[first], call[second]
    (output,) = call.outputs
    if name in ("mv", "addmv", "dot", "matmul") or (name == "linear" and right is not None):
        return None
    parts: list[tuple[Provenance, Sequence[int]]] = []
    if left is not None:
        parts.append((left.each(lambda axis: axis.united([first.ndim - 1])), (1,) * output.ndim))
    if right is not None:
        parts.append((right.each(lambda axis: axis.united([second.ndim - 2])), (1,) * output.ndim))
    if left is not None and right is not None:
        # Both factors depend on the image: which of the two places is the result's is anyone's guess.
        parts = [(found.each(Axis.mixed), shape) for found, shape in parts]
    parts += call.operands(t for t in call.tensors if t is not first and t is not second)
    return [pointwise(parts, output.ndim)]


def _gathered_along(axis: Axis, dims: Sequence[int]) -> Axis:
    return axis.with_ids(axis.sets.unite_along(axis.ids, dims)).mixed()


def _attention(call: Call) -> Results | None:
    """softmax(q k) v: each query has read all keys and values of its batch and head."""
    query, key, value = call.bound["query"], call.bound["key"], call.bound["value"]
    if query.ndim != 4 or any(t.ndim != 4 for t in (key, value)) or query.shape[1] != key.shape[1]:
        return None
    parts = [
        (found.each(partial(_gathered_along, dims=dims)), (1,) * 4)
        for tensor, dims in ((query, [3]), (key, [2, 3]), (value, [2]))
        if (found := call[tensor]) is not None
    ]
    others = [t for t in call.tensors if all(t is not known for known in (query, key, value))]
    if any(call[t] is not None for t in others):
        return None
    whole = pointwise(parts, 4)
    return [whole, *(_anywhere(whole, output) for output in call.outputs[1:])]


def _fused_attention(call: Call) -> Results | None:
    """Self-attention in one operator, tokens along dim 1."""
    found = call[call.tensors[0]]
    if found is None:
        return None
    if call.name == "_transformer_encoder_layer_fwd":
        return [found.each(lambda axis: axis.normalised([1]).united([2]))] * len(call.outputs)
    parts = [
        (each.each(partial(_gathered_along, dims=[1, 2])), (1, 1, 1))
        for each, _ in call.operands(call.tensors)
    ]
    parts.append((found.each(lambda axis: axis.united([2]).mixed()), (1, 1, 1)))
    whole = pointwise(parts, 3)
    return [whole, *(_anywhere(whole, output) for output in call.outputs[1:])]


@cache
def _rule(func: Any) -> Callable[[Call], Results | None] | None:
    name = base_name(func)
    is_elementwise = name in _SAME or _is_pointwise(func)
    if not func._schema.name.startswith(("aten::", "prims::")):
        return None
    if name in _CONSTANT:
        return lambda call: [None] * len(call.outputs)
    if name in _RESHAPE:
        return _reshape
    if name in _NO_DIM | _ONE_DIM | _SOME_DIMS | _MOVING:
        return _move
    if name in _REDUCING and not is_elementwise:
        return _reduce
    if name in _SOFTMAX | _ORDERING | _CUMULATING:
        return _along
    if name in _PRODUCT:
        return _product
    if re.fullmatch(r"_?(max|avg)_pool[123]d(_with_indices)?", name):
        return _pool
    if re.fullmatch(r"_?adaptive_(max|avg)_pool[123]d", name):
        return _adaptive
    if re.fullmatch(r"(reflection|replication)_pad[123]d", name):
        return _mirror
    if name.startswith(("upsample_", "_upsample_")):
        return _upsample
    if name.startswith("_scaled_dot_product"):
        return _attention
    named = {
        "expand": _expand,
        "cat": _cat,
        "im2col": _im2col,
        "convolution": _convolution,
        "_convolution": _convolution,
        "constant_pad_nd": _pad,
        "glu": _glu,
        "native_layer_norm": _layer_norm,
        "_fused_rms_norm": _layer_norm,
        "native_group_norm": _group_norm,
        "_native_multi_head_attention": _fused_attention,
        "_transformer_encoder_layer_fwd": _fused_attention,
    }
    if name in named:
        return named[name]
    if "batch_norm" in name:
        return _batch_norm
    return _elementwise if is_elementwise else None
