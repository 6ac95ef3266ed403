"""Dead pixels and phase profiles under noise: closed forms, loops, false discoveries counted."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from erfattr import DeadPixelMap
from erfattr.metrics.imbalance import phase_contrast, phase_profile
from erfattr.metrics.significance import dead_pixels, estimate_phase_profile
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics


def statistics_of(maps: Tensor, groups: int = 16) -> MapStatistics:
    stream = StreamingStatistics(groups)
    stream.update(maps)
    return stream.result()


def gamma_maps(truth: Tensor, count: int, seed: int, concentration: float) -> Tensor:
    """Never negative, skewed, as strong as the map: mean ``truth``, variance truth^2 / concentration."""
    torch.manual_seed(seed)
    shape = torch.full((count, *truth.shape), concentration, dtype=torch.float64)
    return truth * torch._standard_gamma(shape) / concentration


def bell(size: int) -> Tensor:
    row = torch.exp(-((torch.arange(size) - (size - 1) / 2).double() ** 2) / (2 * (0.3 * size) ** 2))
    return torch.outer(row, row)


# Dead pixels: closed forms


@pytest.mark.parametrize("position", [(0, 0), (4, 6), (8, 8), (0, 5)])
def test_without_noise_the_ratio_decides(position: tuple[int, int]) -> None:
    one = torch.ones(9, 9, dtype=torch.float64)
    one[position] = 0.4
    stats = statistics_of(one.repeat(4, 1, 1))
    assert dead_pixels(stats, 0.5).nonzero().tolist() == [list(position)]
    assert dead_pixels(stats, 0.41, neighborhood=3).nonzero().tolist() == [list(position)]
    assert not dead_pixels(stats, 0.39, neighborhood=3).any()


def test_unused_rows_are_dead_and_pixels_beyond_the_receptive_field_are_not() -> None:
    # Rows 1, 0, 1, 0 on the left (a 1x1 convolution with stride 2), nothing on the right.
    one = torch.zeros(20, 40, dtype=torch.float64)
    one[::2, :20] = 1
    mask = dead_pixels(statistics_of(one.repeat(4, 1, 1)), neighborhood=3)
    expected = torch.zeros(20, 40, dtype=torch.bool)
    expected[1::2, :21] = True  # column 20 still has used neighbours
    expected[::2, 20] = True
    assert torch.equal(mask, expected)


def test_flat_map_has_none_to_rounding() -> None:
    assert not dead_pixels(statistics_of(torch.full((7, 9, 9), 0.1)), ratio=1.0).any()


# Dead pixels: independent oracle


def test_equals_the_test_written_out() -> None:
    size, side, ratio, fdr = 12, 5, 0.7, 0.1
    truth = 1 + 0.1 * bell(size)
    truth[2:11:4, 1:11:3] = 0.4
    stats = statistics_of(gamma_maps(truth, 37, 0, 0.8), 5)
    groups, n = len(stats.group_sizes), stats.n_images
    windows = {}
    for y in range(size):
        for x in range(size):
            windows[y, x] = [
                (v, u)
                for v in range(max(0, y - 2), min(size, y + 3))
                for u in range(max(0, x - 2), min(size, x + 3))
            ]

    def mean(values: list[float]) -> float:
        return sum(k * value for k, value in zip(stats.group_sizes, values, strict=True)) / n

    def variance(values: list[float]) -> float:
        return mean([(value - mean(values)) ** 2 for value in values]) / (groups - 1)

    difference, own, around = {}, {}, {}
    for (y, x), window in windows.items():
        values = [one[y, x].item() for one in stats.group_means]
        others = [[one[p].item() for p in window if p != (y, x)] for one in stats.group_means]
        means = [sum(some) / len(some) for some in others]
        difference[y, x] = mean(values) - ratio * mean(means)
        own[y, x], around[y, x] = variance(values), variance(means)
    p = {}
    for position, window in windows.items():
        noise = sum(own[q] for q in window if q != position) / (len(window) - 1)
        error = ratio * math.sqrt(noise + around[position])
        p[position] = norm.cdf(difference[position] / error)
    # Benjamini-Hochberg: the largest rank k with p_(k) <= k fdr / m.
    ranked = sorted(p, key=p.__getitem__)
    passing = [k for k, position in enumerate(ranked, 1) if p[position] <= k * fdr / len(ranked)]
    expected = sorted(ranked[: max(passing, default=0)])
    assert 3 <= len(expected) < 20
    # A rate three times as high would mark more, so the rate is seen.
    assert p[ranked[len(expected)]] <= 3 * (len(expected) + 1) * fdr / len(ranked)
    mask = dead_pixels(stats, ratio, fdr=fdr, neighborhood=side)
    assert [tuple(position) for position in mask.nonzero().tolist()] == expected


# Dead pixels: false discoveries and power


def shared_noise_maps(truth: Tensor, count: int, seed: int) -> Tensor:
    """Heavy-tailed from image to image, half of the pixels zero, and alike in neighbours."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, *(length + 2 for length in truth.shape), generator=generator)
    shared = 3 * torch.nn.functional.avg_pool2d(noise, 3, 1)[:, 0]
    return torch.randn(count, 1, 1, generator=generator).exp() * shared.relu() * truth


