"""Which input rows (or columns) each element of a tensor has read: sets, and what is made of them.

Every element carries an id into a table of interned sets (:class:`Sets`), one table for the rows of the input
and one for its columns. A set has three parts:

- *virtual*: the rows of the unit in an image without borders. Padding counts as more image. It gives
  unclipped bounds, centres and strides. Rows may be negative.
- *real*: the rows of the real image that were read, by whatever path. Padding gives nothing.
- *mixed*: the part of *real* that came through an operator which mixes positions (pooling over the whole
  map, attention). It says nothing about where the unit sits, so it is kept out of the virtual part.

Sets are Python integers used as bit fields, so a union is one ``|`` of any length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Entry = tuple[int, int, int, int]

MISSING = np.iinfo(np.int64).min
"""In an array of taps: no input element here."""


def _normal(low: int, bits: int) -> tuple[int, int]:
    if not bits:
        return 0, 0
    zeros = (bits & -bits).bit_length() - 1
    return low + zeros, bits >> zeros


class Sets:
    """A table of interned sets; id 0 is the empty one.

    An entry is (low, virtual, real, mixed): bit b of ``virtual`` is row ``low + b`` and bit 0 is set; bit b
    of ``real`` and ``mixed`` is row b.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = [(0, 0, 0, 0)]
        self._index: dict[Entry, int] = {self.entries[0]: 0}
        self._unions: dict[tuple[int, int], int] = {}

    def intern(self, low: int, virtual: int, real: int, mixed: int) -> int:
        entry = (*_normal(low, virtual), real, mixed)
        if entry not in self._index:
            self._index[entry] = len(self.entries)
            self.entries.append(entry)
        return self._index[entry]

    def union(self, a: int, b: int) -> int:
        if a == b or not b:
            return a
        if not a:
            return b
        key = (a, b) if a < b else (b, a)
        if key not in self._unions:
            low_a, virtual_a, real_a, mixed_a = self.entries[a]
            low_b, virtual_b, real_b, mixed_b = self.entries[b]
            if not virtual_a or not virtual_b:
                low, virtual = (low_a, virtual_a) if virtual_a else (low_b, virtual_b)
            elif low_a <= low_b:
                low, virtual = low_a, virtual_a | virtual_b << (low_b - low_a)
            else:
                low, virtual = low_b, virtual_b | virtual_a << (low_a - low_b)
            self._unions[key] = self.intern(low, virtual, real_a | real_b, mixed_a | mixed_b)
        return self._unions[key]

    def shifted(self, a: int, shift: int) -> int:
        """The virtual part alone, moved by ``shift`` rows: what padding stands for."""
        low, virtual, _, _ = self.entries[a]
        return self.intern(low + shift, virtual, 0, 0)

    def read(self, a: int) -> int:
        """The real part alone."""
        return self.intern(0, 0, *self.entries[a][2:])

    def mixed(self, a: int) -> int:
        """All that was read, without a place of its own."""
        real = self.entries[a][2]
        return self.intern(0, 0, real, real)

    def map(self, ids: Ids, function: Callable[[int], int]) -> Ids:
        """Apply ``function`` to every id, once for each distinct one."""
        distinct, where = np.unique(ids, return_inverse=True)
        values = np.array([function(int(value)) for value in distinct], dtype=np.int64)
        return values[where].reshape(ids.shape)

    def unite(self, a: Ids, b: Ids) -> Ids:
        """Union element by element, broadcasting."""
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
        """Union over ``dims``, which stay with length 1."""
        for dim in dims:
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


