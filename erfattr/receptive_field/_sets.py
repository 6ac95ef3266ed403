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

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

# Up to this many ids a loop over numbers is faster than sorting arrays.
_FEW = 512


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
        self._unions: dict[tuple[int, ...], int] = {}
        self.slides: dict[Hashable, Ids] = {}
        """What windows along a line of ids have given, for `Axis.windows`."""

    def intern(self, low: int, virtual: int, real: int, mixed: int) -> int:
        """Return the id of a set, whose ``virtual`` may begin with bits that are not set."""
        if not virtual:
            low = 0
        elif not virtual & 1:
            zeros = (virtual & -virtual).bit_length() - 1
            low, virtual = low + zeros, virtual >> zeros
        entry = Entry(low, virtual, real, mixed)
        found = self._index.get(entry)
        if found is None:
            found = self._index[entry] = len(self.entries)
            self.entries.append(entry)
        return found

    def union(self, a: int, b: int) -> int:
        """Return the id of what either has read."""
        if a == b or not b:
            return a
        if not a:
            return b
        key = (a, b) if a < b else (b, a)
        found = self._unions.get(key)
        if found is None:
            first, second = self.entries[a], self.entries[b]
            if not first.virtual or not second.virtual:
                low, virtual, *_ = first if first.virtual else second
            else:
                # Bit 0 of the union is the lower of the two first rows.
                low = min(first.low, second.low)
                virtual = first.virtual << (first.low - low) | second.virtual << (second.low - low)
            found = self._unions[key] = self.intern(
                low, virtual, first.real | second.real, first.mixed | second.mixed
            )
        return found

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
        if ids.size <= _FEW:
            flat = ids.ravel().tolist()
            table = {value: function(value) for value in dict.fromkeys(flat)}
            return np.array([table[value] for value in flat], dtype=np.int64).reshape(ids.shape)
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
        if a.size <= _FEW:
            united = map(self.union, a.ravel().tolist(), b.ravel().tolist())
            return np.array(list(united), dtype=np.int64).reshape(a.shape)
        count = len(self.entries)
        pairs, where = np.unique(a * count + b, return_inverse=True)
        values = np.array([self.union(*divmod(int(pair), count)) for pair in pairs], dtype=np.int64)
        return values[where].reshape(a.shape)

    def unite_all(self, arrays: Sequence[Ids]) -> Ids:
        """Return the union of arrays of one shape, element by element."""
        first, *others = arrays
        if len(others) > 1 and first.size <= _FEW:
            # All in one go: no sets for what only some of them have read.
            united = map(self._union_of, zip(*(ids.ravel().tolist() for ids in arrays), strict=True))
            return np.array(list(united), dtype=np.int64).reshape(first.shape)
        for ids in others:
            first = self.unite(first, ids)
        return first

    def _union_of(self, members: tuple[int, ...]) -> int:
        found = self._unions.get(members)
        if found is None:
            entries = [self.entries[a] for a in set(members)]
            low = min((entry.low for entry in entries if entry.virtual), default=0)
            virtual = real = mixed = 0
            for entry in entries:
                virtual |= entry.virtual << (entry.low - low) if entry.virtual else 0
                real |= entry.real
                mixed |= entry.mixed
            found = self._unions[members] = self.intern(low, virtual, real, mixed)
        return found

    def unite_along(self, ids: Ids, dims: Sequence[int]) -> Ids:
        """Return the union over ``dims``, which stay with length 1."""
        for dim in dims:
            if ids.shape[dim] > 1:
                ids = _without_repetition(ids, dim)
            if ids.shape[dim] > 1 and ids.size <= _FEW * ids.shape[dim]:
                ids = self.unite_all(np.split(ids, ids.shape[dim], axis=dim))
            # Halving: the number of unions of large arrays is the logarithm of the length.
            while ids.shape[dim] > 1:
                half = ids.shape[dim] // 2
                head, tail, rest = np.split(ids, [half, 2 * half], axis=dim)
                ids = self.unite(head, tail)
                if rest.size:
                    ids = np.concatenate([ids, rest], axis=dim)
        return ids


def _without_repetition(ids: Ids, dim: int) -> Ids:
    """Leave out along ``dim`` what is as the index before: of joined maps, all channels but one of each."""
    line = np.moveaxis(ids, dim, 0)
    changes = line[1:] != line[:-1]
    changes = changes.reshape(len(changes), -1).any(axis=1)
    return ids.take(np.concatenate([[0], np.flatnonzero(changes) + 1]), axis=dim)


def compressed(ids: Ids) -> Ids:
    """Cut every dim along which nothing changes down to length 1."""
    for dim, length in enumerate(ids.shape):
        if length > 1:
            first = ids[(slice(None),) * dim + (slice(1),)]
            if (ids == first).all():
                ids = first
    return ids
