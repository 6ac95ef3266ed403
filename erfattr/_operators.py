"""Follow provenance through every operator of a forward pass: a dispatch mode over tensors without data.

The model runs once on the meta device, where operators compute shapes only; weights are replaced by meta tensors
as they come. Beside each tensor that depends on the input goes its :class:`~erfattr._provenance.Provenance`.
Rules exist for families of operators: element by element, windows, sums, statistics, attention, and everything
that moves elements about without computing (there the operator itself is run on the ids). An operator in none
of them is named in ``Provenance.unknown``, and its results are taken to depend on all its operands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from erfattr._provenance import (
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

SMALL = 1 << 16
"""Constants up to this many elements are computed for real: they may serve as an index later."""

Bound = dict[str, Any]

_SAME = {
    "_to_copy", "alias", "clone", "contiguous", "copy", "detach", "dropout", "feature_dropout", "lift_fresh", "lift",
    "native_dropout", "_reshape_alias", "prelu", "_prelu_kernel", "hardswish", "hardsigmoid", "hardtanh", "elu",
    "leaky_relu", "celu", "selu", "softplus", "threshold", "masked_fill", "where", "clamp", "nan_to_num", "gelu",
    "addcmul", "addcdiv", "lerp", "fmod", "remainder", "view_as_real", "silu", "mish", "rrelu", "to",
}  # fmt: skip
_CONSTANT = {
    "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like", "new_empty",
    "new_zeros", "new_ones", "new_full", "new_empty_strided", "bernoulli", "sym_size", "sym_numel", "sym_stride",
}  # fmt: skip
_OVERWRITE = {
    "fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential", "geometric", "log_normal", "cauchy",
}  # fmt: skip
_RESHAPE = {"view", "_unsafe_view", "reshape", "flatten", "unflatten"}
_NO_DIM = {"permute", "transpose", "t", "unsqueeze", "numpy_T", "movedim", "swapaxes"}
_ONE_DIM = {"slice", "select", "split", "split_with_sizes", "chunk", "unbind", "index_select", "narrow", "unfold"}
_SOME_DIMS = {"flip", "roll"}
_MOVING = {
    "as_strided", "channel_shuffle", "diagonal", "gather", "im2col", "index", "index_put", "pixel_shuffle",
    "pixel_unshuffle", "repeat", "repeat_interleave", "rot90", "select_scatter", "slice_scatter", "squeeze", "stack",
    "take", "take_along_dim", "tile", "tril", "triu", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk",
    "scatter", "diagonal_scatter", "diag_embed", "native_channel_shuffle", "unfold_copy", "squeeze_copy",
}  # fmt: skip
_MOVING |= {"slice_copy", "select_copy", "view_copy", "permute_copy", "expand_copy", "as_strided_copy"}
_REDUCING = {
    "sum", "mean", "amax", "amin", "max", "min", "aminmax", "prod", "var", "std", "var_mean", "std_mean", "norm",
    "linalg_vector_norm", "logsumexp", "any", "all", "argmax", "argmin", "median", "nanmedian", "mode", "nansum",
    "nanmean", "count_nonzero",
}  # fmt: skip
_ALONG = {
    "_softmax", "_log_softmax", "softmax", "log_softmax", "sort", "argsort", "topk", "kthvalue", "cumsum", "cumprod",
    "cummax", "cummin", "logcumsumexp", "_safe_softmax",
}  # fmt: skip
_PRODUCT = {"mm", "bmm", "addmm", "baddbmm", "linear", "mv", "addmv", "dot", "_addmm_activation", "matmul"}
_INDEX_ARGUMENTS = {"index", "indices"}


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor) and not value.is_meta:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    return value


def _dims(value: Any, ndim: int) -> list[int]:
    """Normalise a ``dim`` argument; none given means all."""
    if value is None or value == []:
        return list(range(ndim))
    return [dim % ndim for dim in (value if isinstance(value, (list, tuple)) else [value])]


def _per_dim(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


def _bind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bound:
    bound = {argument.name: argument.default_value for argument in func._schema.arguments}
    bound.update(zip(bound, args, strict=False))
    bound.update(kwargs)
    return bound


def _base_name(func: Any) -> str:
    """Name of the operator without namespace, overload and the underscore of the in-place form."""
    name: str = func._schema.name.split("::")[-1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _is_pointwise(func: Any) -> bool:
    """Whether PyTorch tags the operator, or its functional form, as working element by element."""
    if torch.Tag.pointwise in func.tags:
        return True
    functional = getattr(torch.ops.aten, _base_name(func), None)
    if functional is None or not func._schema.name.startswith("aten::"):
        return False
    return any(torch.Tag.pointwise in getattr(functional, name).tags for name in functional.overloads())


class Tracing(TorchDispatchMode):
    """Run operators on meta tensors and carry provenance beside them; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self._known = WeakTensorKeyDictionary()
        self._families: dict[int, list[TensorWeakRef]] = {}
        self._own: dict[int, Tensor] = {}
        self._pointwise: dict[Any, bool] = {}
        self.last = ""
        """The operator that ran last, to name it where the pass breaks."""

    def __getitem__(self, tensor: Tensor) -> Provenance | None:
        found: Provenance | None = self._known.get(tensor)
        return found

    def __setitem__(self, tensor: Tensor, provenance: Provenance) -> None:
        self._known[tensor] = provenance

    # -- running ----------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.last = str(func)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        bound = _bind(func, args, kwargs)
        written = [
            bound[argument.name]
            for argument in func._schema.arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        written = [tensor for tensor in written if isinstance(tensor, Tensor)]
        tracked = any(self[tensor] is not None for tensor in tensors)
        is_view = not written and any(result.alias_info is not None for result in func._schema.returns)
        result = self._run(func, args, kwargs, tensors, written, is_view and bool(tensors))
        if is_view and tensors:
            self._relate([tensors[0], *(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))])
        if not tracked:
            return result
        outputs = written or [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        found = self._propagate(func, bound, tensors, written, outputs)
        for output, provenance in zip(outputs, found, strict=True):
            if written:
                self._write(output, provenance)
            elif provenance is not None:
                self._known[output] = provenance
        return result

    def _run(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        written: list[Tensor],
        is_view: bool,
    ) -> Any:
        """Execute the operator: for real on small constants and on views of them, on meta tensors otherwise."""
        real = not any(tensor.is_meta for tensor in tensors)
        if real and tensors and is_view:
            return func(*args, **kwargs)
        if real and all(_storage(tensor) in self._own for tensor in written):
            tracked = any(self[tensor] is not None for tensor in tensors)
            if not tensors:
                shape = func(*tree_map(_to_meta, args), **{**tree_map(_to_meta, kwargs), **_on_meta(func)})
                small = all(leaf.numel() <= SMALL for leaf in tree_leaves(shape) if isinstance(leaf, Tensor))
            else:
                small = sum(tensor.numel() for tensor in tensors) <= SMALL
            if small and not tracked:
                if not tensors and "device" in kwargs:
                    kwargs = {**kwargs, "device": torch.device("cpu")}
                result = func(*args, **kwargs)
                for leaf in tree_leaves(result):
                    if isinstance(leaf, Tensor):
                        self._own[_storage(leaf)] = leaf
                return result
        result = func(*tree_map(_to_meta, args), **tree_map(_to_meta, kwargs), **_on_meta(func, kwargs))
        if written:
            return written[0] if isinstance(result, Tensor) else type(result)(written)
        return result

    def _relate(self, tensors: list[Tensor]) -> None:
        """Remember tensors that share memory: writing to one changes the others."""
        family = self._families.setdefault(_storage(tensors[0]), [])
        alive = {id(ref()) for ref in family}
        family.extend(TensorWeakRef(tensor) for tensor in tensors if id(tensor) not in alive)

    def _write(self, target: Tensor, provenance: Provenance | None) -> None:
        """Give ``target`` a new provenance, and its share of it to every tensor with the same memory."""
        place = _storage(target)
        family = [ref() for ref in self._families.get(place, [])]
        others = [
            tensor
            for tensor in family
            if isinstance(tensor, Tensor) and tensor is not target and _storage(tensor) == place
        ]
        base = target._base
        if isinstance(base, Tensor) and base is not target and all(base is not other for other in others):
            others.append(base)
        before = {id(tensor): self[tensor] for tensor in [*others, target]}
        self._set(target, provenance)
        if not others:
            return
        some = provenance or next((found for found in before.values() if found is not None), None)
        if some is None:
            return
        size = target.untyped_storage().nbytes() // target.element_size()

        def axis(name: str, other: Tensor) -> Axis:
            flat = torch.zeros(size, dtype=torch.int64)
            for tensor in [*others, target]:
                found = provenance if tensor is target else before[id(tensor)]
                where = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
                where.copy_(torch.from_numpy(np.array(getattr(found, name).ids)) if found else torch.zeros(()))
            ids = flat.as_strided(other.shape, other.stride(), other.storage_offset()).numpy()
            old = before[id(other)]
            reference: Axis = getattr(old or some, name)
            return reference.replaced(ids, other.shape, reference.dim)

        unknown = tuple(dict.fromkeys(name for p in [*before.values(), provenance] if p for name in p.unknown))
        for other in others:
            self._known[other] = Provenance(axis("rows", other), axis("columns", other), unknown)

    def _set(self, tensor: Tensor, provenance: Provenance | None) -> None:
        if provenance is None:
            self._known.pop(tensor, None)
        else:
            self._known[tensor] = provenance

    # -- rules ------------------------------------------------------------------------------------------------

    def _propagate(
        self, func: Any, bound: Bound, tensors: list[Tensor], written: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None]:
        name = _base_name(func)
        if written:
            if len(written) > 1 or name in ("set", "resize"):
                return self._unknown(func, tensors, outputs)
            if name in _OVERWRITE:
                return [None]
            if name == "copy":
                source = self[bound["src"]]
                return [source and pointwise([(source, bound["src"].shape)], outputs[0].ndim)]
            if "out" in bound:
                tensors = [tensor for tensor in tensors if tensor is not written[0]]
        if name in _CONSTANT:
            return [None] * len(outputs)
        rule = self._rule(name, func)
        if rule is None:
            return self._unknown(func, tensors, outputs)
        found = rule(func, bound, tensors, outputs)
        return self._unknown(func, tensors, outputs) if found is None else found

    def _rule(self, name: str, func: Any) -> Callable[..., list[Provenance | None] | None] | None:
        if func not in self._pointwise:
            self._pointwise[func] = name in _SAME or _is_pointwise(func)
        if not func._schema.name.startswith(("aten::", "prims::")):
            return None
        if name in _RESHAPE:
            return self._reshape
        if name in _NO_DIM | _ONE_DIM | _SOME_DIMS | _MOVING:
            return self._move
        if name in _REDUCING and not self._pointwise[func]:
            return self._reduce
        if name in _ALONG:
            return self._along
        if name in _PRODUCT:
            return self._product
        if re.fullmatch(r"_?(max|avg)_pool[123]d(_with_indices)?", name):
            return self._pool
        if re.fullmatch(r"_?adaptive_(max|avg)_pool[123]d", name):
            return self._adaptive
        if re.fullmatch(r"(reflection|replication)_pad[123]d", name):
            return self._mirror
        if name.startswith(("upsample_", "_upsample_")):
            return self._upsample
        if name.startswith("_scaled_dot_product"):
            return self._attention
        named = {
            "expand": self._expand,
            "cat": self._cat,
            "convolution": self._convolution,
            "_convolution": self._convolution,
            "constant_pad_nd": self._pad,
            "glu": self._glu,
            "native_layer_norm": self._layer_norm,
            "_fused_rms_norm": self._layer_norm,
            "native_group_norm": self._group_norm,
            "_native_multi_head_attention": self._fused_attention,
            "_transformer_encoder_layer_fwd": self._fused_attention,
        }
        if name in named:
            return named[name]
        if "batch_norm" in name:
            return self._batch_norm
        return self._elementwise if self._pointwise[func] else None

    def _operands(self, tensors: Iterable[Tensor]) -> list[tuple[Provenance, Sequence[int]]]:
        return [(found, tensor.shape) for tensor in tensors if (found := self[tensor]) is not None]

    def _unknown(self, func: Any, tensors: list[Tensor], outputs: list[Tensor]) -> list[Provenance | None]:
        """Take every output to depend on all that any operand has read, and say so."""
        merged = pointwise([(found.each(lambda axis: axis.anywhere(1)), (1,)) for found, _ in self._operands(tensors)], 1)
        names = tuple(dict.fromkeys([*merged.unknown, str(func._schema.name)]))
        return [replace(merged.each(lambda axis, n=out.ndim: axis.anywhere(n)), unknown=names) for out in outputs]  # type: ignore[misc]

    def _elementwise(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None]:
        del func, bound
        return [pointwise(self._operands(tensors), output.ndim) for output in outputs]

    def _reshape(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func, bound
        (output,) = outputs
        found = self[tensors[0]]
        old, new = list(tensors[0].shape), list(output.shape)
        if found is None or tensors[0].numel() != output.numel() or output.numel() == 0:
            return None
        return [found.each(lambda axis: axis.replaced(reshaped(axis.ids, old, new), new, axis.dim))]

    def _expand(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func, bound
        found = self[tensors[0]]
        if found is None:
            return None
        old = (1,) * (outputs[0].ndim - tensors[0].ndim) + tuple(tensors[0].shape)

        def spread(axis: Axis) -> Axis:
            axis = axis.aligned(outputs[0].ndim)
            if axis.dim is not None and old[axis.dim] == 1 and outputs[0].shape[axis.dim] > 1:
                return axis.mixed()
            return axis

        return [found.each(spread)]

    def _move(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        """Run the operator on the ids: it moves elements and computes nothing."""
        name = _base_name(func)
        operands = self._operands(tensors)
        first, shape = operands[0]
        ndim = len(shape)
        if name in _NO_DIM:
            grown: list[int] = []
        elif name in _ONE_DIM:
            grown = _dims(bound.get("dim", bound.get("dimension", 0)), ndim)
        elif name in _SOME_DIMS and bound["dims"]:
            grown = _dims(bound["dims"], ndim)
        else:
            grown = list(range(ndim))
        indices = [t for key in _INDEX_ARGUMENTS for t in tree_leaves(bound.get(key)) if isinstance(t, Tensor)]
        if any(index.is_meta or self[index] is not None for index in indices):
            return None
        if bound.get("accumulate") or bound.get("reduce") or bound.get("sparse_grad"):
            return None

        def run(pick: Callable[[Provenance], Axis]) -> list[Ids]:
            def convert(value: Any) -> Any:
                if not isinstance(value, Tensor) or any(value is index for index in indices):
                    return value.cpu() if isinstance(value, Tensor) else value
                found = self[value]
                if found is None:
                    return torch.zeros(value.shape, dtype=kind)
                ids = pick(found).ids
                full = [value.shape[d] if d in grown else ids.shape[d] for d in range(ids.ndim)]
                return torch.from_numpy(np.broadcast_to(ids, full).copy()).to(kind)

            # im2col has no integer kernel; doubles hold ids exactly.
            kind = torch.float64 if name == "im2col" else torch.int64
            call = tree_map(convert, bound)
            functional = func
            if func._schema.is_mutable:
                overload = func._overloadname
                functional = getattr(getattr(torch.ops.aten, name), overload)
            ordered = [call[argument.name] for argument in functional._schema.arguments if not argument.kwarg_only]
            result = functional(*ordered)
            leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            return [np.asarray(leaf.to(torch.int64).numpy()) for leaf in leaves]

        def kept(axis: Axis) -> int | None:
            if axis.dim is None or name not in _NO_DIM | {"select", "unbind"} | _ONE_DIM | _SOME_DIMS:
                return axis.dim
            marked = torch.empty([2 + d if d == axis.dim else 1 for d in range(ndim)], device="meta")
            if name == "permute":
                marked = marked.permute(bound["dims"])
            elif name == "transpose":
                marked = marked.transpose(bound["dim0"], bound["dim1"])
            elif name == "t":
                marked = marked.t()
            elif name == "unsqueeze":
                marked = marked.unsqueeze(bound["dim"])
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
            for row, column, output in zip(rows, columns, outputs, strict=True)
        ]

    def _cat(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func
        (output,) = outputs
        (dim,) = _dims(bound["dim"], output.ndim)
        parts = [tensor for tensor in bound["tensors"] if tensor.numel()]
        found = [self[tensor] for tensor in parts]

        def join(pick: Callable[[Provenance], Axis]) -> Axis:
            axes = [pick(each) if each is not None else None for each in found]
            known = [axis for axis in axes if axis is not None]
            wide = [max(axis.ids.shape[d] for axis in known) for d in range(output.ndim)]
            pieces = []
            for axis, part in zip(axes, parts, strict=True):
                ids = np.zeros((1,) * output.ndim, dtype=np.int64) if axis is None else axis.ids
                pieces.append(np.broadcast_to(ids, [part.shape[d] if d == dim else wide[d] for d in range(ids.ndim)]))
            main = next((axis for axis in known if axis.dim is not None and axis.dim in axis.varies()), known[0])
            return main.replaced(np.concatenate(pieces, axis=dim), output.shape, main.dim)

        unknown = tuple(dict.fromkeys(name for each in found if each for name in each.unknown))
        return [Provenance(join(lambda each: each.rows), join(lambda each: each.columns), unknown)]

    def _slide(
        self,
        tensor: Tensor,
        output: Tensor,
        plan: Callable[[int, int, int], tuple[npt.NDArray[np.int64], Fraction]],
        dims: Sequence[int],
        reads: Callable[[int, int, int], npt.NDArray[np.int64]] | None = None,
    ) -> Provenance | None:
        """Slide windows along ``dims``; ``plan(k, old, new)`` gives taps and step of the k-th of them."""
        found = self[tensor]
        if found is None:
            return None

        def slide(axis: Axis) -> Axis:
            for k, dim in enumerate(dims):
                old, new = tensor.shape[dim], output.shape[dim]
                if axis.ids.shape[dim] > 1 or dim == axis.dim:
                    taps, step = plan(k, old, new)
                    axis = axis.windows(dim, old, taps, step, reads(k, old, new) if reads else None)
            return axis

        return found.each(slide)

    def _convolution(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func, tensors
        image, weight, (output,) = bound["input"], bound["weight"], outputs
        if self[image] is None or self[weight] is not None or isinstance(bound["padding"], str):
            return None
        count = weight.ndim - 2
        dims = range(image.ndim - count, image.ndim)
        channel, groups = image.ndim - count - 1, bound["groups"]
        stride, padding, dilation = (_per_dim(bound[key], count) for key in ("stride", "padding", "dilation"))
        transposed = bound["transposed"]

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

        slid = self._slide(image, output, plan, dims)
        return [slid and slid.each(channels)]

    def _pool(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        image, output = tensors[0], outputs[0]
        count = int(re.findall(r"pool(\d)d", func._schema.name)[0])
        dims = range(image.ndim - count, image.ndim)
        kernel = _per_dim(bound["kernel_size"], count)
        stride = _per_dim(bound["stride"] or kernel, count)
        padding, dilation = _per_dim(bound["padding"], count), _per_dim(bound.get("dilation", 1), count)

        def plan(k: int, old: int, new: int) -> tuple[npt.NDArray[np.int64], Fraction]:
            del old
            return window_taps(new, kernel[k], stride[k], padding[k], dilation[k]), Fraction(stride[k])

        return [self._slide(image, output, plan, dims)] * len(outputs)

    def _adaptive(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del bound
        image, output = tensors[0], outputs[0]
        count = int(re.findall(r"pool(\d)d", func._schema.name)[0])
        dims = range(image.ndim - count, image.ndim)
        slid = self._slide(
            image, output, lambda _, old, new: (adaptive_taps(old, new), Fraction(old, new)), dims
        )

        def placed(axis: Axis) -> Axis:
            whole = axis.dim in dims and image.shape[axis.dim] > 1 and output.shape[axis.dim] == 1
            return axis.mixed() if whole else axis

        return [slid and slid.each(placed)] * len(outputs)

    def _pad(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func
        image, output = tensors[0], outputs[0]
        before = bound["pad"][::2]
        dims = [image.ndim - 1 - k for k in range(len(before))]
        found = self._slide(
            image, output, lambda k, _, new: (window_taps(new, 1, 1, before[k], 1), Fraction(1)), dims
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

    def _mirror(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        image, output = tensors[0], outputs[0]
        before = bound["padding"][::2]
        dims = [image.ndim - 1 - k for k in range(len(before))]
        reflect = _base_name(func).startswith("reflection")

        def reads(k: int, old: int, new: int) -> npt.NDArray[np.int64]:
            taps = window_taps(new, 1, 1, before[k], 1)
            if not reflect:
                return taps.clip(0, old - 1)
            return (old - 1) - np.abs((old - 1) - np.abs(taps))

        def plan(k: int, old: int, new: int) -> tuple[npt.NDArray[np.int64], Fraction]:
            del old
            return window_taps(new, 1, 1, before[k], 1), Fraction(1)

        return [self._slide(image, output, plan, dims, reads)]

    def _upsample(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        """Ask the operator itself which positions it reads, on one NaN per channel of a small image."""
        image, output = tensors[0], outputs[0]
        count = image.ndim - 2
        dims = range(2, image.ndim)
        align = bool(bound.get("align_corners"))

        def table(k: int, old: int, new: int) -> npt.NDArray[np.int64]:
            shape = [old if d == k else 1 for d in range(count)]
            poison = torch.where(torch.eye(old, dtype=torch.bool), torch.nan, 0.0).reshape(1, old, *shape)
            call = dict(bound)
            call["self" if "self" in call else "input"] = poison
            call["output_size"] = [new if d == k else 1 for d in range(count)]
            for d, key in enumerate(("scales_d", "scales_h", "scales_w")[3 - count :]):
                if key in call and d != k:
                    call[key] = None
            if bound.get("scale_factors"):
                call["output_size"] = None
                call["scale_factors"] = [bound["scale_factors"][d] if d == k else 1.0 for d in range(count)]
            result = func(*(call[argument.name] for argument in func._schema.arguments))
            return taps_from_mask(result.isnan().reshape(old, -1).numpy())

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

        return [self._slide(image, output, plan, dims, table)]

    def _reduce(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func
        tensor = tensors[0]
        found = self[tensor]
        if found is None:
            return None
        dims = _dims(bound.get("dim"), tensor.ndim)
        output = outputs[0]

        def reduce(axis: Axis) -> Axis:
            result = axis.united(dims)
            if output.ndim == tensor.ndim:
                return result
            left = [d for d in range(tensor.ndim) if d not in dims]
            ids = result.ids.reshape([result.ids.shape[d] for d in left])
            return replace(result, ids=ids, dim=left.index(axis.dim) if axis.dim in left else None)

        return [found.each(reduce)] * len(outputs)

    def _along(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        tensor = tensors[0]
        found = self[tensor]
        if found is None:
            return None
        dims = _dims(bound.get("dim", -1), tensor.ndim)
        if _base_name(func) in ("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax"):
            return [found.each(lambda axis: axis.normalised(dims))] * len(outputs)

        def lost(axis: Axis) -> Axis:
            return axis.with_ids(axis.sets.unite_along(axis.ids, dims)).mixed()

        same = all(output.ndim == tensor.ndim for output in outputs)
        return [found.each(lost)] * len(outputs) if same else None

    def _glu(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func
        found = self[tensors[0]]
        if found is None:
            return None
        (dim,) = _dims(bound["dim"], tensors[0].ndim)

        def fold(axis: Axis) -> Axis:
            if axis.ids.shape[dim] == 1:
                return axis
            return axis.with_ids(compressed(axis.sets.unite(*np.split(axis.ids, 2, axis=dim))))

        del outputs
        return [found.each(fold)]

    def _statistics(self, found: Provenance, dims: Sequence[int], outputs: list[Tensor]) -> list[Provenance | None]:
        normal = found.each(lambda axis: axis.normalised(dims))
        rest = [found.each(lambda axis, n=out.ndim: axis.anywhere(n)) for out in outputs[1:]]  # type: ignore[misc]
        return [normal, *rest]

    def _batch_norm(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        image = bound.get("input", bound.get("self"))
        found = self[image] if isinstance(image, Tensor) else None
        if found is None or any(self[tensor] is not None for tensor in tensors if tensor is not image):
            return None
        if "no_training" in func._schema.name or bound.get("training", bound.get("train")) is False:
            return [found] + [None] * (len(outputs) - 1)
        return self._statistics(found, [dim for dim in range(image.ndim) if dim != 1], outputs)

    def _layer_norm(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func
        found = self[tensors[0]]
        if found is None:
            return None
        ndim = tensors[0].ndim
        return self._statistics(found, range(ndim - len(bound["normalized_shape"]), ndim), outputs)

    def _group_norm(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        del func, bound
        found = self[tensors[0]]
        return None if found is None else self._statistics(found, range(1, tensors[0].ndim), outputs)

    def _product(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        """A matrix product: each output has read a row of the first factor and a column of the second."""
        name = _base_name(func)
        keys = {"addmm": ("mat1", "mat2"), "_addmm_activation": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2")}
        keys |= {"linear": ("input", "weight"), "mv": ("self", "vec"), "addmv": ("mat", "vec")}
        keys |= {"dot": ("self", "tensor"), "matmul": ("self", "other")}
        first, second = (bound[key] for key in keys.get(name, ("self", "mat2")))
        left, right = self[first], self[second]
        (output,) = outputs
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
        parts += self._operands(t for t in tensors if t is not first and t is not second)
        return [pointwise(parts, output.ndim)]

    def _attention(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        """softmax(q k) v: each query has read all keys and values of its batch and head."""
        del func
        query, key, value = bound["query"], bound["key"], bound["value"]
        if query.ndim != 4 or any(t.ndim != 4 for t in (key, value)) or query.shape[1] != key.shape[1]:
            return None
        parts = [
            (found.each(lambda axis, dims=dims: axis.with_ids(axis.sets.unite_along(axis.ids, dims)).mixed()), (1,) * 4)  # type: ignore[misc]
            for tensor, dims in ((query, [3]), (key, [2, 3]), (value, [2]))
            if (found := self[tensor]) is not None
        ]
        others = [t for t in tensors if all(t is not known for known in (query, key, value))]
        if any(self[t] is not None for t in others):
            return None
        whole = pointwise(parts, 4)
        rest = [whole.each(lambda axis, n=out.ndim: axis.anywhere(n)) for out in outputs[1:]]  # type: ignore[misc]
        return [whole, *rest]

    def _fused_attention(
        self, func: Any, bound: Bound, tensors: list[Tensor], outputs: list[Tensor]
    ) -> list[Provenance | None] | None:
        """Self-attention in one operator, tokens along dim 1."""
        del bound
        found = self[tensors[0]]
        if found is None:
            return None
        if _base_name(func) == "_transformer_encoder_layer_fwd":
            return [found.each(lambda axis: axis.normalised([1]).united([2]))] * len(outputs)
        parts = [
            (each.each(lambda axis: axis.with_ids(axis.sets.unite_along(axis.ids, [1, 2])).mixed()), (1, 1, 1))
            for each, _ in self._operands(tensors)
        ]
        parts.append((found.each(lambda axis: axis.united([2]).mixed()), (1, 1, 1)))
        whole = pointwise(parts, 3)
        rest = [whole.each(lambda axis, n=out.ndim: axis.anywhere(n)) for out in outputs[1:]]  # type: ignore[misc]
        return [whole, *rest]


def _on_meta(func: Any, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keyword that puts a factory's result on the meta device, where it has one and it was not given."""
    takes_device = any(argument.name == "device" for argument in func._schema.arguments)
    is_factory = takes_device and not any("Tensor" in str(argument.type) for argument in func._schema.arguments)
    return {"device": torch.device("meta")} if is_factory and "device" not in (kwargs or {}) else {}
