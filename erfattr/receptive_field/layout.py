"""Where the rows, columns and channels of a layer's output lie: (N, C, H, W), (N, H, W, C) or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from erfattr.receptive_field._places import Line, Places, Vector, folded, step_of


@dataclass(frozen=True)
class Layout:
    """How the output of a layer is a feature map.

    Attributes:
        order: For each of images, channels, rows and columns the dim of the output that runs along it. Of
            tokens, rows and columns are the same dim.
        grid: (H, W) of the map.
        prefix: Number of entries before the patches (class and register tokens).
        tokens: For each patch, row by row, its index in the dim of tokens; ``None`` where the output is a
            map, or the tokens lie in that order behind the prefix.
        found: How the layout is known, in words.
        by_contract: Whether it is only known by the kind of the layer, not for its input.
        centers: Of the rows and of the columns the pixel that the first one is centred on, and the step;
            ``None`` where nothing has followed them, or they are in no regular order.
    """

    order: tuple[int, int, int, int]
    grid: tuple[int, int]
    prefix: int = 0
    tokens: tuple[int, ...] | None = None
    found: str = "traced"
    by_contract: bool = False
    centers: tuple[tuple[float, float], tuple[float, float]] | None = None

    @property
    def is_tokens(self) -> bool:
        """Whether rows and columns are flattened into one dim."""
        return self.order[2] == self.order[3]

    @property
    def is_plain(self) -> bool:
        """Whether the output is (N, C, H, W) as it is."""
        return self.order == (0, 1, 2, 3)

    def __str__(self) -> str:
        if not self.is_tokens:
            names = dict(zip(self.order, "NCHW", strict=True))
            return f"({', '.join(names[dim] for dim in range(4))}), {self.found}"
        height, width = self.grid
        names = dict(zip(self.order[:3], "NCL", strict=True))
        shape = ", ".join(names[dim] for dim in range(3))
        before = f"{self.prefix} prefix + " if self.prefix else ""
        return f"({shape}) tokens, {before}{height} x {width} grid, {self.found}"

    def center(self, unit: tuple[int, int]) -> tuple[float, float] | None:
        """Return the pixel (y, x) that a unit is centred on; ``None`` where it is not known."""
        if self.centers is None:
            return None
        (y, down), (x, right) = self.centers
        return y + down * unit[0], x + right * unit[1]

    def to_spatial(self, output: Tensor) -> Tensor:
        """Return an output of this layout as (N, C, H, W)."""
        if self.is_plain:
            return output
        if not self.is_tokens:
            return output.permute(self.order)
        tokens = output.permute(self.order[:3])
        if self.tokens is None:
            tokens = tokens[:, :, self.prefix : self.prefix + self.grid[0] * self.grid[1]]
        else:
            tokens = tokens[:, :, torch.tensor(self.tokens, device=output.device)]
        return tokens.reshape(*tokens.shape[:2], *self.grid)

    @property
    def steps(self) -> tuple[float | None, float | None]:
        """Pixels from one row to the next and from one column to the next; ``None`` where not known.

        Of a single row nothing shows how far away the next one would be.
        """
        if self.centers is None:
            return None, None
        (_, down), (_, right) = self.centers
        return down if self.grid[0] > 1 else None, right if self.grid[1] > 1 else None

    def patches(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return one value for each token as (H, W)."""
        if self.tokens is not None:
            return values[list(self.tokens)].reshape(self.grid)
        return values[self.prefix : self.prefix + self.grid[0] * self.grid[1]].reshape(self.grid)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an output of ``shape`` can have this layout."""
        if self.is_tokens:
            needed = self.prefix + self.grid[0] * self.grid[1]
            return len(shape) == 3 and shape[self.order[2]] >= needed
        return len(shape) == 4


def layout_of(places: Places | None, shape: Sequence[int]) -> Layout | None:
    """Return the layout of an output whose elements lie at ``places``; ``None`` if it is no map."""
    if places is None:
        return None
    rows, columns = _dims(places.rows), _dims(places.columns)
    if len(rows) != 1 or len(columns) != 1:
        return None
    (row,), (column,) = rows, columns
    down, right = places.rows[row], places.columns[column]
    if down is None or right is None:
        return None
    down, right = folded(down, places.rounds[0]), folded(right, places.rounds[1])
    if row != column:
        return _map_layout(places, shape, (row, column), (down, right))
    return _token_layout(places, shape, row, (down, right))


def _dims(line: Line) -> list[int]:
    """The dims that a line runs along; what is the same along a dim is only the rest of another's sum."""
    known = {dim: vector for dim, vector in enumerate(line) if vector is not None}
    # NaN is not its equal: a dim with entries without a place is one that the line runs along.
    return [dim for dim, vector in known.items() if (vector != vector[:1]).any()] or list(known)