@pytest.mark.parametrize(
    ("level", "images", "share"), [(0.0, 200, 0.95), (0.2, 400, 0.8), (0.5, 100, 0.0), (0.5, 400, 0.0)]
)
def test_weak_pixels_show_and_those_at_the_boundary_do_not(level: float, images: int, share: float) -> None:
    weak = torch.zeros(32, 32, dtype=torch.bool)
    weak[1::4, 2::4] = True
    truth = torch.where(weak, level, 1.0)
    marked = [dead_pixels(statistics_of(shared_noise_maps(truth, images, seed), 16)) for seed in range(3)]
    assert not any((mask & ~weak).any() for mask in marked)
    found = sum(float((mask & weak).sum() / weak.sum()) for mask in marked) / 3
    assert found >= share if share else found == 0


def test_unread_pixels_of_a_strided_network_show() -> None:
    """A 1x1 convolution with stride 2 reads one pixel of four."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 8, 1, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1)),
        *(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)),
    )
    _, statistics = DeadPixelMap(model).attribute(torch.rand(64, 3, 64, 64), return_statistics=True)
    mask = dead_pixels(statistics)
    assert bool(mask[1::2].all())
    assert bool(mask[:, 1::2].all())
    # The outermost read rows are truly weak: at the lower border they receive a tenth of the mean.
    assert not mask[2:-2:2, 2:-2:2].any()


@pytest.mark.parametrize("concentration", [0.2, 5.0])
def test_noisy_balanced_maps_report_none(concentration: float) -> None:
    flat = torch.ones(48, 48, dtype=torch.float64)
    # With nothing to discover, the rate of false discoveries is the share of maps with any mark.
    maps_with_marks = sum(
        bool(dead_pixels(statistics_of(gamma_maps(flat, 64, seed, concentration)), 1.0).any())
        for seed in range(24)
    )
    assert maps_with_marks <= 4  # 0.05 * 24 = 1.2, and more than 4 come up once in 150 times
    assert not dead_pixels(statistics_of(gamma_maps(bell(48), 64, 0, concentration))).any()


def test_dead_pixels_are_found_with_few_false_ones_among_them() -> None:
    dead = torch.zeros(60, 60, dtype=torch.bool)
    dead[2::4, 2::4] = True
    truth = torch.where(dead, 0.2, 1.0).double()
    false, found = [], []
    for seed in range(5):
        mask = dead_pixels(statistics_of(gamma_maps(truth, 200, seed, 1.0)), 1.0)
        # Below the mean of a neighbourhood with dead pixels in it, the others are above it.
        false.append((mask & ~dead).sum().item() / max(int(mask.sum()), 1))
        found.append(mask[dead].double().mean().item())
    assert sum(false) / 5 <= 0.05
    assert min(found) > 0.95
    few = dead_pixels(statistics_of(gamma_maps(truth, 4, 0, 1.0)))
    assert few[dead].double().mean() < 0.05


def test_scale_does_not_matter() -> None:
    maps = gamma_maps(torch.where(torch.rand(20, 20) < 0.1, 0.1, 1.0).double(), 100, 0, 2.0)
    one = dead_pixels(statistics_of(maps))
    assert 10 < int(one.sum()) < 80
    assert torch.equal(one, dead_pixels(statistics_of(1e-12 * maps)))
    assert torch.equal(one.T, dead_pixels(statistics_of(maps.transpose(1, 2))))


# Phase profile


def test_images_that_agree_have_no_phase_error() -> None:
    one = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64).repeat(8, 8)
    estimate = estimate_phase_profile(statistics_of(one.repeat(6, 1, 1)), 2)
    expected = torch.tensor([[4, 8], [8, 16]], dtype=torch.float64) / 9
    torch.testing.assert_close(estimate.profile, expected, rtol=1e-12, atol=0)
    assert estimate.standard_error.max() < 1e-12
    # Deviations -5/9, -1/9, -1/9, 7/9: standard deviation sqrt(19) / 9.
    assert estimate.contrast == pytest.approx(math.sqrt(19) / 9, rel=1e-12)
    assert estimate.corrected_contrast == pytest.approx(math.sqrt(19) / 9, rel=1e-12)
    assert estimate.contrast_standard_error == pytest.approx(0, abs=1e-12)
    assert estimate.n_images == 6


def test_equals_jackknife_written_out() -> None:
    maps = gamma_maps(bell(24), 15, 3, 1.0)
    estimate = estimate_phase_profile(statistics_of(maps, 5), (4, 3))
    whole = phase_profile(maps.mean(0), (4, 3))
    torch.testing.assert_close(estimate.profile, whole, rtol=1e-9, atol=0)
    assert estimate.contrast == pytest.approx(phase_contrast(whole), rel=1e-9)
    left_out = torch.stack(
        [phase_profile(maps[[k for k in range(15) if k % 5 != g]].mean(0), (4, 3)) for g in range(5)]
    )
    # Five groups of equal size: (G - 1) / G times the sum of squares about the mean.
    variance = 4 / 5 * ((left_out - left_out.mean(0)) ** 2).sum(0)
    torch.testing.assert_close(estimate.standard_error, variance.sqrt(), rtol=1e-9, atol=0)
    pseudo = 5 * whole - 4 * left_out - 1
    pairs = [(pseudo[i] * pseudo[j]).mean().item() for i in range(5) for j in range(5) if i != j]
    square = sum(pairs) / 20
    assert estimate.corrected_contrast == pytest.approx(math.copysign(abs(square) ** 0.5, square), rel=1e-9)


def test_phase_errors_are_those_seen_in_repetitions() -> None:
    truth = bell(32) * torch.tensor([1.3, 0.7], dtype=torch.float64).repeat(16)
    drawn = [estimate_phase_profile(statistics_of(gamma_maps(truth, 48, s, 0.5), 8), 4) for s in range(40)]
    profiles = torch.stack([one.profile for one in drawn])
    stated = torch.stack([one.standard_error for one in drawn]).mean(0)
    # Each of 16 phases: 40 repetitions know a standard deviation to 11 %, their mean ratio to 3 %.
    assert (profiles.std(0) / stated).mean().item() == pytest.approx(1, abs=0.1)
    same = estimate_phase_profile(statistics_of(truth.repeat(3, 1, 1)), 4).contrast
    corrected = torch.tensor([one.corrected_contrast for one in drawn], dtype=torch.float64)
    assert corrected.mean().item() == pytest.approx(same, abs=3 * corrected.std().item() / 40**0.5)
    errors = torch.tensor([one.contrast_standard_error for one in drawn]).mean().item()
    assert errors == pytest.approx(corrected.std().item(), rel=0.3)


def test_noise_has_a_contrast_and_none_when_corrected() -> None:
    drawn = [estimate_phase_profile(statistics_of(gamma_maps(bell(48), 48, s, 0.5)), 8) for s in range(40)]
    assert min(one.contrast for one in drawn) > 0.025
    # In units of its error: about a third lies beyond one, a twentieth beyond two, on both sides of zero.
    z = torch.tensor([one.corrected_contrast / one.contrast_standard_error for one in drawn])
    assert 0.2 < (z.abs() > 1).float().mean() < 0.45
    assert (z.abs() > 2).float().mean() <= 0.1
    assert 0.3 < (z > 0).float().mean() < 0.7
    # In the squares noise averages out: 40 maps leave a third of the plain contrast at most.
    squares = sum(math.copysign(one.corrected_contrast**2, one.corrected_contrast) for one in drawn) / 40
    assert abs(squares) < 0.33 * min(one.contrast for one in drawn) ** 2


# Errors


def test_errors() -> None:
    maps = gamma_maps(bell(9), 8, 0, 1.0)
    stats = statistics_of(maps)
    with pytest.raises(TypeError, match="stats: expected a MapStatistics, got a tensor"):
        dead_pixels(stats.mean)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stats: expected a MapStatistics"):
        estimate_phase_profile(stats.mean, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 3 groups of images, got 1"):
        dead_pixels(statistics_of(maps[:1]))
    with pytest.raises(ValueError, match="at least 3 groups of images, got 2"):
        estimate_phase_profile(statistics_of(maps[:2]), 2)
    with pytest.raises(ValueError, match=r"ratio: expected a number in \(0, 1\], got 1.5"):
        dead_pixels(stats, 1.5)
    with pytest.raises(TypeError, match="ratio: expected a number"):
        dead_pixels(stats, "half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fdr: expected a number in \(0, 1\], got 0"):
        dead_pixels(stats, fdr=0)
    with pytest.raises(TypeError, match="neighborhood: expected a positive integer"):
        dead_pixels(stats, neighborhood=3.0)  # type: ignore[arg-type]
    for side in (1, 4, 11):
        with pytest.raises(ValueError, match=rf"neighborhood: expected an odd number of 3 to 9 .*got {side}"):
            dead_pixels(stats, neighborhood=side)
    with pytest.raises(ValueError, match="stats: expected no negative values"):
        dead_pixels(statistics_of(maps - 0.5))
    with pytest.raises(ValueError, match="not zero everywhere"):
        dead_pixels(statistics_of(torch.zeros(8, 9, 9)))
    with pytest.raises(ValueError, match="expected at least one period of 10 x 10"):
        estimate_phase_profile(stats, 10)
    with pytest.raises(TypeError, match="period: expected a positive integer"):
        estimate_phase_profile(stats, 2.0)  # type: ignore[arg-type]


# Caller untouched


def test_statistics_are_left_as_they_were() -> None:
    stats = statistics_of(gamma_maps(bell(12), 8, 0, 1.0))
    before = stats.mean.clone(), stats.group_means.clone()
    dead_pixels(stats)
    estimate_phase_profile(stats, 3)
    assert torch.equal(stats.mean, before[0])
    assert torch.equal(stats.group_means, before[1])
