"""Where tiles lie along one axis, and which part of each is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """One tile along one axis, in pixels of the image.

    Attributes:
        start: First pixel that the network is given.
        stop: The pixel behind its last one.
        keep_from: First pixel of the part that is kept.
        keep_to: The pixel behind the last one; of the last tile ``stop``.
        last: Whether the image ends here.
    """

    start: int
    stop: int
    keep_from: int
    keep_to: int
    last: bool


@dataclass(frozen=True)
class Axis:
    """How one axis of an image is cut.

    Attributes:
        length: Pixels of the image.
        halo: Pixels that a tile has beyond what is kept, on each side that is not the image's own border.
        alignment: A tile begins at a multiple of this.
        step: Positions of the output for so many pixels.
    """

    length: int
    halo: int
    alignment: int
    step: int

    def tile(self, keep_from: int, keep_to: int) -> Tile:
        """Return the tile of which this part is kept; it ends at the border where the image does."""
        start = max(0, keep_from - self.halo)
        last = keep_to >= self.length
        stop = self.length if last else min(self.length, keep_to + self.halo)
        return Tile(start, stop, keep_from, min(keep_to, self.length), last)

    def tiles(self, size: int) -> Iterator[Tile]:
        """Yield tiles of at most ``size`` pixels, or one of the whole axis where it is no longer.

        The last one begins as early as it may, so that it is not a sliver that the network cannot take.
        """
        if self.length <= size:
            yield self.tile(0, self.length)
            return
        kept = (size - 2 * self.halo) // self.alignment * self.alignment
        position = 0
        while self.length - max(0, position - self.halo) > size:
            yield self.tile(position, position + kept)
            position += kept
        early = -(-(self.length - size) // self.alignment) * self.alignment
        yield Tile(early, self.length, position, self.length, True)

    def in_output(self, pixel: int) -> int:
        """Return the position of the output that stands where an aligned pixel does."""
        return pixel // self.alignment * self.step
