"""What the elements of one tensor have read along one axis of the input, and what operators do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from erfattr.receptive_field._sets import Ids, Sets, compressed

MISSING = np.iinfo(np.int64).min
"""In an array of taps: no input element here."""


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
        return Axis(self.sets, ids, self.dim, self.jump)

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
        outside = np.flatnonzero((indices < 0) | (indices >= length))
        period = self.jump.denominator
        if dim != self.dim or period > length:
            source = np.clip(indices, 0, length - 1)
            shifts = {int(i): int(self.jump * int(indices[i] - source[i])) for i in outside}
        else:
            # The first or last whole period is repeated, moved by period * jump rows each time.
            steps = np.where(indices < 0, -(indices // period), 0)
            beyond = indices >= length
            steps[beyond] = -((indices[beyond] - length) // period + 1)
            source = indices + steps * period
            shifts = {int(i): int(-int(steps[i]) * period * self.jump) for i in outside}
        ids = self.ids
        if ids.shape[dim] == 1 and length > 1:
            source = np.zeros_like(source)
        ids = ids.take(source, axis=dim)
        for position in outside:
            where = (slice(None),) * dim + (position,)
            if dim == self.dim:
                shift = shifts[int(position)]
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
        read = []
        for tap in taps:
            ids = extended.take(np.where(tap == MISSING, 0, tap - low), axis=dim)
            if (tap == MISSING).any():
                ids[(slice(None),) * dim + (tap == MISSING,)] = 0
            read.append(ids)
        return self.sets.unite_all(read)

    def where_read(self, other: Axis) -> Axis:
        """Keep what was read only where ``other`` has read something too, and the virtual part in padding."""
        entries = other.sets.entries
        if all(entries[a].real for a in set(other.ids.ravel().tolist())):
            return self
        # 2: has read the image; 1: padding only; 0: nothing at all.
        kinds = other.sets.map(other.ids, lambda a: 2 if entries[a].real else bool(entries[a].virtual))
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
            return Axis(self.sets, self.ids, self.dim, jump)
        if taps.shape == (1, length) and reads is None and (taps[0] == np.arange(length)).all():
            return self
        if self.ids.size > self.ids.shape[dim]:
            return Axis(self.sets, self._slid(dim, length, taps, reads), self.dim, jump)
        # A line of ids, as nearly always: rows and columns of a square image give the same, and share it.
        parts = self.ids.tobytes(), taps.tobytes(), None if reads is None else reads.tobytes()
        key = (*parts, length, len(taps), self.jump, dim == self.dim)
        line = self.sets.slides.get(key)
        if line is None:
            line = self.sets.slides[key] = self._slid(dim, length, taps, reads).ravel()
        ids = line.reshape([len(line) if d == dim else 1 for d in range(self.ids.ndim)])
        return Axis(self.sets, ids, self.dim, jump)

    def _slid(
        self, dim: int, length: int, taps: npt.NDArray[np.int64], reads: npt.NDArray[np.int64] | None
    ) -> Ids:
        ids = self._gathered(dim, length, taps)
        if reads is not None:
            real = self.sets.map(self._gathered(dim, length, reads), self.sets.read)
            ids = self.sets.unite(self.sets.map(ids, lambda a: self.sets.shifted(a, 0)), real)
        return compressed(ids) if length > 1 or ids.shape[dim] > 1 else ids

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
        return replace(self, dim=dim).renewed(ids)

    def renewed(self, ids: Ids) -> Axis:
        """New ids along the same dims, and the jump as it can be read from them."""
        axis = self.with_ids(compressed(ids))
        return replace(axis, jump=axis._measured_jump())

    def _measured_jump(self) -> Fraction:
        """The jump that most elements along ``dim`` agree on, the carried one if that is not to be had."""
        if self.dim is None or self.ids.shape[self.dim] < 2:
            return self.jump
        line = self.ids[tuple(slice(None) if d == self.dim else 0 for d in range(self.ids.ndim))]
        distinct, where = np.unique(line, return_inverse=True)
        entries = [self.sets.entries[a] for a in distinct.tolist()]
        lows = np.array([entry.low for entry in entries])[where]
        # The same number for the same virtual set at any place, -1 for none.
        numbers: dict[int, int] = {0: -1}
        shapes = np.array([numbers.setdefault(entry.virtual, len(numbers)) for entry in entries])[where]
        # After an upsampling by 2 only every second element moves. More than half may agree by chance on a
        # period that is not theirs, so the one that most of them agree on counts.
        best, agreement = self.jump, 0.5
        for period in dict.fromkeys([self.jump.denominator, *range(1, 9)]):
            first, second = shapes[:-period], shapes[period:]
            moves = (lows[period:] - lows[:-period])[(first == second) & (first >= 0)]
            if len(moves):
                values, votes = np.unique(moves, return_counts=True)
                move, share = int(values[votes.argmax()]), int(votes.max()) / len(first)
                if move and share > agreement:
                    best, agreement = Fraction(move, period), share
                if agreement == 1:
                    break
        return best


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
