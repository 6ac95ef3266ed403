"""The rules by the names of their operators, and what happens to an operator that has none."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from erfattr.receptive_field._places import Places, joined, nowhere
from erfattr.receptive_field._rules import OperatorCall, Rules

Found = list["Places | None"]
"""The places of every output of a call; ``None`` for an output that does not depend on the image."""


class PlacelessError(Exception):
    """The tensor that a rule is about does not depend on the image."""


class Placing(OperatorCall[Places]):
    """One call of an operator, of whose tensors the places are known."""

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

    def all(self, found: Places) -> Found:
        """Give every output of the first one's shape the same places."""
        shape = self.outputs[0].shape
        return [found if output.shape == shape else nowhere(output.ndim) for output in self.outputs]

    def lost(self) -> Found:
        """Give the outputs no places."""
        return [nowhere(output.ndim) for output in self.outputs]


PlaceRule = Callable[[Placing], Found]
place_rule: Rules[PlaceRule] = Rules("aten", "prims", "torchvision")


def places_after(call: Placing) -> Found:
    """Return the places of every output of a call, without vectors where they are not known.

    ``None`` stands for an output that does not depend on the image, and for one that is written to and keeps
    the places that it had.
    """
    function = place_rule.of(call.func, elements)
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
