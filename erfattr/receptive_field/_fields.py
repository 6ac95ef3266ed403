"""From what a layer gave in a pass without data to its receptive field: where its rows and columns are."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._description import described
from erfattr.receptive_field._lines import Line
from erfattr.receptive_field._places import Places
from erfattr.receptive_field._provenance import Provenance
from erfattr.receptive_field._sets import Ids
from erfattr.receptive_field.field import Number, ReceptiveField
from erfattr.receptive_field.layout import Layout, has_places, layout_of


class LayerOutput(NamedTuple):
    """What a layer gave.

    Attributes:
        shape: Its shape; ``None`` if it is not one tensor.
        provenance: What its elements have read; ``None`` if it does not depend on the image.
        places: Where its elements lie, as far as it is known.
    """

    shape: tuple[int, ...] | None
    provenance: Provenance | None
    places: Places | None = None


class FieldReader:
    """Reads maps off the provenance of layers' outputs; layers that give the same are read once."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        # By the provenance and the places, which the pass keeps alive, and the shape.
        self._maps: dict[tuple[int, int, tuple[int, ...]], _Map | None] = {}
        self._fields: dict[tuple[int, int, tuple[int, ...]], ReceptiveField] = {}

    def field(self, name: str, output: LayerOutput) -> ReceptiveField | None:
        """Return the field of a layer's output; ``None`` if it has no map or does not depend on the image."""
        shape, found, places = output
        read = self._map(output)
        if read is None or shape is None or found is None:
            return None
        key = (id(found), id(places), shape)
        if key not in self._fields:
            self._fields[key] = self._read(name, read, found)
        return replace(self._fields[key], layer=name)

    def stride(self, output: LayerOutput) -> tuple[Number, Number] | None:
        """Return the stride alone of a layer's output whose operators are understood."""
        found = output.provenance
        read = self._map(output)
        if read is None or found is None or found.unknown:
            return None
        return read.stride(found, self._size)

    def _map(self, output: LayerOutput) -> _Map | None:
        shape, found, places = output
        if shape is None or found is None:
            return None
        key = (id(found), id(places), shape)
        if key not in self._maps:
            self._maps[key] = _map_of(shape, found, places)
        return self._maps[key]

    def _read(self, name: str, read: _Map, found: Provenance) -> ReceptiveField:
        rows, columns = (
            Line(read.ids(axis), axis.sets.entries, length)
            for axis, length in zip((found.rows, found.columns), self._size, strict=True)
        )
        return described(
            name,
            self._size,
            read.size,
            read.stride(found, self._size),
            (rows, columns),
            (rows.kind(), columns.kind()),
            method="operators",
            unknown=found.unknown,
            notes=read.notes(),
            layout=read.layout,
        )


class _Map(NamedTuple):
    """Where an output has its rows and columns.

    Attributes:
        shape: The output's shape.
        dims: The dims of rows and of columns; none of them for (N, K), one for both of tokens.
        layout: The layout that was proven; ``None`` where dims are only probable.
        guessed: Whether nothing shows that these are the dims.
    """

    shape: tuple[int, ...]
    dims: tuple[int, ...]
    layout: Layout | None
    guessed: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the map."""
        if self.layout is not None:
            return self.layout.grid
        return (self.shape[self.dims[0]], self.shape[self.dims[1]]) if self.dims else (1, 1)

    def notes(self) -> list[str]:
        """Return what there is to say about where the rows and columns are."""
        if self.layout is None:
            taken = "rows and columns are taken to be where maps have them, which is not proven"
            return [taken] if self.guessed else []
        return [] if self.layout.is_plain else [f"the output is {self.layout}"]

    def ids(self, axis: Axis) -> Ids:
        """Return what each unit has read along one axis: (H, W), or what broadcasts to it."""
        others = [dim for dim in range(len(self.shape)) if dim not in self.dims]
        ids = axis.sets.unite_along(axis.ids, others)
        if not self.dims:
            return ids.reshape(1, 1)
        if self.layout is None or not self.layout.is_tokens:
            first, second = self.dims
            ids = ids.reshape([ids.shape[dim] for dim in sorted(self.dims)])
            return ids if first < second else ids.T
        return ids.reshape(1, 1) if ids.size == 1 else self.layout.patches(ids.ravel())

    def stride(self, found: Provenance, size: tuple[int, int]) -> tuple[Number, Number]:
        """Return the pixels per step; the whole axis where the centre unit has no place of its own."""
        steps = (None, None) if self.layout is None else self.layout.steps
        vertical, horizontal = (
            self._step(axis, length) if step is None else _number(Fraction(step).limit_denominator(1 << 16))
            for axis, length, step in zip((found.rows, found.columns), size, steps, strict=True)
        )
        return vertical, horizontal

    def _step(self, axis: Axis, length: int) -> Number:
        ids = self.ids(axis)
        height, width = self.size
        centre = int(ids[min(height // 2, ids.shape[0] - 1), min(width // 2, ids.shape[1] - 1)])
        placed = bool(self.dims and axis.sets.entries[centre].virtual)
        return _number(axis.jump) if placed else length


def _number(step: Fraction) -> Number:
    return int(step) if step.denominator == 1 else float(step)


def _map_of(shape: tuple[int, ...], found: Provenance, places: Places | None) -> _Map | None:
    """Return the map in an output; ``None`` if it is none."""
    layout = layout_of(places, shape)
    if layout is not None:
        return _Map(shape, layout.order[2:3] if layout.is_tokens else layout.order[2:], layout)
    if len(shape) == 4:
        last = (found.rows.dim, found.columns.dim) == (1, 2)
        dims = (1, 2) if last else (2, 3)
        # One of the two may be gone (pooled to a single entry); what runs along others is no map of these.
        lines = () if places is None else zip((places.rows, places.columns), dims, strict=True)
        if all(vector is None or dim == own for line, own in lines for dim, vector in enumerate(line)):
            several = shape[dims[0]] * shape[dims[1]] > 1
            return _Map(shape, dims, None, guessed=several and not has_places(places))
        return None
    return _Map(shape, (), None) if len(shape) <= 2 else None
