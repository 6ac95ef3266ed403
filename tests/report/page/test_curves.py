"""The chart of sizes against depth: places by hand."""

from __future__ import annotations

import pytest

from erfattr.report.page.curves import HEIGHT, WIDTH, depth_chart
from erfattr.report.page.network import NetworkPage


def test_points_stand_where_their_sizes_are(small_page: NetworkPage) -> None:
    assert isinstance(small_page.fields, dict)
    chart = depth_chart(small_page.fields, small_page.measured.values())
    assert chart is not None
    trf, half, most = chart.curves
    assert [curve.kind for curve in chart.curves] == ["trf", "half", "most"]
    assert [point.words.partition(":")[0] for point in trf.points] == ["first", "relu", "second"]
    # The axis is one of powers of two: 3 and 7 pixels, and the ticks of 2 and 4 between.
    heights = {words: height for height, words in chart.ticks}
    assert heights["2"] > trf.points[0].y > heights["4"]
    assert heights["4"] > trf.points[2].y > heights["8"]
    assert trf.points[0].x < trf.points[1].x < trf.points[2].x <= WIDTH
    assert 0 < trf.points[2].y < HEIGHT
    # Effective sizes of a layer stand below its theoretical one, at its place.
    assert [point.x for point in half.points] == [trf.points[0].x, trf.points[2].x]
    assert all(h.y >= m.y >= t.y for h, m, t in zip(half.points, most.points, trf.points[::2], strict=True))


def test_words_say_what_the_chart_shows(small_page: NetworkPage) -> None:
    assert isinstance(small_page.fields, dict)
    chart = depth_chart(small_page.fields, small_page.measured.values())
    assert chart is not None
    assert chart.words.startswith("3 layers; the theoretical field ends at 7 x 7 pixels. ")
    assert "second, unit (6, 6): 7 px hold 99 % of the mass" in chart.words


def test_no_layers_no_chart() -> None:
    assert depth_chart({}, []) is None


def test_path_is_what_a_polyline_reads(small_page: NetworkPage) -> None:
    assert isinstance(small_page.fields, dict)
    chart = depth_chart(small_page.fields, [])
    assert chart is not None
    (trf,) = chart.curves
    numbers = [tuple(map(float, pair.split(","))) for pair in trf.path.split()]
    assert numbers == [(pytest.approx(p.x, abs=0.05), pytest.approx(p.y, abs=0.05)) for p in trf.points]
