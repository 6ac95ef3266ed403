"""What the elements of one tensor have read: rows, columns, and which operators were not understood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._sets import Sets


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
        rows, columns = self.rows.where_read(self.columns), self.columns.where_read(self.rows)
        return (
            self
            if rows is self.rows and columns is self.columns
            else replace(self, rows=rows, columns=columns)
        )


def source(shape: Sequence[int]) -> Provenance:
    """The provenance of the input image itself, of shape (N, C, H, W)."""
    tables: dict[int, Sets] = {}

    def axis(dim: int) -> Axis:
        length = shape[dim]
        # One table for both axes of a square image: most of what is found for rows holds for columns too.
        sets = tables.setdefault(length, Sets())
        ids = np.array([sets.intern(index, 1, 1 << index, 0) for index in range(length)], dtype=np.int64)
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
