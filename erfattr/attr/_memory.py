"""What was traced of a model, remembered with the model: its weights may change, its structure may not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

_T = TypeVar("_T")

# Traces kept of one model: a few layers at a few image sizes.
_KEPT = 32
_PLAIN = (bool, int, float, str, type(None))
_PLAIN_TYPES = frozenset(_PLAIN)
# What a run may change of a module without changing what it computes in evaluation mode.
_NOT_STRUCTURE = {"training"}

_memory: WeakKeyDictionary[nn.Module, tuple[Hashable, dict[Hashable, Any]]] = WeakKeyDictionary()
_lock = Lock()


def remembered(model: nn.Module, key: Hashable, find: Callable[[], _T]) -> _T:
    """Return what ``find()`` gave for this model, structure and key before, or call it.

    Args:
        model: What it is found of; it is not kept alive.
        key: What else it depends on: layers, size of the image.
        find: Finds it, from the structure of the model and not from its weights.
    """
    now = structure(model)
    with _lock:
        before, found = _memory.get(model, (None, {}))
        if before == now and key in found:
            value: _T = found[key]
            return value
    value = find()
    with _lock:
        before, found = _memory.get(model, (None, {}))
        # Of a changed model nothing that was found before counts any more.
        kept = dict(found) if before == now else {}
        while len(kept) >= _KEPT:
            del kept[next(iter(kept))]
        _memory[model] = (now, {**kept, key: value})
    return value


def structure(model: nn.Module) -> Hashable:
    """Return what tells a model from one of another structure: modules, hooks, attributes, shapes.

    Numbers and texts count by value, also inside of containers and settings objects, tensors by shape and
    dtype, functions by identity. Values of weights do not count.
    """
    seen: set[int] = set()
    return tuple(
        (name, id(module), type(module), _described(vars(module), seen))
        for name, module in model.named_modules(remove_duplicate=False)
    )


def _described(value: Any, seen: set[int]) -> Hashable:
    # Some 17,000 values of a ResNet-50 come through here: first what most of them are.
    kind = type(value)
    if kind in _PLAIN_TYPES or isinstance(value, _PLAIN):
        # 1, 1.0 and True are equal, but not the same setting.
        return kind.__name__, value
    if kind in (dict, OrderedDict) and not value:
        return ()
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, (tuple, list, set, frozenset)):
        return type(value).__name__, tuple(_described(item, seen) for item in value)
    if isinstance(value, dict):
        return tuple(
            (key if type(key) is str else _described(key, seen), _described(item, seen))
            for key, item in value.items()
            if key not in _NOT_STRUCTURE
        )
    # Modules are listed by themselves; an object that was met before, or meets itself, is not opened again.
    if isinstance(value, nn.Module) or callable(value) or id(value) in seen:
        return id(value)
    seen.add(id(value))
    return id(value), _described(getattr(value, "__dict__", {}), seen)
