"""How well a map is known, and the forecast of how many images it takes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from erfattr.metrics.corrected_imbalance import corrected_imbalance
from erfattr.metrics.precision import images_needed, relative_error
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics


def statistics_of(maps: Tensor, groups: int = 8) -> MapStatistics:
    statistics = StreamingStatistics(groups=groups)
    statistics.update(maps)
    return statistics.result()


def noisy(count: int, seed: int = 0) -> Tensor:
    """Stripes of 1 and 2 under noise of a known size."""
    generator = torch.Generator().manual_seed(seed)
    stripes = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(12).expand(24, 24)
    noise = torch.rand(count, 24, 24, dtype=torch.float64, generator=generator)
    return stripes * (0.5 + noise)


# Closed forms


def test_the_median_pixel_counts_and_zeros_do_not() -> None:
    maps = torch.zeros(2, 3, 3, dtype=torch.float64)
    maps[:, 0] = torch.tensor([[1.0, 1.0, 2.0], [3.0, 3.0, 2.0]])  # errors 1 of 2, 1 of 2, and none
    assert relative_error(statistics_of(maps, groups=2)) == 0.5


def test_an_error_that_is_the_tolerance_asks_for_no_more() -> None:
    statistics = statistics_of(torch.tensor([1.0, 3.0])[:, None, None].expand(2, 4, 4), groups=2)
    assert [images_needed(statistics, tolerance) for tolerance in (1.0, 0.5, 0.25, 0.05)] == [1, 2, 8, 200]


# Oracle: that many images.


def test_the_forecast_of_few_images_is_what_many_show() -> None:
    wanted = images_needed(statistics_of(noisy(16)), 0.02)
    assert wanted is not None
    assert relative_error(statistics_of(noisy(wanted, seed=1))) == pytest.approx(0.02, rel=0.1)


def test_an_index_is_forecast_from_its_sampling_error_alone() -> None:
    statistics = statistics_of(noisy(16))
    estimate = corrected_imbalance(statistics, 2)
    assert estimate.shape_error > 0
    error = estimate.sampling_error / estimate.value
    assert relative_error(statistics, "L2") == error
    assert images_needed(statistics, error / 2, "L2") == 64


# Limit cases


def test_what_is_not_above_zero_has_no_relative_error() -> None:
    assert relative_error(statistics_of(torch.zeros(8, 4, 4))) == math.inf
    assert images_needed(statistics_of(torch.zeros(8, 4, 4))) is None
    flat = statistics_of(torch.ones(8, 24, 24))
    assert (relative_error(flat), images_needed(flat)) == (0, 0)
    assert images_needed(flat, of="L1") is None  # its index is zero


# Errors


def test_bad_arguments() -> None:
    statistics = statistics_of(noisy(8))
    with pytest.raises(TypeError, match=r"statistics: expected a MapStatistics, got a tensor"):
        relative_error(noisy(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"of: expected .*'L2'.*got 'L3'"):
        relative_error(statistics, "L3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tolerance: .*got 0"):
        images_needed(statistics, 0)
    with pytest.raises(ValueError, match=r"statistics: expected at least 2 images, got 1"):
        relative_error(statistics_of(noisy(1)))
    with pytest.raises(ValueError, match=r"expected at least 3 groups"):
        relative_error(statistics_of(noisy(2), groups=2), "L1")
