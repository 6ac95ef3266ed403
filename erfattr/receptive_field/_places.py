"""Which dims of a tensor run along the image's rows, its columns and the images of the batch.

This is about where elements *lie*, not what they have read (`erfattr.receptive_field._provenance`): a token
keeps its place through attention, though it has then read the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Line = tuple["Vector | None", ...]
"""For every dim of a tensor what it adds to the place of an element; ``None``: nothing at all."""

Round = tuple[float, float]
"""Where places start, and how many pixels on they start again, of a map that was rolled."""

# A view that flattens more elements than this onto a labelled dim is no map any more.
_LONGEST = 1 << 22


@dataclass(frozen=True)
class Places:
    """Where the elements of a tensor lie: the place is a sum of what each dim's index adds.

    Sums are enough for all that views do: a flattened grid adds the row and the column of its patch by one
    dim, windows cut from a map add the window's corner by one dim and the place inside it by another.

    Lines without any vector say that the elements depend on the image and lie nowhere.

    Attributes:
        rows: In pixels of the input; NaN for an entry without a place (a class token).
        columns: The same for columns.
        images: The number of the image in the batch.
        rounds: Of rows and columns that were rolled, how to fold their places into the image; rolled rows go
            on evenly beyond it until then, so that windows cut from them are sums too.
    """

    rows: Line
    columns: Line
    images: Line
    rounds: tuple[Round | None, Round | None] = (None, None)

    @property
    def lines(self) -> tuple[Line, Line, Line]:
        """All three."""
        return self.rows, self.columns, self.images

    @property
    def known(self) -> bool:
        """Whether they say anything."""
        return any(vector is not None for line in self.lines for vector in line)

    def each(self, function: Callable[[Line], Line]) -> Places:
        """Return the places after ``function`` of each line."""
        rows, columns, images = (function(line) for line in self.lines)
        return replace(self, rows=rows, columns=columns, images=images)

    def fit(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of ``shape`` can have these places."""
        return all(
            len(line) == len(shape)
            and all(
                vector is None or len(vector) == length for vector, length in zip(line, shape, strict=True)
            )
            for line in self.lines
        )


def of_images(shape: Sequence[int]) -> Places:
    """Return the places in the input itself, (N, C, H, W)."""
    images, rows, columns = (np.arange(shape[dim], dtype=np.float64) for dim in (0, 2, 3))
    return Places((None, None, rows, None), (None, None, None, columns), (images, None, None, None))


def nowhere(ndim: int) -> Places:
    """Return the places of elements that depend on the image and lie nowhere in it."""
    return Places((None,) * ndim, (None,) * ndim, (None,) * ndim)


def folded(vector: Vector, around: Round | None) -> Vector:
    """Return places with those beyond the image folded into it, where rows went around."""
    return vector if around is None else around[0] + (vector - around[0]) % around[1]


def step_of(vector: Vector) -> float | None:
    """Return the constant step of a vector, 1 where it has one entry; ``None`` if the steps differ."""
    if len(vector) < 2:
        return None if np.isnan(vector).any() or not len(vector) else 1.0
    step = float(vector[1] - vector[0])
    # NaN compares as False: an entry without a place is no step.
    ends = vector[0] + step * (len(vector) - 1)
    even = (
        abs(ends - vector[-1]) <= 1e-6 * abs(step)
        and (np.abs(np.diff(vector) - step) <= 1e-6 * abs(step)).all()
    )
    return step if step and even else None


def main_dim(line: Line, other: Line) -> tuple[int, Fraction] | None:
    """Return the dim along which a line goes on in the largest even steps, and that step.

    Args:
        line: Of rows, say.
        other: Of columns, then: a dim along which both run is a flattened grid, which has no steps.
    """
    steps = {
        dim: step
        for dim, vector in enumerate(line)
        if vector is not None and len(vector) > 1 and other[dim] is None and (step := step_of(vector))
    }
    if not steps:
        return None
    dim = max(steps, key=lambda each: abs(steps[each]))
    return dim, Fraction(steps[dim]).limit_denominator(1 << 16)