def _images_dim(places: Places, shape: Sequence[int], taken: set[int]) -> int | None:
    """The dim that the images of the batch run along, each once and in order; ``None`` if there is none."""
    free = [dim for dim in range(len(shape)) if dim not in taken]
    known = {dim: vector for dim, vector in enumerate(places.images) if vector is not None}
    running = [dim for dim, vector in known.items() if len(np.unique(vector[~np.isnan(vector)])) > 1]
    if running:
        in_order = np.array_equal(known[running[0]], np.arange(shape[running[0]]))
        return running[0] if len(running) == 1 and running[0] in free and in_order else None
    if not known:  # lost: they are where they came in
        return 0 if 0 in free else None
    # One image. Where its dim was joined with another, it lies along that one.
    single = [dim for dim in free if shape[dim] == 1]
    return next((dim for dim in single if dim in known), single[0] if single else None)


def _map_layout(
    places: Places, shape: Sequence[int], dims: tuple[int, int], vectors: tuple[Vector, Vector]
) -> Layout | None:
    steps = step_of(vectors[0]), step_of(vectors[1])
    images = _images_dim(places, shape, set(dims))
    if len(shape) != 4 or images is None:
        return None
    (channels,) = {0, 1, 2, 3} - {images, *dims}
    # Rows in another order (turned over, or two maps joined) are rows all the same.
    centers = None
    if steps[0] is not None and steps[1] is not None:
        centers = (float(vectors[0][0]), steps[0]), (float(vectors[1][0]), steps[1])
    return Layout((images, channels, *dims), (shape[dims[0]], shape[dims[1]]), centers=centers)


def _token_layout(
    places: Places, shape: Sequence[int], dim: int, vectors: tuple[Vector, Vector]
) -> Layout | None:
    images = _images_dim(places, shape, {dim})
    if len(shape) != 3 or images is None:
        return None
    (channels,) = {0, 1, 2} - {images, dim}
    known = np.flatnonzero(~(np.isnan(vectors[0]) | np.isnan(vectors[1])))
    if not len(known):
        return None
    ys, i = np.unique(np.round(vectors[0][known], 6), return_inverse=True)
    xs, j = np.unique(np.round(vectors[1][known], 6), return_inverse=True)
    down, right = step_of(ys), step_of(xs)
    if len(ys) * len(xs) != len(known) or down is None or right is None:
        return None
    order = np.full((len(ys), len(xs)), -1)
    order[i, j] = known
    if (order < 0).any():
        return None  # two patches at one place
    tokens = order.ravel()
    prefix = int(tokens[0])
    in_order = bool((tokens == prefix + np.arange(len(tokens))).all())
    return Layout(
        (images, channels, dim, dim),
        (len(ys), len(xs)),
        prefix if in_order else 0,
        None if in_order else tuple(tokens.tolist()),
        centers=((float(ys[0]), down), (float(xs[0]), right)),
    )


def has_places(places: Places | None) -> bool:
    """Whether anything is known of rows or columns."""
    return places is not None and any(v is not None for v in (*places.rows, *places.columns))


def why_no_layout(places: Places | None, shape: Sequence[int]) -> str:
    """Return in words why an output whose elements lie at ``places`` is no map."""
    if len(shape) < 3:
        return "no dims are left for rows and columns"
    if not has_places(places) or places is None:
        return "nothing shows which of its dims are rows and columns"
    rows, columns = _dims(places.rows), _dims(places.columns)
    if len(rows) > 1 or len(columns) > 1:
        return "its rows and columns run along several dims, as those of windows or of attention weights do"
    if not rows or not columns:
        return f"it has no {'columns' if rows else 'rows'} any more"
    if len(shape) not in (3, 4) or (len(shape) == 4 and rows == columns):
        return "its patches are split over heads or other dims"
    if _images_dim(places, shape, {*rows, *columns}) is None:
        return "no dim of it runs along the images, each once and in order"
    return "its rows and columns are in no regular order"
