"""What a tiling says of itself, and how it cuts an axis."""

from __future__ import annotations

import json

import pytest
from torch import nn

from erfattr import Tiling, suggest_tiling
from erfattr.tiling._tiles import Axis


def tiling() -> Tiling:
    return suggest_tiling(nn.Conv2d(1, 1, 3, stride=2, padding=1), (40, 41), in_channels=1)


def test_with_less_halo_it_is_not_exact() -> None:
    less = tiling().with_halo((0, 2))
    assert (tiling().exact, less.exact, less.minimum_tile) == (True, False, (2, 8))
    assert tiling().with_halo((4, 2)).exact
    with pytest.raises(ValueError, match=r"halo: expected multiples of \(2, 2\), got \(1, 2\)"):
        tiling().with_halo((1, 2))


def test_json_holds_what_is_needed() -> None:
    said = json.loads(tiling().to_json())
    assert (said["halo"], said["alignment"], said["exact"], said["margins"]) == (
        [2, 2], [2, 2], True, [[1, 0], [1, 0]],
    )  # fmt: skip


def test_holds_for_sizes_of_the_same_remainder() -> None:
    rows, columns = tiling().axes((400, 7))
    assert (rows.length, columns.length) == (400, 7)
    with pytest.raises(ValueError, match="width that leaves 1 when divided by 2"):
        tiling().axes((40, 40))


@pytest.mark.parametrize("length", range(1, 70))
@pytest.mark.parametrize(("halo", "alignment", "size"), [(4, 4, 12), (4, 4, 20), (0, 3, 7), (6, 2, 14)])
def test_every_pixel_is_kept_once(length: int, halo: int, alignment: int, size: int) -> None:
    axis = Axis(length, halo, alignment, 1)
    tiles = list(axis.tiles(size // alignment * alignment))
    kept = [pixel for tile in tiles for pixel in range(tile.keep_from, tile.keep_to)]
    assert kept == list(range(length))
    for tile in tiles:
        assert tile.start % alignment == 0
        assert tile.stop - tile.start <= max(size, 1)
        assert tile.start == 0 or tile.keep_from - tile.start >= halo
        assert tile.stop == length or tile.stop - tile.keep_to >= halo
    assert [tile.last for tile in tiles] == [False] * (len(tiles) - 1) + [True]
