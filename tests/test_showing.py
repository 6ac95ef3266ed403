"""How results show themselves: one line, a picture in a notebook, a dict that JSON holds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from erfattr import (
    MapSource,
    MapStatistics,
    compare_imbalance,
    corrected_imbalance,
    demo_model,
    estimate_phase_profile,
    fit_gaussian,
    receptive_fields,
    suggest_tiling,
)
from erfattr.metrics.grid_contrast import grid_contrast
from erfattr.metrics.statistics import StreamingStatistics


def statistics() -> MapStatistics:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.arange(40.0)[:, None], torch.arange(48.0)
    bell = torch.exp(-((y - 20) ** 2 + (x - 24) ** 2) / (2 * 9**2))
    stream = StreamingStatistics(groups=4)
    stream.update(bell * (0.5 + torch.rand(12, 40, 48, generator=generator)))
    return stream.result(MapSource("layer<b>", (1, 2), (5, 6), (20.0, 24.0), None, "relu", (40, 48)))


def small_fields() -> Any:
    return receptive_fields(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3)), 32)


RESULTS = {
    "statistics": statistics,
    "fit": lambda: fit_gaussian(statistics()),
    "estimate": lambda: corrected_imbalance(statistics()),
    "comparison": lambda: compare_imbalance(statistics(), statistics()),
    "phases": lambda: estimate_phase_profile(statistics(), 4),
    "grid": lambda: grid_contrast(statistics().mean, 4),
    "field": lambda: small_fields()["0"],
    "fields": small_fields,
    "tiling": lambda: suggest_tiling(nn.Conv2d(1, 1, 3, 2, 1), (40, 41), in_channels=1),
}


@pytest.mark.parametrize("name", RESULTS)
def test_one_line_a_picture_without_requests_and_a_dict(name: str) -> None:
    result = RESULTS[name]()
    line = repr(result)
    assert line.startswith(f"{type(result).__name__}(")
    assert len(line) <= 180
    assert "\n" not in line
    html = result._repr_html_()
    assert html.count("<img ") == 1
    assert 'src="data:image/png;base64,' in html
    assert "http" not in html
    assert "<b>" not in html.replace(f"<b>{type(result).__name__}</b>", "")  # names of layers stay text
    assert len(html) < 80_000
    json.dumps(result.to_dict(), allow_nan=False)


def test_statistics_say_layer_size_and_images() -> None:
    assert repr(statistics()) == "MapStatistics(layer<b> unit (1, 2), 40 x 48 pixels, 12 images)"
    found = statistics().to_dict()
    assert found["source"]["center"] == [20.0, 24.0]
    assert found["map_mean"] == pytest.approx(float(statistics().mean.mean()), rel=1e-12)
    assert "mean" not in found
    with_pixels = statistics().to_dict(pixels=True)
    assert with_pixels["mean"] == statistics().mean.tolist()
    one = StreamingStatistics()
    one.update(torch.ones(1, 2, 2))
    assert one.result().to_dict(pixels=True)["standard_error"] == [[None, None], [None, None]]


def test_network_says_its_last_layer_and_gives_all() -> None:
    fields = small_fields()
    assert repr(fields) == ("ReceptiveFields(4 layers, image 32 x 32, output: 7 x 7; .to_dict() has all)")
    assert fields == dict(fields)
    assert isinstance(fields, dict)
    assert fields.to_dict()["0"]["size"] == [3, 3]
    assert fields.to_dict()["0"]["center"] == [16.0, 16.0]
    assert repr(fields["0"]) == "ReceptiveField(0: 3 x 3, stride 2, centre unit at (16, 16), exact)"
    ax = fields.plot(_axes())
    assert ax.lines[0].get_ydata().tolist() == [3, 3, 7, 7]
    assert repr(type(fields)()) == "ReceptiveFields(no layers)"
    assert "<img" in type(fields)()._repr_html_()
    assert len(repr(receptive_fields(demo_model(), 64))) < 120


def test_field_is_drawn_with_its_box_and_centre() -> None:
    ax = small_fields()["0"].plot(_axes())
    image, box = ax.patches
    assert image.get_bbox().extents.tolist() == [-0.5, -0.5, 31.5, 31.5]
    assert box.get_bbox().extents.tolist() == [14.5, 14.5, 17.5, 17.5]
    assert [list(line.get_xdata()) for line in ax.lines] == [[16]]


def test_fit_is_drawn_alone_or_over_its_map() -> None:
    fit = fit_gaussian(statistics())
    ax = fit.plot(_axes())
    assert float(ax.images[0].get_array().max()) == pytest.approx(fit.height, rel=0.01)
    profile = fit.plot(_axes(), sensitivity_map=statistics().mean)
    assert not profile.images
    assert len(profile.lines) == 3


def test_index_is_drawn_with_its_error_and_floor() -> None:
    estimate = corrected_imbalance(statistics())
    ax = estimate.plot(_axes())
    assert ax.patches[0].get_height() == estimate.uncorrected
    (bars,) = ax.containers[1:]
    assert float(bars[0].get_ydata()[0]) == estimate.value
    assert repr(estimate) == f"Estimate({estimate})"


def test_tiling_is_drawn_with_one_tile_and_its_halo() -> None:
    tiling = RESULTS["tiling"]()
    assert repr(tiling) == "Tiling(halo 2 x 2, alignment 2 x 2, smallest tile 6 x 8, exact)"
    ax = tiling.plot(_axes())
    *_, kept, read = ax.patches
    assert kept.get_height() + 4 == read.get_height()
    large = suggest_tiling(nn.Conv2d(1, 1, 3, 2, 1), (400, 400), in_channels=1).plot(_axes())
    assert len(large.patches) <= 12 * 12 + 2
    assert tiling.to_dict() == json.loads(tiling.to_json())
    assert "select" not in tiling.to_dict()


def test_a_map_of_zeros_has_the_table_alone() -> None:
    stream = StreamingStatistics()
    stream.update(torch.zeros(3, 4, 4))
    html = stream.result()._repr_html_()
    assert "<img" not in html
    assert "3" in html


def test_matplotlib_is_imported_when_somebody_looks_and_pyplot_not_even_then() -> None:
    code = """
import sys, torch
from erfattr.metrics.statistics import StreamingStatistics
stream = StreamingStatistics()
stream.update(torch.rand(3, 4, 4))
result = stream.result()
repr(result), result.to_dict()
print("matplotlib" in sys.modules, "erfattr.report" in sys.modules)
result._repr_html_()
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False", "True False"]


def _axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()
