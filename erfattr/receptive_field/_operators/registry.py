"""The rules by the names of their operators, and what happens to an operator that has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from erfattr.receptive_field._provenance import Provenance, pointwise
from erfattr.receptive_field._rules import OperatorCall, Rules

Results = list[Provenance | None]
"""One provenance for each output; ``None`` for an output that does not depend on the image."""


class Call(OperatorCall[Provenance]):
    """One call of an operator; ``call[tensor]`` is the provenance of one of its tensors."""

    def __getitem__(self, tensor: Tensor) -> Provenance | None:
        return self.known(tensor)


Rule = Callable[[Call], "Results | None"]
"""Gives the provenance of every output of a call; ``None`` if the rule does not cover this call."""

rule: Rules[Rule] = Rules("aten", "prims")


def results(call: Call) -> Results:
    """Return the provenance of every output of ``call``."""
    function = rule.of(call.func, unite_elements)
    found = function(call) if function is not None else None
    return not_understood(call) if found is None else found


def unite_elements(call: Call) -> Results | None:
    """Every element has read what the elements at its place have read, broadcast as PyTorch does it."""
    return [pointwise(call.operands(call.tensors), output.ndim) for output in call.outputs]


def not_understood(call: Call) -> Results:
    """Take every output to depend on all that any operand has read, and say so."""
    operands = call.operands(call.tensors)
    merged = pointwise([(found.each(lambda axis: axis.anywhere(1)), (1,)) for found, _ in operands], 1)
    names = tuple(dict.fromkeys([*merged.unknown, str(call.func._schema.name)]))
    results: Results = []
    for output in call.outputs:
        rows, columns = (axis.anywhere(output.ndim) for axis in (merged.rows, merged.columns))
        # An output shaped as an operand probably has its rows and columns where that has them.
        like = next((found for found, shape in operands if shape == output.shape), None)
        if like is not None:
            rows, columns = replace(rows, dim=like.rows.dim), replace(columns, dim=like.columns.dim)
        results.append(Provenance(rows, columns, names))
    return results


def anywhere(found: Provenance, output: Tensor) -> Provenance:
    """Return what all elements together have read, for ``output``."""
    return found.each(lambda axis: axis.anywhere(output.ndim))
