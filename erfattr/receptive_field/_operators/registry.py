"""The rules by the names of their operators, and what happens to an operator that has none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from erfattr.receptive_field._provenance import Provenance, pointwise

Results = list[Provenance | None]
"""One provenance for each output; ``None`` for an output that does not depend on the image."""


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


Rule = Callable[[Call], Results | None]
"""Gives the provenance of every output of a call; ``None`` if the rule does not cover this call."""

_BY_NAME: dict[str, Rule] = {}
_BY_PATTERN: list[tuple[re.Pattern[str], Rule]] = []


def rule(*names: str, pattern: str | None = None) -> Callable[[Rule], Rule]:
    """Register a rule for operators of PyTorch: by their names, or by a pattern that fits the whole name.

    Names are those of `base_name`. A name goes before a pattern, and a rule before the default, which is to
    unite the operands element by element where PyTorch says that the operator works so.
    """

    def register(function: Rule) -> Rule:
        taken = [name for name in names if name in _BY_NAME]
        if taken:
            raise ValueError(f"names: there is a rule for {', '.join(taken)} already")
        _BY_NAME.update(dict.fromkeys(names, function))
        if pattern is not None:
            _BY_PATTERN.append((re.compile(pattern), function))
        return function

    return register


def base_name(func: Any) -> str:
    """Return the operator's name without namespace, overload and the underscore of the in-place form."""
    name: str = func._schema.name.split("::")[-1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


@cache
def is_pointwise(func: Any) -> bool:
    """Whether PyTorch tags the operator, or its functional form, as working element by element."""
    if torch.Tag.pointwise in func.tags:
        return True
    functional = getattr(torch.ops.aten, base_name(func), None)
    if functional is None or not func._schema.name.startswith("aten::"):
        return False
    return any(torch.Tag.pointwise in getattr(functional, name).tags for name in functional.overloads())


@cache
def rule_of(func: Any) -> Rule | None:
    """Return the rule for an operator, ``None`` if it is not understood."""
    # Elsewhere a name may mean anything.
    if not func._schema.name.startswith(("aten::", "prims::")):
        return None
    name = base_name(func)
    if name in _BY_NAME:
        return _BY_NAME[name]
    fitting = (function for pattern, function in _BY_PATTERN if pattern.fullmatch(name))
    return next(fitting, unite_elements if is_pointwise(func) else None)


def results(call: Call) -> Results:
    """Return the provenance of every output of ``call``."""
    function = rule_of(call.func)
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


def dims_of(value: Any, ndim: int) -> list[int]:
    """Normalise a ``dim`` argument; none given means all."""
    if value is None or value == []:
        return list(range(ndim))
    return [dim % ndim for dim in (value if isinstance(value, (list, tuple)) else [value])]


def anywhere(found: Provenance, output: Tensor) -> Provenance:
    """Return what all elements together have read, for ``output``."""
    return found.each(lambda axis: axis.anywhere(output.ndim))
