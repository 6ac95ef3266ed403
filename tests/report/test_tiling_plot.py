"""How tiles are drawn: what is kept covers the image, and one tile shows what it reads."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from erfattr.report.tiling_plot import plot_tiles

SPANS = [(0, 10, 0, 8), (6, 18, 8, 16), (14, 20, 16, 20)]


def test_kept_parts_cover_the_image_once_and_the_middle_tile_is_framed() -> None:
    ax = plot_tiles(SPANS, SPANS, (20, 20), Figure().subplots(), title="tiles")
    *cells, kept, read = ax.patches
    assert sum(cell.get_width() * cell.get_height() for cell in cells) == 400
    assert len(cells) == 9
    assert kept.get_bbox().extents.tolist() == [7.5, 7.5, 15.5, 15.5]
    assert read.get_bbox().extents.tolist() == [5.5, 5.5, 17.5, 17.5]
    assert ax.get_ylim() == (19.5, -0.5)
    assert ax.get_title() == "tiles"


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="rows: expected at least one, and one column, got 0 and 3"):
        plot_tiles([], SPANS, (20, 20), Figure().subplots())
