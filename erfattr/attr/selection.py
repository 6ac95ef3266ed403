"""Which tensor of an output that holds several is meant: ``select=``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from erfattr._checks import describe

Select = int | str | Callable[[Any], Tensor] | None

# What networks call the one output that they are made for (torchvision's segmentation, Hugging Face).
_OBVIOUS = ("out", "logits")


def check_select(select: Any) -> None:
    """Raise ``TypeError`` unless ``select`` is one of the kinds of ``Select``."""
    if not (select is None or type(select) in (int, str) or callable(select)):
        raise TypeError(f"select: expected an index, a key, a callable or None, got {describe(select)}")


def named_select(select: Select) -> int | str | None:
    """Return what a saved state must agree on: the index or key, of a callable that there was one."""
    return "a callable" if callable(select) else select


def selected(what: str, output: Any, select: Select) -> tuple[Tensor, str]:
    """Return the tensor that ``select`` takes of an output, and in words which that was.

    Args:
        what: What gave the output, for errors.
        output: A tensor, or a tuple, list, dict or dataclass of several.
        select: Index, key or attribute, or a callable; ``None``: the only tensor, or the one under ``"out"``
            or ``"logits"``.

    Returns:
        The tensor, and ``""`` where there was nothing to choose.

    Raises:
        ValueError: there is no such part, or several and none that is obvious; the parts are listed.
    """
    if callable(select):
        found = select(output)
        if not isinstance(found, Tensor):
            raise ValueError(
                f"select: expected the callable to return a tensor of {what}, got {describe(found)}"
            )
        return found, ""
    if isinstance(output, Tensor):
        if select is not None:
            raise ValueError(f"select: {what} gives {describe(output)}, of which there is nothing to select")
        return output, ""
    parts = parts_of(output)
    if select is not None:
        if isinstance(parts.get(select), Tensor):
            return parts[select], f"output[{select!r}]"
        raise ValueError(f"select: expected a tensor of {what}, which gives {listed(output)}, got {select!r}")
    tensors = [key for key, value in parts.items() if isinstance(value, Tensor)]
    obvious = tensors if len(tensors) == 1 else [key for key in _OBVIOUS if key in tensors]
    if not obvious:
        raise ValueError(
            f"select: expected the key or index of one tensor, or a callable that returns it, since {what} "
            f"gives {listed(output)}"
        )
    return parts[obvious[0]], f"output[{obvious[0]!r}]"


def only_obvious(output: Any) -> Tensor | None:
    """Return the tensor that ``select=None`` takes; ``None`` if none is obvious."""
    if isinstance(output, Tensor):
        return output
    parts = parts_of(output)
    if not any(isinstance(value, Tensor) for value in parts.values()):
        return None
    try:
        return selected("", output, None)[0]
    except ValueError:
        return None


def parts_of(output: Any) -> dict[int | str, Any]:
    """Return the parts of an output by key, index or attribute; none for anything else."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple) and hasattr(output, "_fields"):  # a named tuple has both
        return {**dict(zip(output._fields, output, strict=True))}
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return {}


def listed(output: Any) -> str:
    """Return what an output holds, short enough for an error message."""
    parts = parts_of(output)
    if not parts:
        return describe(output)
    words = [
        f"{key!r}: {tuple(value.shape)}" if isinstance(value, Tensor) else f"{key!r}: {type(value).__name__}"
        for key, value in list(parts.items())[:8]
    ]
    more = ", ..." if len(parts) > 8 else ""
    return f"a {type(output).__name__} of {', '.join(words)}{more}"
