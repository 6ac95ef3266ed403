"""How far the units of a period look beyond it, along one axis: what decides the halo."""

from __future__ import annotations

from typing import NamedTuple

from erfattr.receptive_field.field import ReceptiveField


class Margins(NamedTuple):
    """How far units look beyond the period of pixels that they stand on.

    Attributes:
        before: Pixels above or to the left of it, of the worst unit.
        after: Pixels below or to the right.
        problem: Why no number of pixels is right for all, in words; empty where these are.
    """

    before: int
    after: int
    problem: str


def margins(field: ReceptiveField, axis: int, period: int, step: int, *, mixed: bool) -> Margins:
    """Measure every unit of the line through the middle of the map.

    Args:
        field: Of the output.
        axis: 0 for rows, 1 for columns.
        period: Pixels after which the network repeats.
        step: Units for so many pixels.
        mixed: Leave out what was read through operators that mix positions.
    """
    length, count = field.input_size[axis], field.output_size[axis]
    middle = field.output_size[1 - axis] // 2
    own, inside = [], []
    for index in range(count):
        unit = (index, middle) if axis == 0 else (middle, index)
        box = field.bounds(unit, local=True)
        start = index // step * period
        first, last = box[axis] - start, box[axis + 2] - start
        own.append((first, last))
        if first + start < 0 or last + start >= length:
            real = field.bounds(unit, clipped=True)
            inside.append((real[axis] - start, real[axis + 2] - start))
    free = [
        index
        for index, (first, last) in enumerate(own)
        if index // step * period + first >= 0 and index // step * period + last < length
    ]
    counted = free if len(free) >= step else range(count)
    before = max(0, *(-own[index][0] for index in counted))
    after = max(0, *(own[index][1] - period + 1 for index in counted))
    word = ("rows", "columns")[axis]
    drifting = any(
        own[index] != own[index + step]
        for index in free
        if index + step < count and index + step in set(free)
    )
    if drifting:
        return Margins(
            before, after, f"its {word} do not repeat after {period} pixels on an image of {length}"
        )
    if not mixed and any(-first > before or last - period + 1 > after for first, last in inside):
        return Margins(
            before, after, f"units at the border read {word} from far inside the image or its other side"
        )
    return Margins(before, after, "")
