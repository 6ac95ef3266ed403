"""Which input rows (or columns) an element of a tensor has read: interned sets, and arrays of their ids.

Every element carries an id into a table (:class:`Sets`), one table for the rows of the input and one for its
columns. A set has three parts:

- *virtual*: the rows of the unit in an image without borders. Padding counts as more image. It gives
  unclipped bounds, centres and strides. Rows may be negative.
- *real*: the rows of the real image that were read, by whatever path. Padding gives nothing.
- *mixed*: the part of *real* that came through an operator which mixes positions (pooling over the whole
  map, attention). It says nothing about where the unit sits, so it is kept out of the virtual part.

Sets are Python integers used as bit fields, so a union is one ``|`` of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class Entry(NamedTuple):
    """One set: bit b of ``virtual`` is row ``low + b`` and bit 0 is set; bit b of the others is row b."""

    low: int
    virtual: int
    real: int
    mixed: int


EMPTY = Entry(0, 0, 0, 0)


class Sets:
    """A table of interned sets; id 0 is the empty one."""

    def __init__(self) -> None:
        self.entries: list[Entry] = [EMPTY]
        self._index: dict[Entry, int] = {EMPTY: 0}
        self._unions: dict[tuple[int, int], int] = {}

    def intern(self, low: int, virtual: int, real: int, mixed: int) -> int:
        """Return the id of a set, whose ``virtual`` may begin with bits that are not set."""
        if virtual:
            zeros = (virtual & -virtual).bit_length() - 1
            entry = Entry(low + zeros, virtual >> zeros, real, mixed)
        else:
            entry = Entry(0, 0, real, mixed)
        if entry not in self._index:
            self._index[entry] = len(self.entries)
            self.entries.append(entry)
        return self._index[entry]

    def union(self, a: int, b: int) -> int:
        """Return the id of what either has read."""
        if a == b or not b:
            return a
        if not a:
            return b
        key = (a, b) if a < b else (b, a)
        if key not in self._unions:
            first, second = self.entries[a], self.entries[b]
            if not first.virtual or not second.virtual:
                low, virtual, *_ = first if first.virtual else second
            else:
                # Bit 0 of the union is the lower of the two first rows.
                low = min(first.low, second.low)
                virtual = first.virtual << (first.low - low) | second.virtual << (second.low - low)
            self._unions[key] = self.intern(
                low, virtual, first.real | second.real, first.mixed | second.mixed
            )
        return self._unions[key]

    def shifted(self, a: int, shift: int) -> int:
        """Return the virtual part alone, moved by ``shift`` rows: what padding stands for."""
        entry = self.entries[a]
        return self.intern(entry.low + shift, entry.virtual, 0, 0)

    def read(self, a: int) -> int:
        """Return the real part alone."""
        entry = self.entries[a]
        return self.intern(0, 0, entry.real, entry.mixed)

    def mixed(self, a: int) -> int:
        """Return all that was read, without a place of its own."""
        real = self.entries[a].real
        return self.intern(0, 0, real, real)

    def map(self, ids: Ids, function: Callable[[int], int]) -> Ids:
        """Apply ``function`` to every id, once for each distinct one."""
        distinct, where = np.unique(ids, return_inverse=True)
        values = np.array([function(int(value)) for value in distinct], dtype=np.int64)
        return values[where].reshape(ids.shape)

    def unite(self, a: Ids, b: Ids) -> Ids:
        """Return the union element by element, broadcasting."""
        if a is b:
            return a
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        if np.array_equal(a, b):
            return a
        count = len(self.entries)
        pairs, where = np.unique(a * count + b, return_inverse=True)
        values = np.array([self.union(*divmod(int(pair), count)) for pair in pairs], dtype=np.int64)
        return values[where].reshape(a.shape)

    def unite_along(self, ids: Ids, dims: Sequence[int]) -> Ids:
        """Return the union over ``dims``, which stay with length 1."""
        for dim in dims:
            # Halving: the number of unions of whole arrays is the logarithm of the length.
            while ids.shape[dim] > 1:
                half = ids.shape[dim] // 2
                head, tail, rest = np.split(ids, [half, 2 * half], axis=dim)
                ids = self.unite(head, tail)
                if rest.size:
                    ids = np.concatenate([ids, rest], axis=dim)
        return ids


def compressed(ids: Ids) -> Ids:
    """Cut every dim along which nothing changes down to length 1."""
    for dim in range(ids.ndim):
        if ids.shape[dim] > 1:
            first = ids.take([0], axis=dim)
            if (ids == first).all():
                ids = first
    return ids
