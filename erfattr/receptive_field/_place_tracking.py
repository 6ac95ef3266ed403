"""Follow places through a forward pass: beside each tensor that has some go the places of its elements."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from typing_extensions import override

from erfattr.receptive_field._dispatch import Watching
from erfattr.receptive_field._place_rules import Placing, is_attention, places_after
from erfattr.receptive_field._places import Line, Places, Vector, nowhere, resampled
from erfattr.receptive_field._signatures import signature_of, tensors_in


class PlaceTracker:
    """Knows the places of tensors, and what operators do to them.

    Args:
        attention: Called with nothing where two tensors that depend on the image are multiplied.
    """

    def __init__(self, attention: Callable[[], None] | None = None) -> None:
        # By the tensor's id, which another tensor may get later: the reference tells.
        self._known: dict[int, tuple[weakref.ref[Tensor], Places]] = {}
        self._attention = attention
        self.failures: list[str] = []
        """Rules that did not fit a call of their operator, and what they said; its places are lost."""

    def __getitem__(self, tensor: Any) -> Places | None:
        found = self._known.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def __setitem__(self, tensor: Tensor, places: Places | None) -> None:
        if places is None:
            self._known.pop(id(tensor), None)
        else:
            self._known[id(tensor)] = weakref.ref(tensor), places

    def after(
        self,
        func: Any,
        name: str,
        bound: Mapping[str, Any],
        tensors: Sequence[Tensor],
        outputs: Sequence[Tensor],
        written: Sequence[Tensor],
    ) -> None:
        """Note what an operator that has run gave, or wrote to."""
        if all(self[tensor] is None for tensor in tensors):
            return
        if written:
            if len(written) > 1 or name in ("set", "resize"):
                for tensor in written:
                    self[tensor] = nowhere(tensor.ndim)
                return
            if "out" in bound:
                tensors = [tensor for tensor in tensors if tensor is not written[0]]
        call = Placing(func, name, bound, tensors, written or outputs, self.__getitem__)
        if self._attention is not None and is_attention(call):
            self._attention()
        try:
            found = places_after(call)
        except Exception as error:  # another form of the operator than the rule knows: nothing is proven then
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
            # What is written to keeps the places that it had.
            found = [None] * len(written) if written else call.lost()
        for tensor, places in zip(call.outputs, found, strict=True):
            # What is written into a map lies in that map, whatever it is.
            if places is not None or not written:
                self[tensor] = places
            if places is not None and places.known and written:
                self._write_through(tensor, places)

    def _write_through(self, part: Tensor, places: Places) -> None:
        """Of a tensor without places that a piece is written to, find the places that it must have."""
        whole = part._base
        if whole is None or whole is part or ((had := self[whole]) is not None and had.known):
            return
        offset = int(part.storage_offset() - whole.storage_offset())
        # By stride, the largest first: the dims of the whole, and where along each the part begins.
        starts: list[tuple[int, int, int]] = []
        strides = [int(stride) for stride in whole.stride()]
        for stride, dim in sorted(((s, d) for d, s in enumerate(strides)), reverse=True):
            if whole.shape[dim] > 1 and stride:
                start, offset = divmod(offset, stride)
                starts.append((stride, dim, start))

        def grown(line: Line) -> Line:
            vectors: list[Vector | None] = [None] * whole.ndim
            for dim, vector in enumerate(line):
                along = int(part.stride()[dim])
                fits = ((s, d, start) for s, d, start in starts if s <= along and along % s == 0)
                stride, where, start = next(fits, (0, 0, 0))
                if vector is not None and stride and part.shape[dim] > 1:
                    every = along // stride
                    vectors[where] = resampled(vector, -start / every, 1 / every, whole.shape[where])
                elif part.ndim == whole.ndim and part.shape[dim] == whole.shape[dim] == 1:
                    vectors[dim] = vector  # the only image, say
            return tuple(vectors)

        self[whole] = places.each(grown)


class PlaceTracking(Watching):
    """Follow places through a pass with data, which runs as it would without."""

    def __init__(self, tracker: PlaceTracker) -> None:
        super().__init__()
        self._tracker = tracker

    @override
    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if isinstance(func, OpOverload):
            tensors = list(tensors_in((*args, *kwargs.values())))
            if any(self._tracker[tensor] is not None for tensor in tensors):
                signature = signature_of(func)
                written = signature.written(args, kwargs)
                outputs = list(tensors_in((result,)))
                bound = signature.bind(args, kwargs)
                self._tracker.after(func, signature.name, bound, tensors, outputs, written)
        return result
