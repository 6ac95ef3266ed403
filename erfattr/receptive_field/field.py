"""The theoretical receptive field of a layer: which input pixels a unit can depend on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from erfattr._checks import describe, is_int
from erfattr._showing import Shown
from erfattr.receptive_field._lines import Line, Unit, extent, indices
from erfattr.receptive_field.layout import Layout

Number = int | float


def whole_stride(stride: tuple[Number, Number]) -> tuple[int, int] | None:
    """Return a stride in whole pixels, each at least 1; ``None`` where it is not whole."""
    if any(step < 1 or step != int(step) for step in stride):
        return None
    return int(stride[0]), int(stride[1])


@dataclass(frozen=True, repr=False)
class ReceptiveField(Shown):
    """Which pixels each unit of one layer can depend on at all.

    Rows and columns are treated apart: the pixels are those in a touched row *and* a touched column.
    Coordinates are (row, column), pixel centres are integers, the origin is the top left pixel.

    Attributes:
        layer: Dotted name of the layer, ``""`` for the model's output.
        input_size: (H, W) of the image.
        output_size: (height, width) of the layer's map; (1, 1) for an output of shape (N, K).
        size: (rows, columns) of the receptive field of the centre unit (height // 2, width // 2): its
            unclipped interval; or the rows and columns that it spans inside the image, where an operator that
            mixes positions takes part.
        local_size: The same without what came through operators that mix positions (the gates of
            squeeze-excite blocks, attention); equal to ``size`` where there are none.
        stride: Input rows and columns per step of the map; ``input_size`` for an output without positions.
        status: ``"exact"``: size and shape hold for every unit and every pixel of the box is touched.
            ``"upper bound"``: nothing outside the box is touched, but not all of it: there are holes, which
            :meth:`touched` shows, or the operators could not be understood.
            ``"whole image"``: every unit depends on all that the map depends on (along one axis at least; the
            note says which).
            ``"position-dependent"``: the size is not the same for every unit; ``size`` is that of the centre
            unit, ask :meth:`bounds` for others.
            ``"lower bound"``: values choose what is read (a comparison, a sort, a sampled flow), so a probe
            with NaN sees a part of it at least; the note names the operator.
        method: ``"operators"`` or ``"nan probe"`` (see `erfattr.receptive_field.nan_probe.nan_probe`).
        unknown_operators: Names of the operators on the way that were not understood.
        note: The rest, in words; may be empty.

    Example:
        >>> from erfattr import demo_model, theoretical_receptive_field
        >>> field = theoretical_receptive_field(demo_model(), "layer2")
        >>> field.size, field.stride, field.center((3, 3)), field.status
        ((99, 99), (8, 8), (24.0, 24.0), 'exact')
    """

    layer: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    size: tuple[int, int]
    local_size: tuple[int, int]
    stride: tuple[Number, Number]
    status: str
    method: str
    unknown_operators: tuple[str, ...]
    note: str
    _rows: Line = field(repr=False, compare=False)
    _columns: Line = field(repr=False, compare=False)
    _layout: Layout | None = field(default=None, repr=False, compare=False)

    def _in_words(self) -> str:
        rows, columns = self.size
        y, x = self.center()
        stride = " x ".join(f"{step:g}" for step in dict.fromkeys(map(float, self.stride)))
        return (
            f"{self.layer or 'output'}: {rows} x {columns}, stride {stride}, centre unit at ({y:g}, {x:g}), "
            f"{self.status}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, and ``center`` and ``bounds`` of the centre unit, as JSON can hold them."""
        return {**super().to_dict(), "center": list(self.center()), "bounds": list(self.bounds())}

    @property
    def period(self) -> tuple[int, int] | None:
        """The stride in whole pixels, each at least 1; ``None`` where it is not whole."""
        return whole_stride(self.stride)

    @property
    def layout(self) -> Layout | None:
        """Where rows, columns and channels of the layer's output lie; ``None`` where it is not proven."""
        return self._layout

    def _check(self, unit: Any) -> Unit:
        if unit == "center":
            return self.output_size[0] // 2, self.output_size[1] // 2
        if not isinstance(unit, (tuple, list)) or len(unit) != 2 or not all(is_int(value) for value in unit):
            raise TypeError(f'unit: expected (row, column) or "center", got {describe(unit)}')
        height, width = self.output_size
        if not (0 <= unit[0] < height and 0 <= unit[1] < width):
            raise ValueError(f"unit: expected a position in the {height} x {width} map, got {tuple(unit)}")
        return int(unit[0]), int(unit[1])

    def center(self, unit: Unit | str = "center") -> tuple[float, float]:
        """Return the pixel (y, x) that ``unit`` is centred on: the middle of its own unclipped interval.

        Operators that mix all positions do not move it; where nothing but such has been read, it is where the
        map's rows and columns are followed to. It may lie between pixels, or outside the image.

        Args:
            unit: (row, column) in the map, or ``"center"``.

        Raises:
            TypeError: ``unit`` is not a pair of integers.
            ValueError: ``unit`` lies outside the map.
        """
        unit = self._check(unit)
        followed = None if self._layout is None else self._layout.center(unit)
        found = []
        for axis, line in enumerate((self._rows, self._columns)):
            if followed is not None and not line.entry(unit).virtual:
                found.append(followed[axis])  # all that it has read has been mixed
            else:
                first, last = line.local(unit)
                found.append((first + last) / 2)
        return found[0], found[1]

    def bounds(
        self, unit: Unit | str = "center", *, clipped: bool = False, local: bool = False
    ) -> tuple[int, int, int, int]:
        """Return (y0, x0, y1, x1) of the box that ``unit`` can depend on; both ends belong to it.

        Args:
            unit: (row, column) in the map, or ``"center"``.
            clipped: Give the box of the touched pixels inside the image. By default the box goes on beyond
                the borders (negative numbers are padding). A unit that saw nothing gives (0, 0, -1, -1).
            local: Give the unit's own interval: leave out what came through operators that mix positions.

        Raises:
            TypeError: ``unit`` is not a pair of integers.
            ValueError: ``unit`` lies outside the map.
        """
        unit = self._check(unit)
        if clipped:
            rows, columns = map(extent, self._touched(unit))
        elif local:
            rows, columns = self._rows.local(unit), self._columns.local(unit)
        else:
            rows, columns = self._rows.bounds(unit), self._columns.bounds(unit)
        return rows[0], columns[0], rows[1], columns[1]

    def touched(self, unit: Unit | str = "center") -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the rows and the columns of the image that ``unit`` really depends on, holes left out.

        Args:
            unit: (row, column) in the map, or ``"center"``.

        Raises:
            TypeError: ``unit`` is not a pair of integers.
            ValueError: ``unit`` lies outside the map.
        """
        rows, columns = self._touched(self._check(unit))
        return indices(rows), indices(columns)

    def _touched(self, unit: Unit) -> tuple[int, int]:
        """Real rows and columns of a unit; neither if it saw no pixel."""
        rows, columns = self._rows.entry(unit).real, self._columns.entry(unit).real
        return (rows, columns) if rows and columns else (0, 0)


class ReceptiveFields(Shown, dict[str, ReceptiveField]):
    """The receptive fields of a network's layers by dotted name, in the order the layers finish: a dict.

    Example:
        >>> from erfattr import demo_model, receptive_fields
        >>> fields = receptive_fields(demo_model())
        >>> [fields[f"layer{k}"].size[0] for k in (1, 2, 3, 4)]
        [43, 99, 211, 435]
    """

    def _in_words(self) -> str:
        if not self:
            return "no layers"
        name, last = list(self.items())[-1]
        height, width = last.input_size
        return (
            f"{len(self)} layers, image {height} x {width}, {name or 'output'}: {last.size[0]} x "
            f"{last.size[1]}; .to_dict() has all"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return for each layer what `ReceptiveField.to_dict` gives, as JSON can hold it."""
        return {name: field.to_dict() for name, field in self.items()}


def total_stride(fields: Mapping[str, ReceptiveField]) -> tuple[int, int] | None:
    """Return the least common multiple of the layers' strides: the period of the output's sensitivity map.

    The last layer's stride is not enough: a network that goes back up to the image's size (U-Net, DeepLab)
    ends at stride 1, and its map repeats with the largest stride on the way.

    Args:
        fields: What `erfattr.receptive_field.trace.receptive_fields` returned.

    Returns:
        (vertical, horizontal) in pixels; ``None`` where no layer has more than one position, or the map does
        not repeat inside the image.

    Example:
        >>> from torch import nn
        >>> from erfattr.receptive_field.trace import receptive_fields
        >>> model = nn.Sequential(nn.Conv2d(3, 1, 3, stride=2), nn.MaxPool2d(2), nn.Upsample(scale_factor=4))
        >>> total_stride(receptive_fields(model, input_size=16))
        (4, 4)
    """
    periods = []
    for axis in (0, 1):
        # Where a unit has no place of its own any more, its stride is the whole image.
        strides = [
            field.stride[axis]
            for field in fields.values()
            if field.output_size[axis] > 1 and field.stride[axis] < field.input_size[axis]
        ]
        period = common_period(strides, min((field.input_size[axis] for field in fields.values()), default=0))
        if period is None:
            return None
        periods.append(period)
    return periods[0], periods[1]


def common_period(strides: Iterable[float | Fraction], length: int) -> int | None:
    """Return the least common multiple of strides along one axis, in whole pixels.

    Args:
        strides: Pixels from one position of a map to the next.
        length: Of the image; a pattern as long as that does not repeat.

    Returns:
        The period; ``None`` without strides, or where it is not shorter than the image.

    Example:
        >>> common_period([2, 4.0, Fraction(3, 2)], 224)
        12
    """
    period = Fraction(1)
    several = [Fraction(stride).limit_denominator(_LARGEST_DENOMINATOR) for stride in strides]
    for stride in several:
        numerator = math.lcm(period.numerator, stride.numerator)
        period = Fraction(numerator, math.gcd(period.denominator, stride.denominator))
    return int(period) if several and period < length else None


# A stride that is no whole number is a ratio of the sizes of two maps.
_LARGEST_DENOMINATOR = 4096
