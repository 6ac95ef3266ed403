"""The numbers of a map are those of the functions they come from."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from erfattr import FeatureUnit, MapSource, MapStatistics, ModelOutput, SensitivityMaps, receptive_fields
from erfattr.metrics.statistics import StreamingStatistics
from erfattr.report.map_report import MapReport, analyse_map


def gaussian_checkerboard(size: int = 96) -> Tensor:
    """Height 3, sigma 12 and 15, centre (40, 50), times a pattern of period 2 and mean 1."""
    y = torch.arange(size, dtype=torch.float64)[:, None]
    x = torch.arange(size, dtype=torch.float64)[None]
    envelope = 3 * torch.exp(-((y - 40) ** 2) / (2 * 12**2) - (x - 50) ** 2 / (2 * 15**2))
    return envelope * (1 + 0.25 * (1 - 2 * (y % 2)))


def statistics(mean: Tensor, center: tuple[float, float] | None = (40.0, 50.0)) -> MapStatistics:
    source = MapSource("block.2", (1, 2), (6, 6), center, None, "relu", (mean.shape[0], mean.shape[1]))
    return MapStatistics(mean, mean / 10, 7, mean[None], (7,), source)


@pytest.fixture
def reports(resnet: nn.Module, images: Tensor) -> list[MapReport]:
    maps = SensitivityMaps(resnet, [FeatureUnit("layer3"), ModelOutput()]).attribute(images)
    fields = receptive_fields(resnet, (64, 64))
    return [analyse_map(maps[0], fields["layer3"]), analyse_map(maps[1], None, (32, 32))]


def test_numbers_of_a_known_map() -> None:
    report = analyse_map(statistics(gaussian_checkerboard()), None, (2, 2))
    numbers = report.numbers()
    # The envelope curves within a period: (2 / 12)^2 = 3 % of the pattern at most.
    assert numbers["phase_contrast"] == pytest.approx(0.25, rel=1e-2)
    assert numbers["phase_profile"][0][0] == pytest.approx(1.25, rel=1e-2)
    assert numbers["gaussian_fit"]["sigma_y"] == pytest.approx(12, rel=1e-2)
    assert numbers["gaussian_fit"]["sigma_x"] == pytest.approx(15, rel=1e-2)
    assert numbers["median_relative_standard_error"] == pytest.approx(0.1, rel=1e-9)
    assert numbers["n_images"] == 7
    assert (numbers["layer"], numbers["unit"], numbers["measured_about"]) == ("block.2", [1, 2], [40.0, 50.0])
    ratio = numbers["imbalance"]["L1"] / numbers["imbalance"]["L1_relative_to_mean"]
    assert ratio == pytest.approx(numbers["map_mean"], rel=1e-9)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def test_output_is_measured_about_the_image_centre(reports: list[MapReport]) -> None:
    assert reports[0].center == (32.0, 32.0)  # unit (2, 2) of layer3, stride 16
    assert reports[1].center == (31.5, 31.5)
    assert reports[0].numbers()["theoretical_receptive_field"]["size"] == [211, 211]
    assert reports[0].period == (16, 16)
    assert reports[1].numbers()["theoretical_receptive_field"] is None


def test_map_without_a_gaussian_is_reported_all_the_same() -> None:
    mean = torch.zeros(9, 9, dtype=torch.float64)
    mean[4, 4] = 1
    report = analyse_map(statistics(mean, None))
    assert report.fit is None
    assert report.fit_error
    assert report.numbers()["gaussian_fit"] is None
    assert report.numbers()["gaussian_fit_error"] == report.fit_error


def test_infinite_standard_error_becomes_null() -> None:
    mean = gaussian_checkerboard()
    single = MapStatistics(
        mean, torch.full_like(mean, math.inf), 1, mean[None], (1,), statistics(mean).source
    )
    assert analyse_map(single).numbers()["median_relative_standard_error"] is None


def test_statistics_without_a_source_are_refused() -> None:
    mean = gaussian_checkerboard()
    with pytest.raises(ValueError, match="statistics: expected a source, got None"):
        analyse_map(MapStatistics(mean, mean, 1, mean[None], (1,)))


@pytest.mark.parametrize(("images", "seen"), [(8, 1), (8, 2), (16, 3)])
def test_maps_that_few_images_excite_are_measured_as_far_as_it_goes(images: int, seen: int) -> None:
    maps = torch.zeros(images, 64, 64, dtype=torch.float64)
    maps[:seen] = torch.rand(seen, 64, 64, generator=torch.Generator().manual_seed(0)) + 0.1
    streaming = StreamingStatistics(images)
    streaming.update(maps)
    source = MapSource("output", None, None, None, "predicted", "relu", (64, 64))
    report = analyse_map(streaming.result(source), None, (8, 8))
    assert report.profile is not None
    assert report.profile.shape == (8, 8)
    assert report.weak is None
    assert (report.phase is None) == (seen == 1)
    assert report.centroid_error is not None
    assert (report.centroid_error[0] == math.inf) == (seen == 1)
    assert report.numbers()["weak_phases"] is None
