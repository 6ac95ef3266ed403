"""The rules by the names of their operators, and what happens to an operator that has none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from erfattr.receptive_field._operators.registry import is_pointwise
from erfattr.receptive_field._places import Places, joined, nowhere

Found = list["Places | None"]
"""The places of every output of a call; ``None`` for an output that does not depend on the image."""


class PlacelessError(Exception):
    """The tensor that a rule is about does not depend on the image."""


@dataclass(frozen=True)
class Placing:
    """One call of an operator.

    Attributes:
        func: The operator.
        name: Its name without namespace, overload and the underscore of the in-place form.
        bound: Its arguments by name, defaults filled in.
        tensors: The tensors among them, in order.
        outputs: The tensors that it gives, or writes to.
        known: Gives the places of a tensor, ``None`` if it does not depend on the image.
    """

    func: Any
    name: str
    bound: Mapping[str, Any]
    tensors: Sequence[Tensor]
    outputs: Sequence[Tensor]
    known: Callable[[Any], Places | None]

    @property
    def first(self) -> Places:
        """The places of the first tensor."""
        return self.places(self.tensors[0])

    def places(self, tensor: Tensor) -> Places:
        """Return the places of a tensor; without any, nothing is known of the outputs."""
        found = self.known(tensor)
        if found is None:
            raise PlacelessError
        return found

    def operands(self, tensors: Iterable[Tensor]) -> list[tuple[Places, Sequence[int]]]:
        """Places and shape of those of ``tensors`` that depend on the image."""
        return [(found, tensor.shape) for tensor in tensors if (found := self.known(tensor)) is not None]

    def all(self, found: Places) -> Found:
        """Give every output of the first one's shape the same places."""
        shape = self.outputs[0].shape
        return [found if output.shape == shape else nowhere(output.ndim) for output in self.outputs]

    def lost(self) -> Found:
        """Give the outputs no places."""
        return [nowhere(output.ndim) for output in self.outputs]


PlaceRule = Callable[[Placing], Found]
_BY_NAME: dict[str, PlaceRule] = {}
_BY_PATTERN: list[tuple[re.Pattern[str], PlaceRule]] = []


def place_rule(*names: str, pattern: str | None = None) -> Callable[[PlaceRule], PlaceRule]:
    """Register a rule for operators: by their names, or by a pattern that fits the whole name.

    A name goes before a pattern, and a rule before the default, which is to join the operands element by
    element where PyTorch says that the operator works so.
    """

    def register(function: PlaceRule) -> PlaceRule:
        taken = [name for name in names if name in _BY_NAME]
        if taken:
            raise ValueError(f"names: there is a rule for {', '.join(taken)} already")
        _BY_NAME.update(dict.fromkeys(names, function))
        if pattern is not None:
            _BY_PATTERN.append((re.compile(pattern), function))
        return function

    return register


@cache
def place_rule_of(func: Any, name: str) -> PlaceRule | None:
    """Return the rule for an operator, ``None`` if it is not understood."""
    # Elsewhere a name may mean anything.
    if not func._schema.name.startswith(("aten::", "prims::", "torchvision::")):
        return None
    if name in _BY_NAME:
        return _BY_NAME[name]
    fitting = (function for pattern, function in _BY_PATTERN if pattern.fullmatch(name))
    return next(fitting, elements if is_pointwise(func) else None)


def places_after(call: Placing) -> Found:
    """Return the places of every output of a call, without vectors where they are not known.

    ``None`` stands for an output that does not depend on the image, and for one that is written to and keeps
    the places that it had.
    """
    function = place_rule_of(call.func, call.name)
    try:
        found = function(call) if function is not None else call.lost()
    except PlacelessError:
        found = call.lost()
    for places, output in zip(found, call.outputs, strict=True):
        if places is not None and not places.fit(output.shape):
            raise ValueError(f"the places found do not fit an output of shape {tuple(output.shape)}")
    written = [any(output is value for value in call.bound.values()) for output in call.outputs]
    return [
        None if places is None or (kept and not places.known) else places
        for places, kept in zip(found, written, strict=True)
    ]


def elements(call: Placing) -> Found:
    """Element by element, operands broadcast."""
    operands = call.operands(call.tensors)
    return [joined(operands, output.shape) for output in call.outputs]
