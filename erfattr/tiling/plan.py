"""`Tiling`: how images are cut into tiles for a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from erfattr._showing import Shown
from erfattr.attr.selection import Select
from erfattr.tiling._tiles import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def minimum_tile(halo: tuple[int, int], alignment: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of the smallest tile: halo on both sides of one period that is kept.

    Where the image is no multiple of the period, its last tile is shorter by less than one: with one more
    it is no sliver that a network cannot take.
    """
    rows, columns = (
        2 * h + (a if n % a == 0 else 2 * a) for h, a, n in zip(halo, alignment, size, strict=True)
    )
    return rows, columns


# Of a row, that a picture shows.
_MOST_TILES = 12


@dataclass(frozen=True, repr=False)
class Tiling(Shown):
    """How to cut images into tiles for a network.

    A tile's kept part begins at a multiple of ``alignment`` and is that long, or a multiple; the network is
    given ``halo`` pixels more on each side, but for the sides that are the image's own border.

    Attributes:
        halo: (rows, columns) on each side, a multiple of ``alignment``.
        alignment: (rows, columns): tiles begin at multiples of this.
        minimum_tile: (rows, columns) of the smallest tile, halo included.
        exact: Whether stitched tiles equal the whole image: proven from the operators, and checked in
            float64.
        note: Why not, or what the halo leaves; may be empty.
        input_size: (H, W) of the image that it is for. It holds for images whose size leaves the same
            remainder when divided by ``alignment``.
        step: (rows, columns) of the output for ``alignment`` pixels.
        margins: ((above, below), (left, right)): how many pixels the worst unit really needs.
        coverage: Share of the effective receptive field inside the halo; 1.0: the halo is the theoretical.
        error: Of ``coverage`` below 1 what was measured on the images: the largest difference between tiles
            and whole image, relative to the largest value of the output.
        layer: The layer that is tiled, ``""`` for the output.
        select: Which of several tensors of it.

    Example:
        >>> from torch import nn
        >>> from erfattr import suggest_tiling
        >>> tiling = suggest_tiling(nn.Conv2d(1, 1, 5, padding=2), 64, in_channels=1)
        >>> tiling.halo, tiling.alignment, tiling.exact
        ((2, 2), (1, 1), True)
    """

    halo: tuple[int, int]
    alignment: tuple[int, int]
    minimum_tile: tuple[int, int]
    exact: bool
    note: str
    input_size: tuple[int, int]
    step: tuple[int, int]
    margins: tuple[tuple[int, int], tuple[int, int]]
    coverage: float = 1.0
    error: float | None = None
    layer: str = ""
    select: Select = field(default=None, repr=False)

    def _in_words(self) -> str:
        pairs = [" x ".join(map(str, pair)) for pair in (self.halo, self.alignment, self.minimum_tile)]
        exact = "exact" if self.exact else "not exact"
        return f"halo {pairs[0]}, alignment {pairs[1]}, smallest tile {pairs[2]}, {exact}"

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw tiles over the image, a dozen a row at most: what each keeps, and one with its halo.

        Args:
            ax: Where to draw; ``None`` for a new figure of pyplot.
            **options: Further arguments of the rectangles, such as ``linewidth``.

        Returns:
            The axes.
        """
        from erfattr.report.tiling_plot import plot_tiles

        spans = []
        for axis, tile in zip(self.axes(self.input_size), self.minimum_tile, strict=True):
            # Of a large image larger tiles, or there would be more lines than one can see.
            kept = -(-axis.length // (_MOST_TILES * axis.alignment)) * axis.alignment
            tiles = axis.tiles(max(tile, 2 * axis.halo + kept))
            spans.append([(found.start, found.stop, found.keep_from, found.keep_to) for found in tiles])
        rows, columns = spans
        return plot_tiles(rows, columns, self.input_size, ax, **{"title": self._in_words(), **options})

    def axes(self, size: Sequence[int]) -> tuple[Axis, Axis]:
        """Return how the two axes of an image of ``size`` (H, W) are cut.

        Raises:
            ValueError: the size lies otherwise to the network's strides than the one this was made for.
        """
        for name, length, mine, period in zip(
            ("height", "width"), size, self.input_size, self.alignment, strict=True
        ):
            if (length - mine) % period:
                raise ValueError(
                    f"image: expected a {name} that leaves {mine % period} when divided by {period}, as that "
                    f"of the image that the tiling was made for, got {length}; call suggest_tiling for that"
                )
        rows, columns = (
            Axis(int(length), *rest)
            for length, *rest in zip(size, self.halo, self.alignment, self.step, strict=True)
        )
        return rows, columns

    def with_halo(self, halo: tuple[int, int]) -> Tiling:
        """Return the same with another halo, which is exact only where it covers the margins."""
        for length, period in zip(halo, self.alignment, strict=True):
            if length < 0 or length % period:
                raise ValueError(f"halo: expected multiples of {self.alignment}, got {tuple(halo)}")
        covers = all(length >= max(margin) for length, margin in zip(halo, self.margins, strict=True))
        smallest = minimum_tile(halo, self.alignment, self.input_size)
        return replace(self, halo=halo, minimum_tile=smallest, exact=self.exact and covers)

    def to_json(self) -> str:
        """Return all but ``select`` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def to_dict(self) -> dict[str, Any]:
        """Return all but ``select``, as JSON can hold it."""
        found = Shown.to_dict(replace(self, select=None))
        del found["select"]
        return found
