"""From what the units of a map have read to the receptive field that says so: sizes, status, note."""

from __future__ import annotations

from collections.abc import Sequence

from erfattr.receptive_field._lines import Line, Unit, extent, has_holes
from erfattr.receptive_field.field import Number, ReceptiveField
from erfattr.receptive_field.layout import Layout


def described(
    name: str,
    size: tuple[int, int],
    output_size: tuple[int, int],
    stride: tuple[Number, Number],
    lines: tuple[Line, Line],
    kinds: tuple[str, str],
    *,
    method: str,
    unknown: tuple[str, ...],
    notes: Sequence[str],
    layout: Layout | None = None,
) -> ReceptiveField:
    """Return the field of a map whose units have read ``lines``, with ``kinds`` of status along the axes."""
    unit = (output_size[0] // 2, output_size[1] // 2)
    rows, columns = lines
    status, why = _status(kinds, unit, understood=not unknown or method != "operators")
    boxes = [line.bounds(unit) for line in lines]
    own = [line.local(unit) for line in lines]
    return ReceptiveField(
        layer=name,
        input_size=size,
        output_size=output_size,
        size=(_length(boxes[0]), _length(boxes[1])),
        local_size=(_length(own[0]), _length(own[1])),
        stride=stride,
        status=status,
        method=method,
        unknown_operators=unknown,
        note="; ".join([*notes, *why, *_gaps("rows", rows, unit), *_gaps("columns", columns, unit)]),
        _rows=rows,
        _columns=columns,
        _layout=layout,
    )


def _length(interval: tuple[int, int]) -> int:
    return interval[1] - interval[0] + 1


def _status(kinds: tuple[str, str], unit: Unit, *, understood: bool) -> tuple[str, list[str]]:
    """The worse of the two axes' statuses, and what there is to say about it."""
    if not understood:
        return "upper bound", ["operators that are not understood were taken to read everything before them"]
    ranked = ("position-dependent", "whole image", "upper bound", "exact")
    status = next(kind for kind in ranked if kind in kinds)
    if status == "whole image" and kinds[0] != kinds[1]:
        return status, [f"whole image along {'rows' if kinds[0] == status else 'columns'} only"]
    if status == "position-dependent":
        return status, [f"units see different windows, not one that moves; size is that of unit {unit}"]
    return status, []


def _gaps(axis: str, line: Line, unit: Unit) -> list[str]:
    """What the centre unit leaves out of its box, and all units of the image."""
    notes = []
    real = line.entry(unit).real
    if has_holes(real):
        notes.append(
            f"the centre unit touches {real.bit_count()} of {_length(extent(real))} {axis} in its box"
        )
    every = 0
    for entry in line.distinct():
        every |= entry.real
    unseen = line.length - every.bit_count()
    if unseen:
        notes.append(f"{unseen} of {line.length} {axis} of the image are read by no unit")
    return notes
