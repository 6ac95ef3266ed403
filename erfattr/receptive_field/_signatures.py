"""Operators by their schemas, read once each, and what they give for tensors without data."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from erfattr.receptive_field._rules import base_name

_META = torch.device("meta")


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among an operator's arguments or results, in order."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def storage_of(tensor: Tensor) -> int:
    """Return a number that tensors share which share their memory, for as long as one of them lives."""
    return int(tensor.untyped_storage()._cdata)


@dataclass(frozen=True)
class Signature:
    """What an operator's schema says.

    Attributes:
        func: The operator.
        name: Its `base_name`.
        defaults: Its arguments and their default values, in order.
        writes: Positions and names of the arguments that it writes to.
        is_view: Whether its outputs share memory with its operands.
        is_factory: Whether it makes a tensor of none, on a device that it is told.
    """

    func: Any
    name: str
    defaults: Mapping[str, Any]
    writes: tuple[tuple[int, str], ...]
    is_view: bool
    is_factory: bool

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, defaults filled in."""
        return {**self.defaults, **dict(zip(self.defaults, args, strict=False)), **kwargs}

    def written(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Return the tensors that a call writes to."""
        if not self.writes:
            return []
        values = [args[place] if place < len(args) else kwargs.get(name) for place, name in self.writes]
        return [value for value in values if isinstance(value, Tensor)]

    def meta_options(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's keywords for a run on the meta device."""
        options: dict[str, Any] = tree_map(to_meta, dict(kwargs))
        if self.is_factory:
            options["device"] = _META
        return options


@cache
def signature_of(func: Any) -> Signature:
    """Return the signature of an operator."""
    schema = func._schema
    takes_tensors = any("Tensor" in str(argument.type) for argument in schema.arguments)
    writes = tuple(
        (place, argument.name)
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    return Signature(
        func=func,
        name=base_name(func),
        defaults={argument.name: argument.default_value for argument in schema.arguments},
        writes=writes,
        is_view=not writes and any(result.alias_info is not None for result in schema.returns),
        is_factory=not takes_tensors and any(argument.name == "device" for argument in schema.arguments),
    )


def to_meta(value: Any) -> Any:
    """Return a tensor of the same form without data for a tensor, the meta device for a device."""
    if isinstance(value, Tensor) and not value.is_meta:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_META)
    if isinstance(value, torch.device):
        return _META
    return value


# Form of the outputs (shape, strides, dtype of each; whether they come in a tuple or a list) by operator and
# form of the arguments. PyTorch computes many of them in Python, at several times the cost of all else here.
_FORMS: dict[Hashable, tuple[type | None, tuple[tuple[Any, ...], ...]]] = {}
_MOST_FORMS = 10_000
_PLAIN = (
    *(int, float, bool, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


def run_without_data(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operator on the meta device, where only shapes are computed, or remember what it gave."""
    key: Hashable = None
    if not signature.writes and not signature.is_view and not signature.is_factory:
        try:
            form = _form((*args, *kwargs.items()))
            key = (signature.func, form, torch.get_default_dtype())
        except TypeError:  # an argument that may change the shape in ways of its own
            key = None
    if key is not None and key in _FORMS:
        container, forms = _FORMS[key]
        outputs = [
            torch.empty_strided(shape, stride, dtype=dtype, device=_META) for shape, stride, dtype in forms
        ]
        return outputs[0] if container is None else container(outputs)
    if signature.name == "native_batch_norm" and not signature.writes and args[5] is False:
        # By far the slowest shape to compute: PyTorch does it through a chain of Python operators.
        image = to_meta(args[0])
        given: tuple[Any, ...] = (image,)
        result: Any = (torch.empty_like(image), *(torch.empty(0, device=_META) for _ in range(2)))
    else:
        given = tree_map(to_meta, tuple(args))
        result = signature.func(*given, **signature.meta_options(kwargs))
    if key is not None:
        _remember(key, result, given)
    return result


def _form(value: Any) -> Hashable:
    """What of an argument the shape of the output can depend on; ``TypeError`` where that is not known."""
    if type(value) is Tensor or type(value) is nn.Parameter:
        if value.layout is not torch.strided or value.is_complex():
            raise TypeError
        return value.shape, value.stride(), value.dtype
    if type(value) is int:
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_form, value))
    if type(value) not in _PLAIN:
        raise TypeError
    # With the type, since 1, 1.0 and True are one key.
    return type(value), value


def _remember(key: Hashable, result: Any, given: Sequence[Any]) -> None:
    outputs = (result,) if isinstance(result, Tensor) else result
    if not isinstance(outputs, (tuple, list)) or not all(type(output) is Tensor for output in outputs):
        return
    # Memory shared with an operand or another output, whatever the schema says, is left to PyTorch.
    tensors = [*outputs, *tensors_in(given)]
    alone = len({storage_of(tensor) for tensor in tensors}) == len({id(tensor) for tensor in tensors})
    if not alone or any(output.storage_offset() or not output.is_meta for output in outputs):
        return
    if len(_FORMS) >= _MOST_FORMS:
        _FORMS.clear()
    container = None if isinstance(result, Tensor) else type(result)
    _FORMS[key] = container, tuple((output.shape, output.stride(), output.dtype) for output in outputs)
