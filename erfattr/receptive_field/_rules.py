"""What rules for PyTorch's operators stand on: a call of one, its name, and where the rules are found by it.

There are two kinds: what an operator's outputs have read (`erfattr.receptive_field._operators`), and where
they lie (`erfattr.receptive_field._place_rules`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Known = TypeVar("Known")
Rule = TypeVar("Rule", bound=Callable[..., Any])


@dataclass(frozen=True)
class OperatorCall(Generic[Known]):
    """One call of an operator.

    Attributes:
        func: The operator.
        name: Its name without namespace, overload and the underscore of the in-place form.
        bound: Its arguments by name, defaults filled in.
        tensors: The tensors among them, in order.
        outputs: The tensors that it gives, or writes to.
        known: Gives what is known of a tensor, ``None`` if it does not depend on the image.
    """

    func: Any
    name: str
    bound: Mapping[str, Any]
    tensors: Sequence[Tensor]
    outputs: Sequence[Tensor]
    known: Callable[[Any], Known | None]

    def operands(self, tensors: Iterable[Tensor]) -> list[tuple[Known, Sequence[int]]]:
        """What is known and the shape of those of ``tensors`` that depend on the image."""
        return [(found, tensor.shape) for tensor in tensors if (found := self.known(tensor)) is not None]


class Rules(Generic[Rule]):
    """Rules by the names of their operators; the object itself is the decorator that registers one.

    A name goes before a pattern, and both before the default.

    Args:
        namespaces: Whose operators the names are of; elsewhere a name may mean anything.
    """

    def __init__(self, *namespaces: str) -> None:
        self._prefixes = tuple(f"{namespace}::" for namespace in namespaces)
        self._by_name: dict[str, Rule] = {}
        self._by_pattern: list[tuple[re.Pattern[str], Rule]] = []
        self._found: dict[Any, Rule | None] = {}

    def __call__(self, *names: str, pattern: str | None = None) -> Callable[[Rule], Rule]:
        """Register a rule: by names as `base_name` gives them, or by a pattern that fits the whole name."""

        def register(function: Rule) -> Rule:
            taken = [name for name in names if name in self._by_name]
            if taken:
                raise ValueError(f"names: there is a rule for {', '.join(taken)} already")
            self._by_name.update(dict.fromkeys(names, function))
            if pattern is not None:
                self._by_pattern.append((re.compile(pattern), function))
            self._found.clear()
            return function

        return register

    def of(self, func: Any, elementwise: Rule) -> Rule | None:
        """Return the rule for an operator, ``None`` if there is none.

        Args:
            func: The operator.
            elementwise: The default where PyTorch says that it works element by element.
        """
        if func not in self._found:
            self._found[func] = self._look_up(func, elementwise)
        return self._found[func]

    def _look_up(self, func: Any, elementwise: Rule) -> Rule | None:
        if not func._schema.name.startswith(self._prefixes):
            return None
        name = base_name(func)
        if name in self._by_name:
            return self._by_name[name]
        fitting = (function for pattern, function in self._by_pattern if pattern.fullmatch(name))
        return next(fitting, elementwise if is_pointwise(func) else None)


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


def dims_of(value: Any, ndim: int) -> list[int]:
    """Normalise a ``dim`` argument; none given means all."""
    if value is None or value == []:
        return list(range(ndim))
    return [dim % ndim for dim in (value if isinstance(value, (list, tuple)) else [value])]


# The names of the two factors among the arguments of matrix products.
FACTORS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "_addmm_activation": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "linear": ("input", "weight"),
}
