"""What the units of a map have read along one axis of the input; sets of pixels as the bits of a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erfattr.receptive_field._sets import Entry, Ids

Unit = tuple[int, int]


def extent(bits: int) -> tuple[int, int]:
    """Return first and last set bit; (0, -1), an empty interval, if there is none."""
    return ((bits & -bits).bit_length() - 1, bits.bit_length() - 1) if bits else (0, -1)


def shifted(bits: int, low: int) -> int:
    """Return the bits moved up by ``low``; those that fall below 0 are lost."""
    return bits << low if low >= 0 else bits >> -low


def has_holes(bits: int) -> bool:
    """Whether a bit between the first and the last one is not set."""
    # Adding the lowest bit carries through the first run of ones; what it leaves lies behind a hole.
    return bool(bits & (bits + (bits & -bits)))


def indices(bits: int) -> tuple[int, ...]:
    """Return the set bits, in order."""
    return tuple(index for index, bit in enumerate(reversed(f"{bits:b}")) if bit == "1")


@dataclass(frozen=True)
class Line:
    """What the units of a map have read along one axis of the input.

    Attributes:
        ids: (height, width), or what broadcasts to it; they point into ``entries``, see
            `erfattr.receptive_field._sets.Sets`.
        entries: The sets.
        length: Pixels of the input along the axis.
    """

    ids: Ids
    entries: Sequence[Entry]
    length: int

    def entry(self, unit: Unit) -> Entry:
        """Return what one unit has read."""
        height, width = self.ids.shape
        return self.entries[int(self.ids[min(unit[0], height - 1), min(unit[1], width - 1)])]

    def local(self, unit: Unit) -> tuple[int, int]:
        """Return first and last index of the unit's own interval, in an image without borders."""
        entry = self.entry(unit)
        if not entry.virtual:
            return extent(entry.real)
        return entry.low, entry.low + entry.virtual.bit_length() - 1

    def bounds(self, unit: Unit) -> tuple[int, int]:
        """Return first and last index of all that the unit can depend on."""
        entry = self.entry(unit)
        inside = extent(entry.real)
        if entry.mixed or not entry.virtual:
            return inside
        first, last = self.local(unit)
        return (min(first, inside[0]), max(last, inside[1])) if entry.real else (first, last)

    def distinct(self) -> list[Entry]:
        """Return the sets that occur."""
        return [self.entries[a] for a in dict.fromkeys(self.ids.ravel().tolist())]

    def kind(self) -> str:
        """Return the status along this axis, as `ReceptiveField` defines it."""
        entries = self.distinct()
        if any(entry.mixed for entry in entries):
            return "whole image" if len({entry.real for entry in entries}) == 1 else "position-dependent"
        if len({entry.virtual for entry in entries}) > 1:
            return "position-dependent"
        virtual = entries[0].virtual
        # Something was read from outside the unit's own interval: reflected padding, say.
        if any(entry.real & ~shifted(virtual, entry.low) for entry in entries):
            return "position-dependent"
        holes = has_holes(virtual) or any(has_holes(entry.real) for entry in entries)
        return "upper bound" if holes else "exact"