def resampled(vector: Vector | None, start: float, step: float, length: int) -> Vector | None:
    """Return the places at the indices ``start + step * i``; beyond the ends they go on as before."""
    if vector is None:
        return None
    if start == 0 and step == 1 and length == len(vector):
        return vector
    if len(vector) > 1 and (vector == vector[0]).all():
        return np.full(length, vector[0])
    own = step_of(vector)
    return None if own is None else vector[0] + own * (start + step * np.arange(length))


def along(line: Line, dim: int, change: Callable[[Vector], Vector | None]) -> Line:
    """Return a line with the vector of ``dim`` changed; a sum of which a part gets lost is lost."""
    vector = line[dim]
    if vector is None:
        return line
    vector = change(vector)
    return (None,) * len(line) if vector is None else (*line[:dim], vector, *line[dim + 1 :])


def agreed(vectors: Sequence[Vector]) -> Vector | None:
    """Return the place of what is made of several elements: theirs, or the middle; ``None``: they differ."""
    first = vectors[0]
    different = [v for v in vectors if v is not first and not np.array_equal(v, first, equal_nan=True)]
    if not different:
        return first
    vectors = [first, *different]
    # A map and the same map in another order (rolled, say): the one in order says where their sum lies.
    steps = {id(vector): step for vector in vectors if (step := step_of(vector)) is not None}
    if steps:
        even = max(steps.values()) - min(steps.values()) < 1e-6
        vectors = [vector for vector in vectors if id(vector) in steps]
    else:
        gaps = np.isnan(first)
        even = all(
            (np.isnan(vector) == gaps).all() and np.ptp((vector - first)[~gaps]) < 1e-6
            for vector in different
        )
    # Neighbours are joined, as in the patch merging of a Swin transformer.
    return (np.min(vectors, axis=0) + np.max(vectors, axis=0)) / 2 if even else None


def together(vectors: Sequence[Sequence[Vector]]) -> Line:
    """Return the line of what is made of several elements, from the vectors that they have for every dim."""
    result = [agreed(own) if own else None for own in vectors]
    lost = any(own and vector is None for own, vector in zip(vectors, result, strict=True))
    return (None,) * len(result) if lost else tuple(result)


def united(operands: Sequence[tuple[Line, Sequence[int]]], shape: Sequence[int]) -> Line:
    """Return the line of what is computed element by element from broadcast operands, with their shapes."""
    lines: list[Line] = []
    for line, own in operands:
        extra = len(shape) - len(own)
        # One entry spread over many has lost its place.
        kept = [v if extra + d >= 0 and own[d] == shape[extra + d] else None for d, v in enumerate(line)]
        lines.append((None,) * extra + tuple(kept[max(0, -extra) :]))
    dims = [{dim for dim, vector in enumerate(line) if vector is not None} for line in lines]
    # A mean over windows, say, says less of places than the windows themselves.
    lines = [line for line, own in zip(lines, dims, strict=True) if not any(own < other for other in dims)]
    return together([[v for line in lines if (v := line[dim]) is not None] for dim in range(len(shape))])


def joined(operands: Sequence[tuple[Places, Sequence[int]]], shape: Sequence[int]) -> Places:
    """Return the places of what is computed element by element from broadcast operands."""
    lines = [united([(found.lines[k], own) for found, own in operands], shape) for k in range(3)]
    return made_of([found for found, _ in operands], lines)


def made_of(parts: Sequence[Places], lines: Sequence[Line]) -> Places:
    """Return places with the three ``lines``, of what is made of ``parts``."""
    rounds: list[Round | None] = [None, None]
    lines = list(lines)
    for k in (0, 1):
        found = {around for each in parts if (around := each.rounds[k]) is not None}
        if len(found) == 1:
            rounds[k] = found.pop()
        elif found:
            lines[k] = (None,) * len(lines[k])
    return Places(lines[0], lines[1], lines[2], (rounds[0], rounds[1]))


