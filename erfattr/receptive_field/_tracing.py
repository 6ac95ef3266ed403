"""Follow provenance through a forward pass: a dispatch mode over tensors without data.

The model runs once on the meta device, where operators compute shapes only; weights are replaced by meta
tensors as they come. Beside each tensor that depends on the input goes its provenance; what an operator does
to it is in `erfattr.receptive_field._operators`. Writing in place changes all tensors that share the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._operators.registry import Call, Results, base_name, not_understood, results
from erfattr.receptive_field._provenance import Provenance, pointwise

SMALL = 1 << 16
"""Constants up to this many elements are computed for real: they may serve as an index later."""

_OVERWRITE = {
    "fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential", "geometric",
    "log_normal", "cauchy",
}  # fmt: skip


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor) and not value.is_meta:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    return value


def _bind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    bound = {argument.name: argument.default_value for argument in func._schema.arguments}
    bound.update(zip(bound, args, strict=False))
    bound.update(kwargs)
    return bound


class Tracing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run operators on meta tensors and carry provenance beside them; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: MutableMapping[Tensor, Provenance] = WeakTensorKeyDictionary()
        self._families: dict[int, list[TensorWeakRef]] = {}
        self._own: dict[int, Tensor] = {}
        self.last = ""
        """The operator that ran last, to name it where the pass breaks."""

    def __getitem__(self, tensor: Tensor) -> Provenance | None:
        return self._known.get(tensor)

    def __setitem__(self, tensor: Tensor, provenance: Provenance) -> None:
        self._known[tensor] = provenance

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
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
        call = Call(func, base_name(func), bound, tensors, outputs, self.__getitem__)
        found = self._propagate(call, written)
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
        """Execute the operator: for real on small constants and views of them, on meta tensors otherwise."""
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
                given = {_storage(tensor) for tensor in tensors}
                for leaf in tree_leaves(result):
                    if isinstance(leaf, Tensor) and _storage(leaf) not in given:
                        self._own[_storage(leaf)] = leaf
                return result
        if func is torch.ops.aten.native_batch_norm.default and args[5] is False and tensors[0].is_meta:
            # By far the slowest shape to compute: PyTorch does it through a chain of Python operators.
            return torch.empty_like(tensors[0]), *(torch.empty(0, device="meta") for _ in range(2))
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
                where.copy_(
                    torch.from_numpy(np.array(getattr(found, name).ids)) if found else torch.zeros(())
                )
            ids = flat.as_strided(other.shape, other.stride(), other.storage_offset()).numpy()
            old = before[id(other)]
            reference: Axis = getattr(old or some, name)
            return reference.replaced(ids, other.shape, reference.dim)

        unknown = tuple(
            dict.fromkeys(name for p in [*before.values(), provenance] if p for name in p.unknown)
        )
        for other in others:
            self._known[other] = Provenance(axis("rows", other), axis("columns", other), unknown)

    def _set(self, tensor: Tensor, provenance: Provenance | None) -> None:
        if provenance is None:
            self._known.pop(tensor, None)
        else:
            self._known[tensor] = provenance

    def _propagate(self, call: Call, written: list[Tensor]) -> Results:
        if not written:
            return results(call)
        if len(written) > 1 or call.name in ("set", "resize"):
            return not_understood(call)
        if call.name in _OVERWRITE:
            return [None]
        if call.name == "copy":
            source = self[call.bound["src"]]
            return [source and pointwise([(source, call.bound["src"].shape)], written[0].ndim)]
        if "out" in call.bound:
            call = replace(call, tensors=[tensor for tensor in call.tensors if tensor is not written[0]])
        return results(call)


def _on_meta(func: Any, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keyword that puts a factory's result on the meta device, where it has one and it was not given."""
    takes_device = any(argument.name == "device" for argument in func._schema.arguments)
    is_factory = takes_device and not any(
        "Tensor" in str(argument.type) for argument in func._schema.arguments
    )
    return {"device": torch.device("meta")} if is_factory and "device" not in (kwargs or {}) else {}
