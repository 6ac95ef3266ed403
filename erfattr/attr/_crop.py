"""The part of the image that holds all a unit can see, on which the unit computes the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from erfattr.receptive_field.field import ReceptiveField
from erfattr.receptive_field.trace import Trace

Unit = tuple[int, int]

# A crop that saves less than this share of the pixels is not worth a second trace.
_WORTHWHILE = 0.8


@dataclass(frozen=True)
class Cone:
    """A crop of the image, and where the units are in the maps of the crop.

    Attributes:
        rows: First row and the one behind the last.
        columns: First column and the one behind the last.
        units: The units' positions in the crop's maps, in the order they were asked for.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    units: tuple[Unit, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the crop."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def of(self, images: Tensor) -> Tensor:
        """Return this part of images or maps (..., H, W), a view."""
        return images[..., self.rows[0] : self.rows[1], self.columns[0] : self.columns[1]]


def find_cone(
    wanted: Sequence[tuple[str, Unit]],
    whole: Trace,
    traced: Callable[[tuple[int, int]], Trace],
) -> Cone | None:
    """Return the smallest aligned crop on which every wanted unit computes what it does on the whole image.

    The crop holds the clipped theoretical receptive field of every unit. It begins at a multiple of all
    strides up to the last wanted layer, so every map of the crop is a piece of the whole image's map; where
    it does not end at the image's own border, the padding there is only seen by positions outside the units'
    cones. That the units of the crop read the same pixels is not assumed but traced a second time.

    Args:
        wanted: Layer and unit of each.
        whole: The trace of the layers for the whole image.
        traced: Gives the trace for an image of another size.

    Returns:
        The crop; ``None`` where a unit sees (nearly) the whole image or where sameness is not proven.
    """
    chosen = [whole.fields.get(layer) for layer, _ in wanted]
    known = [field for field in chosen if field is not None and _local(field)]
    if len(known) < len(wanted):
        return None
    boxes = [field.bounds(unit, clipped=True) for field, (_, unit) in zip(known, wanted, strict=True)]
    if any(box[2] < box[0] or box[3] < box[1] for box in boxes):
        return None
    height, width = known[0].input_size
    steps = [math.lcm(*(stride[axis] for stride in whole.strides)) for axis in (0, 1)]
    rows = _aligned(min(box[0] for box in boxes), max(box[2] for box in boxes), steps[0], height)
    columns = _aligned(min(box[1] for box in boxes), max(box[3] for box in boxes), steps[1], width)
    if (rows[1] - rows[0]) * (columns[1] - columns[0]) > _WORTHWHILE * height * width:
        return None
    units = []
    for field, (_, unit) in zip(known, wanted, strict=True):
        shift = rows[0] / field.stride[0], columns[0] / field.stride[1]
        units.append((unit[0] - int(shift[0]), unit[1] - int(shift[1])))
    cone = Cone(rows, columns, tuple(units))
    return cone if _sees_the_same(cone, wanted, known, traced(cone.size)) else None


def around(
    cone: Cone,
    wanted: Sequence[tuple[str, Unit]],
    whole: Trace,
    traced: Callable[[tuple[int, int]], Trace],
) -> Cone | None:
    """Return a larger crop around a cone of `find_cone`, of another size and beginning elsewhere.

    What the units compute on both is the same only where neither position nor size of a crop matters, so
    the two stand for the whole image where that is too large to be run. What changes with the size of the
    image, but not between two crops (another operator, other weights, another number), does not show in them:
    there the traces say that it does not change.

    Returns:
        The crop; ``None`` where it is no smaller than the image, or where sameness is not proven.
    """
    known = [whole.fields[layer] for layer, _ in wanted]
    steps = [math.lcm(*(stride[axis] for stride in whole.strides)) for axis in (0, 1)]
    size = known[0].input_size
    ends = [
        _widened(span, step, length)
        for span, step, length in zip((cone.rows, cone.columns), steps, size, strict=True)
    ]
    units = []
    for field, (i, j) in zip(known, cone.units, strict=True):
        down, right = cone.rows[0] - ends[0][0], cone.columns[0] - ends[1][0]
        units.append((i + int(down / field.stride[0]), j + int(right / field.stride[1])))
    wide = Cone(ends[0], ends[1], tuple(units))
    if wide.size[0] * wide.size[1] > _WORTHWHILE * size[0] * size[1]:
        return None
    there = traced(wide.size)
    alike = whole.operators == there.operators == traced(cone.size).operators
    return wide if alike and _sees_the_same(wide, wanted, known, there) else None


def _widened(span: tuple[int, int], step: int, length: int) -> tuple[int, int]:
    """Widen by about half at either side, by a step more behind than before, inside the image."""
    more = -(-(span[1] - span[0]) // (2 * step)) * step
    return max(span[0] - more, 0), min(span[1] + more + step, length)


def _sees_the_same(
    crop: Cone, wanted: Sequence[tuple[str, Unit]], known: Sequence[ReceptiveField], trace: Trace
) -> bool:
    """Whether the units read the same pixels in a crop, traced by itself, as in the whole image."""
    return all(
        _same(field, unit, trace.fields.get(layer), inside, (crop.rows[0], crop.columns[0]))
        for field, (layer, unit), inside in zip(known, wanted, crop.units, strict=True)
    )


def _local(field: ReceptiveField) -> bool:
    """Whether the field was read from operators that all act locally, with whole strides."""
    local = field.method == "operators" and field.status in ("exact", "upper bound")
    return local and field.period is not None


def _aligned(first: int, last: int, step: int, length: int) -> tuple[int, int]:
    """Widen first..last to multiples of ``step``, inside the image."""
    return first // step * step, min(-(-(last + 1) // step) * step, length)


def _same(
    field: ReceptiveField, unit: Unit, cropped: ReceptiveField | None, inside: Unit, offset: Unit
) -> bool:
    """Whether the unit of the crop reads the same pixels as the unit of the whole image."""
    if cropped is None or not _local(cropped) or cropped.stride != field.stride:
        return False
    if not all(0 <= index < length for index, length in zip(inside, cropped.output_size, strict=True)):
        return False
    for whole, part, start in zip(field.touched(unit), cropped.touched(inside), offset, strict=True):
        if whole != tuple(index + start for index in part):
            return False
    y0, x0, y1, x1 = cropped.bounds(inside)
    y, x = offset
    return field.bounds(unit) == (y0 + y, x0 + x, y1 + y, x1 + x)