def rolled(found: Places, dim: int, shift: int) -> Places:
    """Return the places after a roll along a dim."""
    lines: list[Line] = []
    rounds: list[Round | None] = []
    for k, line in enumerate(found.lines):
        vector, around = line[dim], found.rounds[k] if k < 2 else None
        if vector is None or k == 2 or any(each is not None for each in without(line, [dim])):
            line = along(line, dim, lambda vector: np.roll(vector, shift))
        else:
            vector, around = _gone_round(vector, shift, around)
            line = (*line[:dim], vector, *line[dim + 1 :])
        lines.append(line)
        rounds.append(around)
    return Places(lines[0], lines[1], lines[2], (rounds[0], rounds[1]))


def _gone_round(vector: Vector, shift: int, around: Round | None) -> tuple[Vector, Round | None]:
    """Return places after a roll, evenly on where they can, and how to fold them into the image."""
    step = step_of(vector)
    if step is None or len(vector) < 2:
        return np.roll(vector, shift), around
    length = abs(step) * len(vector)
    start, period = around or (float(vector.min()) - abs(step) / 2, length)
    if abs(period - length) > 1e-6:
        return np.roll(vector, shift), around
    # The nearest of the places that are one: rolled by one row, the first row lies right before the image.
    first = start + (vector[-shift % len(vector)] - start + period / 2) % period - period / 2
    on = first + step * np.arange(len(vector), dtype=np.float64)
    back = start < on.min() and on.max() < start + period
    return on, None if back else (start, period)


def contracted(line: Line, dims: Sequence[int], *, centred: bool = True) -> Line:
    """Return a line after a sum over ``dims``, which stay; the sum lies in the middle of what it takes in."""
    gone = [vector for dim in dims if (vector := line[dim]) is not None]
    if any(np.isnan(vector).all() for vector in gone):
        return (None,) * len(line)
    result = [None if dim in dims else vector for dim, vector in enumerate(line)]
    return _moved_by(result, sum(float(np.nanmean(vector)) for vector in gone) if centred else 0.0)


def _moved_by(line: Sequence[Vector | None], offset: float) -> Line:
    """Add an offset to a line; one without vectors stays without."""
    first = next((dim for dim, vector in enumerate(line) if vector is not None), None)
    return tuple(
        vector + offset if dim == first and vector is not None and offset else vector
        for dim, vector in enumerate(line)
    )


def without(line: Line, dims: Sequence[int]) -> Line:
    """Return a line without the entries of ``dims``."""
    return tuple(vector for dim, vector in enumerate(line) if dim not in dims)


def viewed(found: Places, old: Sequence[int], new: Sequence[int]) -> Places:
    """Return the places after a view from shape ``old`` to shape ``new``."""
    old, new = tuple(old), tuple(new)
    on_map = [any(line[dim] is not None for line in (found.rows, found.columns)) for dim in range(len(old))]

    def change(line: Line) -> Line:
        line = _gathered(line)
        near = tuple(2 * (line[dim] is not None) + on_map[dim] for dim in range(len(old)))
        result: list[Vector | None] = []
        for before, after in view_runs(old, new, near):
            vectors = [line[dim] for dim in before]
            if all(vector is None for vector in vectors):
                result += [None] * len(after)
            elif len(before) == 1 and len(after) == 1:
                result += vectors
            else:
                sizes = [old[dim] for dim in before]
                parts = _split(_table(vectors, sizes), [new[dim] for dim in after])
                if parts is None:
                    return (None,) * len(new)
                result += parts
        return tuple(result)

    return found.each(change)


def _gathered(line: Line) -> Line:
    """Add what dims of one entry add to the place to a longer dim's vector, where there is one."""
    single = [vector for vector in line if vector is not None and len(vector) == 1]
    if not single or len(single) == sum(vector is not None for vector in line):
        return tuple(None if vector is None or np.isnan(vector).all() else vector for vector in line)
    longer = [None if vector is None or len(vector) == 1 else vector for vector in line]
    return _moved_by(longer, sum(float(vector[0]) for vector in single))


