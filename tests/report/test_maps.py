"""The figures and files of maps: what they show, and that they are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from erfattr import FeatureUnit, MapSource, MapStatistics, ModelOutput, SensitivityMaps, receptive_fields
from erfattr.report.map_report import MapReport, analyse_map
from erfattr.report.maps import draw_map, draw_maps, file_stem, write_maps


@pytest.fixture
def reports(resnet: nn.Module, images: Tensor) -> list[MapReport]:
    maps = SensitivityMaps(resnet, [FeatureUnit("layer3"), ModelOutput()]).attribute(images)
    fields = receptive_fields(resnet, (64, 64))
    return [analyse_map(maps[0], fields["layer3"]), analyse_map(maps[1], None, (32, 32))]


def test_map_without_a_gaussian_is_drawn_all_the_same() -> None:
    mean = torch.zeros(9, 9, dtype=torch.float64)
    mean[4, 4] = 1
    source = MapSource("block.2", (1, 2), (6, 6), None, None, "relu", (9, 9))
    report = analyse_map(MapStatistics(mean, mean / 10, 7, mean[None], (7,), source))
    assert report.fit is None
    assert len(draw_map(report).axes) >= 3


def test_figures_show_the_maps(reports: list[MapReport]) -> None:
    row = draw_maps(reports, "resnet18 (random initialisation, seed 5)")
    assert row.texts[0].get_text() == "resnet18 (random initialisation, seed 5)"
    assert draw_map(reports[0], "demo").texts[0].get_text() == "demo"
    shown = [axes.images[0].get_array() for axes in row.axes if axes.images and axes.get_title()]
    assert len(shown) == 2
    for drawn, report in zip(shown, reports, strict=True):
        mean = report.statistics.mean.numpy()
        # Drawn in the map's own unit or relative to its mean.
        assert drawn is not None
        np.testing.assert_allclose(np.asarray(drawn) / np.mean(drawn), mean / mean.mean(), rtol=1e-6)


def test_one_map_is_four_panels_two_by_two_at_the_width_of_a_page(reports: list[MapReport]) -> None:
    figure = draw_map(reports[0])
    assert figure.get_figwidth() * 25.4 == pytest.approx(170)
    grids = [ax.get_subplotspec() for ax in figure.axes]
    places = [(grid.rowspan.start, grid.colspan.start) for grid in grids if grid is not None]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]
    # Five images are too few, and the picture itself says so.
    assert any("5 images, median pixel" in text.get_text() for text in figure.axes[0].texts)


def test_files_hold_the_maps(reports: list[MapReport], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    files = write_maps(folder, reports, {"seed": 3})
    assert sorted(path.name for path in folder.iterdir()) == [
        "layer3.npy",
        "layer3.png",
        "layer3_standard_error.npy",
        "maps.png",
        "output.npy",
        "output.png",
        "output_standard_error.npy",
        "result.json",
    ]
    assert sorted(files) == sorted(folder.iterdir())
    np.testing.assert_array_equal(np.load(folder / "layer3.npy"), reports[0].statistics.mean.numpy())
    result = json.loads((folder / "result.json").read_text())
    assert result["record"] == {"seed": 3}
    assert result["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["maps"]["output"] == reports[1].numbers()


def test_errors(reports: list[MapReport], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reports: expected reports of different layers, got none"):
        write_maps(tmp_path, [], {})
    with pytest.raises(ValueError, match="layers: expected ones whose files have different names"):
        write_maps(tmp_path, [reports[0], reports[0]], {})
    with pytest.raises(TypeError, match="record: expected what JSON can hold"):
        write_maps(tmp_path, reports, {"model": nn.ReLU()})
    assert list(tmp_path.iterdir()) == []


def test_file_stem() -> None:
    source = MapSource("a/b c.0", None, None, None, None, "relu", (1, 1))
    assert file_stem(source) == "a_b_c.0"
