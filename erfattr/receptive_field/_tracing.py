"""Follow provenance through a forward pass: a dispatch mode over tensors without data.

The model runs once on the meta device, where operators compute shapes only; weights are replaced by meta
tensors as they come. Beside each tensor that depends on the input goes its provenance; what an operator does
to it is in `erfattr.receptive_field._operators`. Writing in place changes all tensors that share the memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import TensorWeakRef
from typing_extensions import override

from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._dispatch import Watching
from erfattr.receptive_field._operators.registry import (
    Call,
    Results,
    anywhere,
    not_understood,
    results,
)
from erfattr.receptive_field._place_tracking import PlaceTracker
from erfattr.receptive_field._places import main_dim, nowhere
from erfattr.receptive_field._provenance import Provenance, pointwise
from erfattr.receptive_field._rules import is_pointwise
from erfattr.receptive_field._signatures import (
    Signature,
    run_without_data,
    signature_of,
    storage_of,
    tensors_in,
    to_meta,
)

SMALL = 1 << 16
"""Constants up to this many elements are computed for real: they may serve as an index later."""

_OVERWRITE = {
    "fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential", "geometric",
    "log_normal", "cauchy",
}  # fmt: skip


class Tracing(Watching):
    """Run operators on meta tensors and carry provenance beside them; see the module's docstring.

    Args:
        watch: Called with each operator's name, arguments by name and tensors, before it runs.
        places: Follows where elements lie, beside what they have read.
    """

    def __init__(
        self,
        watch: Callable[[str, Mapping[str, Any], Sequence[Tensor]], None] | None = None,
        places: PlaceTracker | None = None,
    ) -> None:
        super().__init__()
        # By the tensor's id, which another tensor may get later: the reference tells.
        self._known: dict[int, tuple[weakref.ref[Tensor], Provenance]] = {}
        self._families: dict[int, list[TensorWeakRef]] = {}
        self._own: dict[int, Tensor] = {}
        self._watch = watch
        self._places = places
        self._last: Any = None

    def follow_recurrent(self, model: nn.Module) -> None:
        """Let the recurrent layers of a model be one operator each, not one for every step and gate.

        What this puts into the modules is for the caller to undo (`attributes_kept`).
        """
        for module in model.modules():
            if isinstance(module, nn.RNNBase):
                module.forward = partial(self._recurrent, module, module.forward)

    def _recurrent(self, module: nn.RNNBase, plain: Callable[..., Any], given: Any, state: Any = None) -> Any:
        """Each step has read all before it, of a layer in both directions all steps."""
        found = self[given] if isinstance(given, Tensor) and given.is_meta else None
        if found is None or given.ndim != 3:
            return plain(given, state)
        ways = 2 if module.bidirectional else 1
        width = module.proj_size or module.hidden_size
        steps = 1 if module.batch_first else 0
        output = torch.empty(*given.shape[:2], ways * width, dtype=given.dtype, device="meta")
        states = [
            torch.empty(ways * module.num_layers, given.shape[1 - steps], n, dtype=given.dtype, device="meta")
            for n in (width, module.hidden_size)
        ]

        def read(axis: Axis) -> Axis:
            axis = axis.united([2])
            return axis.normalised([steps]) if ways == 2 else axis.cumulated(steps)

        self[output] = found.each(read)
        for last in states:
            self[last] = anywhere(found, last)
        if self._places is not None:
            for tensor in (output, *states):
                self._places[tensor] = nowhere(tensor.ndim)
        return output, tuple(states) if module.mode == "LSTM" else states[0]

    @property
    def last(self) -> str:
        """The operator that ran last, to name it where the pass breaks."""
        return "" if self._last is None else str(self._last)

    def __getitem__(self, tensor: Tensor) -> Provenance | None:
        found = self._known.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def __setitem__(self, tensor: Tensor, provenance: Provenance) -> None:
        self._known[id(tensor)] = weakref.ref(tensor), provenance

    @override
    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._last = func
        signature = signature_of(func)
        tensors = list(tensors_in((*args, *kwargs.values())))
        written = signature.written(args, kwargs)
        tracked = any(self[tensor] is not None for tensor in tensors)
        bound = signature.bind(args, kwargs)
        if self._watch is not None:
            self._watch(signature.name, bound, tensors)
        result = self._run(signature, args, kwargs, tensors, written, tracked)
        if signature.is_view and tensors:
            self._relate([tensors[0], *tensors_in((result,))])
        if not tracked:
            return result
        outputs = written or list(tensors_in((result,)))
        if self._places is not None:
            self._places.after(func, signature.name, bound, tensors, outputs, written)
        call = Call(func, signature.name, bound, tensors, outputs, self.__getitem__)
        found = self._propagate(call, written)
        for output, provenance in zip(outputs, found, strict=True):
            provenance = self._placed(output, provenance)
            if written:
                self._write(output, provenance)
            elif provenance is not None:
                self[output] = provenance
        return result

    def _placed(self, output: Tensor, found: Provenance | None) -> Provenance | None:
        """Let rows and columns run along the dims that their places run along, where those are known."""
        places = None if self._places is None else self._places[output]
        if found is None or places is None:
            return found
        axes = []
        for axis, line, other in (
            (found.rows, places.rows, places.columns),
            (found.columns, places.columns, places.rows),
        ):
            main = main_dim(line, other)
            axes.append(
                axis if main is None or main[0] == axis.dim else replace(axis, dim=main[0], jump=main[1])
            )
        same = axes[0] is found.rows and axes[1] is found.columns
        return found if same else replace(found, rows=axes[0], columns=axes[1])

    def _run(
        self,
        signature: Signature,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        written: list[Tensor],
        tracked: bool,
    ) -> Any:
        """Execute the operator: for real on small constants and views of them, on meta tensors otherwise."""
        func = signature.func
        real = not any(tensor.is_meta for tensor in tensors)
        if real and tensors and signature.is_view:
            return func(*args, **kwargs)
        if real and all(storage_of(tensor) in self._own for tensor in written):
            if not tensors:
                shape = func(*tree_map(to_meta, args), **signature.meta_options(kwargs))
                small = all(leaf.numel() <= SMALL for leaf in tree_leaves(shape) if isinstance(leaf, Tensor))
            else:
                small = sum(tensor.numel() for tensor in tensors) <= SMALL
            if small and not tracked:
                if not tensors and "device" in kwargs:
                    kwargs = {**kwargs, "device": torch.device("cpu")}
                result = func(*args, **kwargs)
                given = {storage_of(tensor) for tensor in tensors}
                for leaf in tree_leaves(result):
                    if isinstance(leaf, Tensor) and storage_of(leaf) not in given:
                        self._own[storage_of(leaf)] = leaf
                return result
        if written and len(tensors) == 1 and is_pointwise(func):
            return written[0]  # in place, element by element: there is no shape to compute
        result = run_without_data(signature, args, kwargs)
        if written:
            return written[0] if isinstance(result, Tensor) else type(result)(written)
        return result

    def _relate(self, tensors: list[Tensor]) -> None:
        """Remember tensors that share memory: writing to one changes the others."""
        family = self._families.setdefault(storage_of(tensors[0]), [])
        alive = {id(ref()) for ref in family}
        family.extend(TensorWeakRef(tensor) for tensor in tensors if id(tensor) not in alive)

    def _write(self, target: Tensor, provenance: Provenance | None) -> None:
        """Give ``target`` a new provenance, and its share of it to every tensor with the same memory."""
        if provenance is not None and provenance is self[target]:
            return
        place = storage_of(target)
        family = [ref() for ref in self._families.get(place, [])]
        others = [
            tensor
            for tensor in family
            if isinstance(tensor, Tensor) and tensor is not target and storage_of(tensor) == place
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
            self[other] = Provenance(axis("rows", other), axis("columns", other), unknown)

    def _set(self, tensor: Tensor, provenance: Provenance | None) -> None:
        if provenance is None:
            self._known.pop(id(tensor), None)
        else:
            self[tensor] = provenance

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
