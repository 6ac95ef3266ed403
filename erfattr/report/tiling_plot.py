"""Draw how an image is cut into tiles: what each keeps, and how much more one of them reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from erfattr.report._map_image import new_axes

Span = tuple[int, int, int, int]


def plot_tiles(
    rows: Sequence[Span],
    columns: Sequence[Span],
    size: tuple[int, int],
    ax: Axes | None = None,
    *,
    title: str | None = None,
    **style: Any,
) -> Axes:
    """Draw tiles over an image, and of the middle one what it reads: the kept part and its halo.

    Args:
        rows: for each row of tiles (start, stop, keep_from, keep_to): the pixels that are read and kept, from
            the first to the one behind the last.
        columns: likewise.
        size: (H, W) of the image.
        ax: where to draw; None for a new figure of pyplot.
        title: what to write above.
        **style: further arguments of the kept parts' rectangles.

    Returns:
        ``ax``, in pixels of the image, row 0 on top.

    Raises:
        ValueError: no row or no column.

    Example:
        >>> from matplotlib.figure import Figure
        >>> spans = [(0, 12, 0, 8), (4, 16, 8, 16)]
        >>> ax = plot_tiles(spans, spans, (16, 16), Figure().subplots())
        >>> ax.patches[-1].get_bbox().extents.tolist()
        [3.5, 3.5, 15.5, 15.5]
    """
    if not rows or not columns:
        raise ValueError(f"rows: expected at least one, and one column, got {len(rows)} and {len(columns)}")
    ax = new_axes() if ax is None else ax
    height, width = size
    for _, _, top, bottom in rows:
        for _, _, left, right in columns:
            look = {"facecolor": "0.93", "edgecolor": "0.45", "linewidth": 0.8, **style}
            ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **look))
    top, bottom, keep_top, keep_bottom = rows[len(rows) // 2]
    left, right, keep_left, keep_right = columns[len(columns) // 2]
    for name, color, place in (
        ("what it keeps", "#0072B2", (keep_left, keep_top, keep_right, keep_bottom)),
        ("what a tile reads", "#D55E00", (left, top, right, bottom)),
    ):
        x0, y0, x1, y1 = place
        edge = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.8)
        edge.set_label(name)
        ax.add_patch(edge)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xlabel("column x (pixel)")
    ax.set_ylabel("row y (pixel)")
    if title is not None:
        ax.set_title(title, fontsize="small", wrap=True)
    ax.legend(fontsize="small", loc="upper right")
    return ax
