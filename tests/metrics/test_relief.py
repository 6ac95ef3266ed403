"""How strong each pixel is by itself: every mode from patterns known beforehand, and the noise held back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from erfattr.metrics.imbalance import local_mean
from erfattr.metrics.relief import relief
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics

PATTERN = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
CHECKERBOARD = PATTERN.repeat(8, 8)


def statistics(maps: Tensor, groups: int = 4) -> MapStatistics:
    stream = StreamingStatistics(groups)
    stream.update(maps)
    return stream.result()


def test_global_is_the_map_over_its_mean() -> None:
    values = torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    torch.testing.assert_close(relief(values, "global"), values.double() / 2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("mode", ["phase", "local", "global"])
def test_every_mode_gives_a_pattern_without_envelope_back(mode: Any) -> None:
    torch.testing.assert_close(
        relief(7 * CHECKERBOARD, mode, period=2), CHECKERBOARD / 2.25, rtol=1e-9, atol=0
    )


def test_local_leaves_the_envelope_and_global_does_not() -> None:
    # A bilinear slope: the mean over the windows around an inner pixel is the slope itself.
    rows, columns = torch.arange(1.0, 17.0).double(), torch.arange(3.0, 19.0).double()
    slope = rows[:, None] * columns
    inner = slice(1, -1)
    torch.testing.assert_close(
        relief(slope, "local", period=2)[inner, inner], torch.ones(14, 14).double(), rtol=1e-9, atol=0
    )
    assert relief(slope, "global").max() > 3
    whole = relief(slope * CHECKERBOARD, "phase", period=2)
    torch.testing.assert_close(whole, CHECKERBOARD / 2.25, rtol=1e-9, atol=0)


def test_local_is_one_where_the_map_knows_nothing() -> None:
    values = CHECKERBOARD.clone()
    values[:, 8:] = 0
    found = relief(values, "local", period=2)
    assert torch.equal(found[:, 9:], torch.ones(16, 7).double())
    assert torch.isfinite(found).all()


def test_rectangular_period() -> None:
    stripes = torch.tensor([[1.0, 3.0]]).repeat(6, 4)
    expected = torch.tensor([[0.5, 1.5]]).repeat(6, 4).double()
    torch.testing.assert_close(relief(stripes, "phase", period=(1, 2)), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(relief(stripes, "local", period=(1, 2)), expected, rtol=1e-9, atol=0)


def test_noise_is_held_back_by_wieners_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    stats = statistics(CHECKERBOARD + torch.rand(12, 16, 16, dtype=torch.float64, generator=generator))
    for mode, scale in (
        ("global", torch.full((16, 16), float(stats.mean.mean()), dtype=torch.float64)),
        ("local", local_mean(stats.mean, 2)),
    ):
        deviation = [float(r / m) - 1 for r, m in zip(stats.mean.flatten(), scale.flatten(), strict=True)]
        noise = [
            float(e / m) ** 2 for e, m in zip(stats.standard_error.flatten(), scale.flatten(), strict=True)
        ]
        true = max(0.0, sum(d * d - n for d, n in zip(deviation, noise, strict=True)) / 256)
        expected = [1 + d * true / (true + n) for d, n in zip(deviation, noise, strict=True)]
        found = relief(stats, mode, period=2)  # type: ignore[arg-type]
        torch.testing.assert_close(found.flatten().tolist(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("mode", ["phase", "local", "global"])
def test_without_noise_statistics_give_what_the_map_gives(mode: Any) -> None:
    stats = statistics(CHECKERBOARD.repeat(8, 1, 1))
    torch.testing.assert_close(
        relief(stats, mode, period=2), relief(CHECKERBOARD, mode, period=2), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("mode", ["phase", "local", "global"])
def test_a_map_that_is_all_noise_corrects_next_to_nothing(mode: Any) -> None:
    # One image has all the mass of each pixel: exponential noise of four images on a flat map.
    generator = torch.Generator().manual_seed(3)
    maps = -torch.rand(8, 64, 64, dtype=torch.float64, generator=generator).log()
    with_noise = relief(maps.mean(0), mode, period=4)
    held_back = relief(statistics(maps, groups=8), mode, period=4)
    # The factor is itself known from these pixels only (16 in a profile), so not all is taken.
    assert (held_back - 1).square().mean() < 0.25 * (with_noise - 1).square().mean()


def test_profile_repeats_exactly_at_another_size() -> None:
    found = relief(CHECKERBOARD, "phase", period=2, size=(6, 10))
    torch.testing.assert_close(found, (PATTERN / 2.25).repeat(3, 5), rtol=1e-9, atol=0)
    odd = relief(CHECKERBOARD[:15, :15], "phase", period=2)  # the map's own size need not be a multiple
    torch.testing.assert_close(odd, CHECKERBOARD[:15, :15] / 2.25, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ("a", {"period": 2}, TypeError, "sensitivity_map: expected a map"),
        (CHECKERBOARD[0], {"period": 2}, ValueError, "sensitivity_map: expected a map of shape"),
        (-CHECKERBOARD, {"period": 2}, ValueError, "sensitivity_map: expected no negative values"),
        (0 * CHECKERBOARD, {"mode": "global"}, ValueError, "and some positive ones"),
        (CHECKERBOARD * torch.nan, {"period": 2}, ValueError, "finite"),
        (CHECKERBOARD, {"mode": "fine", "period": 2}, ValueError, "mode: expected one of 'phase'"),
        (CHECKERBOARD, {}, ValueError, 'period: mode="phase" needs the total stride'),
        (CHECKERBOARD, {"mode": "local"}, ValueError, 'period: mode="local" needs the total stride'),
        (CHECKERBOARD, {"period": 0}, ValueError, "period: expected a positive integer"),
        (CHECKERBOARD, {"period": 2.0}, TypeError, "period: expected a positive integer"),
        (CHECKERBOARD, {"period": 17}, ValueError, "at least one period"),
        (CHECKERBOARD, {"mode": "local", "period": 17}, ValueError, "at least one period"),
        (CHECKERBOARD, {"mode": "global", "size": (8, 8)}, ValueError, "attributions of the map's size"),
        (CHECKERBOARD, {"period": 2, "size": (8, 7)}, ValueError, "expected the period .* to divide"),
        (CHECKERBOARD[:15], {"period": 2, "size": (8, 8)}, ValueError, "expected the period .* to divide"),
        (statistics(CHECKERBOARD[None]), {"mode": "global"}, ValueError, "at least 2 images, got 1"),
        (statistics(CHECKERBOARD[None]), {"period": 2}, ValueError, "at least 3 groups"),
    ],
)
def test_bad_input(values: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        relief(values, **options)