@lru_cache(maxsize=4096)
def view_runs(
    old: tuple[int, ...], new: tuple[int, ...], near: tuple[int, ...]
) -> tuple[tuple[range, range], ...]:
    """Cut two shapes of one size into the smallest runs of dims with equal products.

    Dims of one entry that come or go between two runs become a part of that with the higher ``near``, which
    has a number for every dim of ``old``.
    """
    long, longer = ([dim for dim, length in enumerate(shape) if length != 1] for shape in (old, new))
    spans: list[list[int]] = []
    i = j = 0
    while i < len(long):
        first_i, first_j = i, j
        left, right = old[long[i]], new[longer[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * old[long[i]], i + 1
            else:
                right, j = right * new[longer[j]], j + 1
        spans.append([long[first_i], long[i - 1] + 1, longer[first_j], longer[j - 1] + 1])

    runs: list[list[int]] = []
    at_old = at_new = 0
    for place in range(len(spans) + 1):
        behind = spans[place] if place < len(spans) else None
        end_old, end_new = (behind[0], behind[2]) if behind else (len(old), len(new))
        if end_old - at_old == end_new - at_new:
            runs += [
                [at_old + k, at_old + k + 1, at_new + k, at_new + k + 1] for k in range(end_old - at_old)
            ]
        elif not spans:
            runs.append([at_old, end_old, at_new, end_new])
        elif behind is None or (place and max(near[slice(*runs[-1][:2])]) > max(near[slice(*behind[:2])])):
            runs[-1][1], runs[-1][3] = end_old, end_new
        else:
            behind[0], behind[2] = at_old, at_new
        if behind:
            runs.append(behind)
            at_old, at_new = behind[1], behind[3]
    return tuple((range(a, b), range(c, d)) for a, b, c, d in runs)


def _table(vectors: Sequence[Vector | None], sizes: Sequence[int]) -> Vector | None:
    """Add the vectors of several dims into a table; ``None`` if it would be too large."""
    if np.prod(sizes) > _LONGEST:
        return None
    table: Vector = np.zeros(sizes)
    for dim, vector in enumerate(vectors):
        if vector is not None:
            table = table + vector.reshape([-1 if k == dim else 1 for k in range(len(sizes))])
    return table


def _split(table: Vector | None, sizes: Sequence[int]) -> list[Vector | None] | None:
    """Write a table, in another shape, as a sum of one vector for each dim; ``None`` if it is no such sum."""
    if table is None:
        return None
    table = table.reshape(sizes)
    if table.ndim == 1:
        return [table]
    if np.isnan(table).any():
        return _split_with_gaps(table)
    corner = float(table.flat[0])
    edges = []
    total: Vector = np.full(table.shape, corner)
    for dim in range(table.ndim):
        edge: Vector = table[tuple(slice(None) if d == dim else 0 for d in range(table.ndim))] - corner
        edges.append(edge)
        total = total + edge.reshape([-1 if d == dim else 1 for d in range(table.ndim)])
    if not np.allclose(total, table, rtol=0, atol=1e-6):
        return None
    varying = [dim for dim, edge in enumerate(edges) if edge.any()]
    if not varying:
        # The same everywhere: the only row of a map, or the only image. Its dim has one entry.
        varying = [*(dim for dim in range(table.ndim) if table.shape[dim] == 1), 0][:1]
    # In equal shares: of the places of queries and of keys, which both begin there, neither is moved.
    return [edge + corner / len(varying) if dim in varying else None for dim, edge in enumerate(edges)]


def _split_with_gaps(table: Vector) -> list[Vector | None] | None:
    """The same where some indices of the dims (those of class tokens) have no place."""
    gaps = np.isnan(table)
    kept = []
    for dim in range(table.ndim):
        others = tuple(d for d in range(table.ndim) if d != dim)
        kept.append(np.flatnonzero(~gaps.all(axis=others)))
    inner = table[np.ix_(*kept)]
    if not inner.size or np.isnan(inner).any():
        return None
    result = _split(inner, inner.shape)
    if result is None:
        return None
    for dim, indices in enumerate(kept):
        if len(indices) < table.shape[dim]:
            own, grown = result[dim], np.full(table.shape[dim], np.nan)
            grown[indices] = 0 if own is None else own
            result[dim] = grown
    return result