@dataclass(frozen=True)
class Axis:
    """What the elements of one tensor have read of the input's rows (or of its columns).

    Attributes:
        sets: The table that the ids point into.
        ids: As many dims as the tensor, each of the tensor's length or of length 1 where nothing changes.
        dim: The dim of the tensor that runs along the input's rows, or ``None`` where none does.
        jump: Input rows per step along ``dim``.
    """

    sets: Sets
    ids: Ids
    dim: int | None
    jump: Fraction

    def varies(self) -> list[int]:
        return [dim for dim, length in enumerate(self.ids.shape) if length > 1]

    def with_ids(self, ids: Ids) -> Axis:
        return replace(self, ids=ids)

    def mixed(self) -> Axis:
        return self.with_ids(compressed(self.sets.map(self.ids, self.sets.mixed)))

    def united(self, dims: Sequence[int]) -> Axis:
        """Union over ``dims`` as a sum does it; where no position is left the result has no own place."""
        if not any(self.ids.shape[dim] > 1 for dim in dims):
            return self
        result = self.with_ids(compressed(self.sets.unite_along(self.ids, dims)))
        return result if result.varies() and self.dim not in dims else result.mixed()

    def normalised(self, dims: Sequence[int]) -> Axis:
        """Every element keeps its place and has also read all others along ``dims`` (softmax, group norm)."""
        if not any(self.ids.shape[dim] > 1 for dim in dims):
            return self
        other = self.with_ids(self.sets.unite_along(self.ids, dims)).mixed()
        return self.with_ids(self.sets.unite(self.ids, other.ids))

    def cumulated(self, dim: int) -> Axis:
        """Every element keeps its place and has also read all before it along ``dim``."""
        if self.ids.shape[dim] == 1:
            return self
        before = self.mixed().ids
        before = np.broadcast_to(before, np.maximum(before.shape, self.ids.shape)).copy()
        for index in range(1, before.shape[dim]):
            here, last = ((slice(None),) * dim + (slice(i, i + 1),) for i in (index, index - 1))
            before[here] = self.sets.unite(before[here], before[last])
        return self.with_ids(self.sets.unite(self.ids, before))

    def anywhere(self, ndim: int) -> Axis:
        """All that any element has read, for a tensor of any shape with ``ndim`` dims."""
        ids = self.sets.unite_along(self.ids, range(self.ids.ndim))
        return replace(self, ids=ids.reshape((1,) * ndim), dim=None).mixed()

    def aligned(self, ndim: int) -> Axis:
        """Add leading dims, as broadcasting does."""
        extra = ndim - self.ids.ndim
        if extra == 0:
            return self
        dim = None if self.dim is None else self.dim + extra
        return replace(self, ids=self.ids.reshape((1,) * extra + self.ids.shape), dim=dim)

    def _extended(self, dim: int, length: int, low: int, high: int) -> Ids:
        """Ids at the indices low..high along ``dim``; outside the tensor the virtual sets go on as before."""
        indices = np.arange(low, high + 1)
        inside = (indices >= 0) & (indices < length)
        period = self.jump.denominator
        if dim != self.dim or period > length:
            steps = np.zeros_like(indices)
            source = np.clip(indices, 0, length - 1)
            shifts = [int(self.jump * int(index)) for index in indices - source]
        else:
            # The first or last whole period is repeated, moved by period * jump rows each time.
            steps = np.where(indices < 0, -(indices // period), 0)
            beyond = indices >= length
            steps[beyond] = -((indices[beyond] - length) // period + 1)
            source = indices + steps * period
            shifts = [int(-int(step) * period * self.jump) for step in steps]
        ids = self.ids
        if ids.shape[dim] == 1 and length > 1:
            source = np.zeros_like(source)
        ids = ids.take(source, axis=dim)
        for position in np.flatnonzero(~inside):
            where = (slice(None),) * dim + (position,)
            if dim == self.dim:
                shift = shifts[position]
                ids[where] = self.sets.map(ids[where], lambda a, s=shift: self.sets.shifted(a, s))  # type: ignore[misc]
            else:
                ids[where] = 0
        return ids

    def _gathered(self, dim: int, length: int, taps: npt.NDArray[np.int64]) -> Ids:
        known = taps[taps != MISSING]
        if not known.size:
            return np.zeros([1] * self.ids.ndim, dtype=np.int64)
        low, high = int(known.min()), int(known.max())
        extended = self._extended(dim, length, low, high)
        result: Ids | None = None
        for tap in taps:
            ids = extended.take(np.where(tap == MISSING, 0, tap - low), axis=dim)
            if (tap == MISSING).any():
                ids[(slice(None),) * dim + (tap == MISSING,)] = 0
            result = ids if result is None else self.sets.unite(result, ids)
        assert result is not None
        return result

    def _where_read(self, other: Axis) -> Axis:
        """Keep what was read only where ``other`` has read something too, and the virtual part in padding."""
        entries = other.sets.entries
        kinds = other.sets.map(other.ids, lambda a: 2 if entries[a][2] else bool(entries[a][1]))
        if (kinds == 2).all():
            return self
        padding = self.sets.map(self.ids, lambda a: self.sets.shifted(a, 0))
        return self.with_ids(compressed(np.select([kinds == 2, kinds == 1], [self.ids, padding], 0)))

    def windows(
        self,
        dim: int,
        length: int,
        taps: npt.NDArray[np.int64],
        step: Fraction,
        reads: npt.NDArray[np.int64] | None = None,
    ) -> Axis:
        """Slide a window along ``dim``.

        Args:
            dim: The dim of the tensor.
            length: Its length.
            taps: (K, new length): the K input indices that each output index reads; an index outside is
                padding, ``MISSING`` nothing at all.
            step: Input indices per output index.
            reads: What is really read, where it differs from ``taps`` (reflection, clamped borders).
        """
        jump = self.jump * step if dim == self.dim else self.jump
        if self.ids.shape[dim] == 1 and (length > 1 or dim != self.dim):
            return replace(self, jump=jump)
        if taps.shape == (1, length) and reads is None and (taps[0] == np.arange(length)).all():
            return self
        ids = self._gathered(dim, length, taps)
        if reads is not None:
            real = self.sets.map(self._gathered(dim, length, reads), self.sets.read)
            ids = self.sets.unite(self.sets.map(ids, lambda a: self.sets.shifted(a, 0)), real)
        if length > 1 or ids.shape[dim] > 1:
            ids = compressed(ids)
        return replace(self, ids=ids, jump=jump)

    def replaced(self, ids: Ids, shape: Sequence[int], dim: int | None) -> Axis:
        """The same data after a view: new ids, and the dim and the jump as they can be read from them.

        Args:
            ids: The new ids.
            shape: The new tensor's shape.
            dim: Where the old dim would be if the view kept it.
        """
        ids = compressed(ids)
        varies = [d for d, length in enumerate(ids.shape) if length > 1]
        if len(varies) == 1:
            dim = varies[0]
        elif dim is None or dim >= len(shape) or (varies and dim not in varies):
            spatial = [d for d in varies if d >= 2]
            dim = spatial[0] if len(spatial) == 1 else None
        elif not varies and shape[dim] != 1:
            dim = None
        axis = replace(self, ids=ids, dim=dim)
        return replace(axis, jump=axis._measured_jump())

    def _measured_jump(self) -> Fraction:
        """The jump that most elements along ``dim`` agree on, the carried one if that is not to be had."""
        if self.dim is None or self.ids.shape[self.dim] < 2:
            return self.jump
        line = self.ids[tuple(slice(None) if d == self.dim else 0 for d in range(self.ids.ndim))]
        entries = [self.sets.entries[int(a)] for a in line]
        for period in dict.fromkeys([self.jump.denominator, *range(1, 9)]):
            pairs = list(zip(entries, entries[period:], strict=False))
            moves = Counter(b[0] - a[0] for a, b in pairs if a[1] and a[1] == b[1])
            if moves:
                move, votes = moves.most_common(1)[0]
                if move and 2 * votes > len(pairs):
                    return Fraction(move, period)
        return self.jump


def reshaped(axis: Axis, old: Sequence[int], new: Sequence[int]) -> Axis:
    """Reshape as a view from shape ``old`` to ``new`` does, leaving constant dims at length 1.

    The two shapes are cut into the smallest runs of dims with equal products; a run along which nothing
    changes needs no memory, and a dim alone in its run keeps its meaning.
    """
    ids, place = axis.ids, None
    result: list[int] = []
    grown = list(ids.shape)
    i = j = 0
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        left = right = 1
        while True:
            if left == right and (i > first_i or j > first_j):
                break
            if left <= right and i < len(old):
                left *= old[i]
                i += 1
            elif j < len(new):
                right *= new[j]
                j += 1
            else:
                left *= old[i]
                i += 1
        if axis.dim is not None and (first_i, i) == (axis.dim, axis.dim + 1) and j == first_j + 1:
            place = first_j
        if any(ids.shape[d] > 1 for d in range(first_i, i)):
            grown[first_i:i] = old[first_i:i]
            result += new[first_j:j]
        else:
            result += [1] * (j - first_j)
    return axis.replaced(np.broadcast_to(ids, grown).reshape(result), new, place)


@dataclass(frozen=True)
class Provenance:
    """What the elements of one tensor have read: rows, columns, and the operators not understood."""

    rows: Axis
    columns: Axis
    unknown: tuple[str, ...] = ()

    def each(self, function: Callable[[Axis], Axis]) -> Provenance:
        rows, columns = function(self.rows), function(self.columns)
        if rows is self.rows and columns is self.columns:
            return self
        return replace(self, rows=rows, columns=columns)

    def consistent(self) -> Provenance:
        """An element that has read no row has read no column either, and the other way round.

        Such elements arise in padding and between the outputs of a transposed convolution.
        """
        rows, columns = self.rows._where_read(self.columns), self.columns._where_read(self.rows)
        return (
            self
            if rows is self.rows and columns is self.columns
            else replace(self, rows=rows, columns=columns)
        )


def source(shape: Sequence[int]) -> Provenance:
    """The provenance of the input image itself, of shape (N, C, H, W)."""

    def axis(dim: int) -> Axis:
        sets = Sets()
        ids = np.array([sets.intern(index, 1, 1 << index, 0) for index in range(shape[dim])], dtype=np.int64)
        return Axis(sets, ids.reshape([-1 if d == dim else 1 for d in range(len(shape))]), dim, Fraction(1))

    return Provenance(axis(2), axis(3))


def pointwise(operands: Sequence[tuple[Provenance, Sequence[int]]], ndim: int) -> Provenance:
    """Union element by element over (provenance, shape) of every operand that has one.

    An operand that is spread over the positions of another (the gate of a squeeze-excite block) keeps what it
    has read and loses its place.
    """
    if len(operands) == 1 and operands[0][0].rows.ids.ndim == ndim:
        return operands[0][0]

    def combine(axes: list[Axis]) -> Axis:
        axes = [axis.aligned(ndim) for axis in axes]
        shapes = [(1,) * (ndim - len(shape)) + tuple(shape) for _, shape in operands]
        everywhere = {dim for axis in axes for dim in axis.varies()}
        kept: list[Axis] = []
        for axis, shape in zip(axes, shapes, strict=True):
            elsewhere = everywhere - set(axis.varies())
            spread = elsewhere == everywhere and any(shape[dim] == 1 for dim in elsewhere)
            kept.append(axis.mixed() if spread else axis)
        main = next((axis for axis in kept if axis.dim is not None and axis.dim in axis.varies()), None)
        if main is None:
            main = next((axis for axis in kept if axis.dim is not None), kept[0])
        ids = kept[0].ids
        for axis in kept[1:]:
            ids = main.sets.unite(ids, axis.ids)
        return main.with_ids(ids)

    unknown = tuple(dict.fromkeys(name for operand, _ in operands for name in operand.unknown))
    rows = combine([operand.rows for operand, _ in operands])
    columns = combine([operand.columns for operand, _ in operands])
    return Provenance(rows, columns, unknown)


def window_taps(
    length: int, kernel: int, stride: int, padding: int, dilation: int, *, transposed: bool = False
) -> npt.NDArray[np.int64]:
    """(kernel, length) input indices that a convolution or a pooling with ``length`` outputs reads."""
    output = np.arange(length)[None, :]
    tap = np.arange(kernel)[:, None] * dilation
    if not transposed:
        return output * stride - padding + tap
    scaled = output + padding - tap
    return np.where(scaled % stride == 0, scaled // stride, MISSING)


def adaptive_taps(old: int, new: int) -> npt.NDArray[np.int64]:
    """(K, new) input indices that an adaptive pooling from ``old`` to ``new`` reads."""
    start = np.arange(new) * old // new
    end = -(-(np.arange(1, new + 1) * old) // new)
    taps = start[None, :] + np.arange(int((end - start).max()))[:, None]
    return np.where(taps < end[None, :], taps, MISSING)


def taps_from_mask(mask: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(K, new) input indices from a boolean (old, new) table of what each output index reads."""
    count = int(mask.sum(axis=0).max())
    taps = np.full((max(count, 1), mask.shape[1]), MISSING, dtype=np.int64)
    for index in range(mask.shape[1]):
        read = np.flatnonzero(mask[:, index])
        taps[: len(read), index] = read
    return taps
