"""Corrected imbalance against the formula written out, known truths and known noise."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from erfattr.imbalance import imbalance_index
from erfattr.noise import Comparison, Estimate, compare_imbalance, corrected_imbalance
from erfattr.statistics import MapStatistics, StreamingStatistics

COUNTS = (25, 50, 100, 200, 400, 800, 1600)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def statistics_of(maps: Tensor, groups: int = 16) -> MapStatistics:
    stream = StreamingStatistics(groups)
    stream.update(maps)
    return stream.result()


def statistics_of_groups(means: Tensor, sizes: tuple[int, ...]) -> MapStatistics:
    weights = torch.tensor(sizes, dtype=torch.float64)[:, None, None]
    mean = (weights * means).sum(0) / sum(sizes)
    return MapStatistics(mean, torch.full_like(mean, math.nan), sum(sizes), means, sizes)


def random_maps(count: int, height: int = 5, width: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, height, width, dtype=torch.float64, generator=generator(seed)) ** 3


def checkerboard(size: int, stages: int = 5) -> Tensor:
    """Uses of pixels by a chain of 3x3 stride-2 convolutions, weakened to an L1 of 0.085, under a bell."""
    uses = torch.ones(size, dtype=torch.float64)
    for _ in range(stages):
        wider = torch.zeros(2 * len(uses) + 3, dtype=torch.float64)
        for offset in range(3):
            wider[offset : offset + 2 * len(uses) : 2] += uses
        uses = wider
    row = uses[64 : 64 + size]
    relief = torch.outer(row, row) / torch.outer(row, row).mean() - 1
    bell = torch.exp(-((torch.arange(size) - (size - 1) / 2).double() ** 2) / (2 * (0.27 * size) ** 2))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        truth = torch.outer(bell, bell) * (1 + middle * relief)
        low, high = (middle, high) if imbalance_index(truth, 1, "mean") < 0.085 else (low, middle)
    return truth / truth.mean()


def noisy(truth: Tensor, images: int, seed: int, kind: str, groups: int = 16) -> MapStatistics:
    """Group means of images whose index at 100 images is 2.4 times that of the checkerboard or more."""
    sizes = tuple(size for size in (len(range(g, images, groups)) for g in range(groups)) if size)
    torch.manual_seed(seed)
    maps = []
    for size in sizes:
        if kind == "gaussian":
            maps.append(truth + 1.65 * torch.randn(truth.shape, dtype=torch.float64) / math.sqrt(size))
        else:  # the mean of gamma variables is one: skewed, never negative, as strong as the map
            concentration = torch.full(truth.shape, 0.2 * size, dtype=torch.float64)
            maps.append(truth * torch._standard_gamma(concentration) / (0.2 * size))
    return statistics_of_groups(torch.stack(maps), sizes)


# Closed forms


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("normalize", ["mean", "none"])
@pytest.mark.parametrize("groups", [3, 4, 16])
def test_images_that_agree_give_the_index_itself(order: int, normalize: str, groups: int) -> None:
    one = random_maps(1)
    estimate = corrected_imbalance(statistics_of(one.repeat(20, 1, 1), groups), order, normalize)
    expected = imbalance_index(one[0], order, normalize).item()
    assert estimate.value == pytest.approx(expected, rel=1e-9)
    assert estimate.uncorrected == pytest.approx(expected, rel=1e-9)
    assert estimate.standard_error == pytest.approx(0, abs=1e-6 * expected)
    assert estimate.noise_floor == pytest.approx(0, abs=1e-9 * expected)
    assert (estimate.n_images, estimate.order, estimate.normalize) == (20, order, normalize)


def test_noise_floor_of_gaussian_noise() -> None:
    # Differences of independent pixels: variance 2 sigma^2 / N, mean absolute value 2 sigma / sqrt(pi N).
    sigma, images = 0.5, 60
    maps = 10 + sigma * torch.randn(images, 100, 100, dtype=torch.float64, generator=generator(1))
    flat = corrected_imbalance(statistics_of(maps), normalize="none")
    assert flat.noise_floor == pytest.approx(2 * sigma / math.sqrt(math.pi * images), rel=0.01)
    # A flat map scores its noise floor, a structured one with the same noise has the same floor.
    assert flat.uncorrected == pytest.approx(flat.noise_floor, rel=0.02)
    pattern = 5.0 * ((torch.arange(100)[:, None] + torch.arange(100)) % 2)  # every step is 5 in size
    structured = corrected_imbalance(statistics_of(maps + pattern), normalize="none")
    assert structured.noise_floor == pytest.approx(flat.noise_floor, rel=0.01)
    assert structured.value == pytest.approx(5, rel=0.01)


def test_opposite_images_cancel_in_the_mean_and_give_a_negative_square() -> None:
    # Groups 0 and 1 differ by +s and -s, group 2 by 0: V = (s * -s + 0 + 0) / 3, the value is negative.
    s = torch.tensor([0.5, -0.5, 0.5, -0.5], dtype=torch.float64)
    stats = statistics_of(torch.stack([1 + s, 1 - s, torch.ones(4).double()])[:, None, :].repeat(1, 4, 1), 3)
    # Steps of 1 in half of the terms (along rows): mean square 1/2, so V = -1/6; taken as Gaussian.
    estimate = corrected_imbalance(stats)
    assert estimate.value == pytest.approx(-math.sqrt(2 / math.pi / 6), rel=1e-9)
    assert estimate.uncorrected == 0.0


# Independent oracle: the definition with loops over pairs, quadruples and replicates


def literal_square(means: Tensor, sizes: list[int], order: int, trust: float) -> tuple[float, float]:
    """Signed square of the normalised index, and the measured kurtosis."""
    n = sum(sizes)
    mean = sum(m * k for m, k in zip(means, sizes, strict=True)) / n
    scale = mean.mean()

    def steps(one: Tensor) -> Tensor:
        return torch.cat([torch.diff(one / scale, order, axis).flatten() for axis in (0, 1)])

    weighted = [steps(m) * k for m, k in zip(means, sizes, strict=True)]

    def average(count: int) -> float:
        chosen = list(itertools.combinations(range(len(sizes)), count))
        top = sum(torch.stack([weighted[i] for i in which]).prod(0).mean() for which in chosen)
        return float(top / sum(math.prod(sizes[i] for i in which) for which in chosen))

    pairs, quadruples = average(2), average(4)
    x = steps(mean)
    square = float((x**2).mean())
    noisy_kurtosis = float((x**4).mean()) / square**2
    share = min(pairs / square, 1)
    a = math.log(math.pi / 2) / (2 * math.log(3))
    kurtosis = 3 + share**2 * (noisy_kurtosis - 3)
    kurtosis += trust * (quadruples / pairs**2 - kurtosis)
    shape = (
        max(kurtosis, 1) ** -a * (float(x.abs().mean()) / math.sqrt(square) * noisy_kurtosis**a) ** share**4
    )
    return pairs * shape**2, quadruples / pairs**2


def delete_m_jackknife(whole: float, without: list[float], sizes: list[int]) -> float:
    """Standard error after Busing, Meijer and van der Leeden (1999), eq. 8."""
    n, groups = sum(sizes), len(sizes)
    h = [n / size for size in sizes]
    joined = groups * whole - sum((1 - size / n) * one for size, one in zip(sizes, without, strict=True))
    pseudo = [k * whole - (k - 1) * one for k, one in zip(h, without, strict=True)]
    return math.sqrt(sum((p - joined) ** 2 / (k - 1) for p, k in zip(pseudo, h, strict=True)) / groups)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("images", [12, 17])
def test_equals_the_definition_written_out(order: int, images: int) -> None:
    groups = 6
    maps = 1 + 0.5 * random_maps(images) + random_maps(1, seed=9)
    stats = statistics_of(maps, groups)
    means, sizes = stats.group_means, list(stats.group_sizes)

    def rest(group: int, trust: float) -> tuple[float, float]:
        keep = [g for g in range(groups) if g != group]
        return literal_square(means[keep], [sizes[g] for g in keep], order, trust)

    _, kurtosis = literal_square(means, sizes, order, 0)
    spread = delete_m_jackknife(kurtosis, [rest(g, 0)[1] for g in range(groups)], sizes)
    mean = stats.mean / stats.mean.mean()
    x = torch.cat([torch.diff(mean, order, axis).flatten() for axis in (0, 1)])
    pairs = literal_square(means, sizes, order, 0)[0]
    assert pairs > 0  # else the test would see the other branch
    # The share of signal, from the value without trust: V = square / shape^2 is not exposed, so count again.
    products = [
        sizes[i] * sizes[j] * torch.diff(means[i], order, axis) * torch.diff(means[j], order, axis)
        for i, j in itertools.combinations(range(groups), 2)
        for axis in (0, 1)
    ]
    weight = sum(sizes[i] * sizes[j] for i, j in itertools.combinations(range(groups), 2))
    v = sum(p.sum() for p in products).item() / weight / len(x) / stats.mean.mean().item() ** 2
    share = v / (x**2).mean().item()
    prior = 2 * (1 - share**2)
    trust = prior**2 / (prior**2 + spread**2)
    square, _ = literal_square(means, sizes, order, trust)
    error = delete_m_jackknife(square, [rest(g, trust)[0] for g in range(groups)], sizes)
    low = square - 2 * error
    of_root = (square**0.5 - math.copysign(abs(low) ** 0.5, low)) / 2
    a = math.log(math.pi / 2) / (2 * math.log(3))
    unknown = square**0.5 * math.hypot(a * (1 - trust) * prior / 3, 0.03 * math.sqrt(1 - share))

    estimate = corrected_imbalance(stats, order)
    assert estimate.value == pytest.approx(square**0.5, rel=1e-9)
    assert estimate.standard_error == pytest.approx(math.hypot(of_root, unknown), rel=1e-9)


# Known truth, known noise


@pytest.mark.parametrize("kind", ["gaussian", "gradients"])
def test_unbiased_where_the_plain_index_is_off_by_a_factor_of_two(kind: str) -> None:
    truth = checkerboard(96)
    expected = imbalance_index(truth, 1, "mean").item()
    for images in (100, 400, 1600):
        drawn = [corrected_imbalance(noisy(truth, images, seed, kind)) for seed in range(4)]
        value = sum(one.value for one in drawn) / 4
        error = sum(one.standard_error for one in drawn) / 4
        assert abs(value - expected) < error
        if images == 100:
            assert min(one.uncorrected for one in drawn) > 2 * expected
        assert error < {100: 0.5, 400: 0.2, 1600: 0.05}[images] * expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "gradients"])
@pytest.mark.parametrize("stages", [1, 5])
def test_unbiased_at_every_number_of_images(kind: str, stages: int) -> None:
    truth = checkerboard(160, stages)
    expected = imbalance_index(truth, 1, "mean").item()
    for images in COUNTS:
        drawn = [corrected_imbalance(noisy(truth, images, seed, kind)) for seed in range(16)]
        values = torch.tensor([one.value for one in drawn], dtype=torch.float64)
        error = sum(one.standard_error for one in drawn) / 16
        assert abs(values.mean().item() - expected) < error, images
        # Stated errors cover what really varies.
        assert values.std().item() < 1.2 * error, images


def test_map_without_imbalance_is_zero_within_its_error() -> None:
    flat = torch.ones(64, 64, dtype=torch.float64)
    drawn = [corrected_imbalance(noisy(flat, 64, seed, "gaussian")) for seed in range(20)]
    assert all(abs(one.value) < 3 * one.standard_error for one in drawn)
    assert all(one.uncorrected > 0.2 for one in drawn)
    # Both signs come up: clipping at zero would make averages over maps too large.
    assert 4 <= sum(one.value < 0 for one in drawn) <= 16


def test_lone_pixels_on_a_flat_map_are_bounded_by_the_uncorrected_index() -> None:
    # One pixel in 256: kurtosis 128, far outside the power law, which would give more than noise can add.
    truth = torch.ones(64, 64, dtype=torch.float64)
    truth[8::16, 8::16] += 5
    estimate = corrected_imbalance(noisy(truth, 1600, 0, "gaussian"))
    assert estimate.value == pytest.approx(estimate.uncorrected, rel=1e-12)
    # Four steps of 5 for each of 16 pixels, over 2 * 64 * 63 terms, over the mean 1 + 5 / 256.
    assert imbalance_index(truth, 1, "mean").item() == pytest.approx(320 / 8064 / (1 + 5 / 256), rel=1e-9)
    assert estimate.value > 320 / 8064


# Invariance


def test_scale_order_and_orientation_do_not_matter() -> None:
    maps = random_maps(24)
    stats = statistics_of(maps, 8)
    one = corrected_imbalance(stats)
    for other in (
        statistics_of(1e-30 * maps, 8),
        statistics_of(maps.transpose(1, 2), 8),
        statistics_of(maps.flip(1), 8),
        statistics_of_groups(stats.group_means.flip(0), stats.group_sizes[::-1]),
    ):
        two = corrected_imbalance(other)
        assert two.value == pytest.approx(one.value, rel=1e-9)
        assert two.standard_error == pytest.approx(one.standard_error, rel=1e-9)
    raw = corrected_imbalance(statistics_of(1e-30 * maps, 8), normalize="none")
    again = corrected_imbalance(stats, normalize="none")
    assert raw.value == pytest.approx(1e-30 * again.value, rel=1e-9, abs=0)
    assert raw.noise_floor == pytest.approx(1e-30 * again.noise_floor, rel=1e-9, abs=0)


def test_large_maps_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = statistics_of(random_maps(24, 20, 30), 8)
    whole = corrected_imbalance(stats)
    monkeypatch.setattr("erfattr.noise._CHUNK", 50)
    parts = corrected_imbalance(stats)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    assert parts.noise_floor == pytest.approx(whole.noise_floor, rel=1e-12)


# Comparison


def test_comparison_is_the_difference_of_the_estimates() -> None:
    truth = checkerboard(64)
    a, b = noisy(truth, 800, 1, "gradients"), noisy(truth, 400, 2, "gradients")
    one = compare_imbalance(a, b)
    assert one.first == corrected_imbalance(a)
    assert one.second == corrected_imbalance(b)
    assert one.difference == one.first.value - one.second.value
    expected = math.hypot(one.first.standard_error, one.second.standard_error)
    assert one.standard_error == pytest.approx(expected, rel=1e-12)
    assert compare_imbalance(b, a).difference == -one.difference


def test_paired_comparison_removes_common_noise() -> None:
    # Twice the same images, once with every map of one image doubled in contrast about its mean.
    maps = random_maps(64, 20, 20)
    a, b = statistics_of(maps), statistics_of(1.1 * maps + 0.02)
    paired, apart = compare_imbalance(a, b, paired=True), compare_imbalance(a, b)
    assert paired.difference == apart.difference
    assert paired.standard_error < apart.standard_error
    # A map compared with itself differs by nothing, whatever its noise; what is unknown of the shape stays.
    same = compare_imbalance(a, a, paired=True)
    assert same.difference == 0
    assert same.standard_error < compare_imbalance(a, a).standard_error


@pytest.mark.parametrize(
    ("difference", "error", "expected"),
    [
        (-0.031, 0.004, "smaller by 0.031 +- 0.004 (0.051 against 0.082)"),
        (0.0312, 0.0012, "larger by 0.0312 +- 0.0012 (0.1132 against 0.0820)"),
        (-0.031, 0.016, "no difference beyond the noise: -0.031 +- 0.016 (0.051 against 0.082)"),
        (-0.031, 0.0, "smaller by 0.031 +- 0 (0.051 against 0.082)"),
    ],
)
def test_sentence(difference: float, error: float, expected: str) -> None:
    second = Estimate(0.082, 0.003, 0.2, 0.19, 100)
    first = Estimate(0.082 + difference, 0.003, 0.2, 0.19, 100)
    assert Comparison(difference, error, first, second).sentence == expected


def test_estimate_as_text() -> None:
    estimate = Estimate(0.08213, 0.00312, 0.2074, 0.1921, 100)
    assert str(estimate) == "L1 0.082 +- 0.003 (uncorrected 0.207, noise floor 0.192, 100 images)"


# Errors


def test_errors() -> None:
    stats = statistics_of(random_maps(8), 4)
    with pytest.raises(TypeError, match=r"stats: expected a MapStatistics, got a tensor.*return_statistics"):
        corrected_imbalance(stats.mean)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stats: expected a MapStatistics, got None"):
        corrected_imbalance(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="b: expected a MapStatistics"):
        compare_imbalance(stats, stats.mean)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"stats: expected at least 3 groups of images, got 1 \(1 images\)"):
        corrected_imbalance(statistics_of(random_maps(1)))
    with pytest.raises(ValueError, match=r"at least 3 groups of images, got 2 \(40 images\)"):
        corrected_imbalance(statistics_of(random_maps(40), 2))
    with pytest.raises(ValueError, match="order: expected one of 1, 2, got 3"):
        corrected_imbalance(stats, order=3)
    with pytest.raises(ValueError, match="normalize: expected one of"):
        corrected_imbalance(stats, normalize="max")
    with pytest.raises(ValueError, match="not zero everywhere"):
        corrected_imbalance(statistics_of(torch.zeros(8, 4, 4)))
    with pytest.raises(ValueError, match="expected a positive mean"):
        corrected_imbalance(statistics_of(-random_maps(8)))
    with pytest.raises(ValueError, match="at least 3 x 3 pixels for order=2"):
        corrected_imbalance(statistics_of(random_maps(8, 2, 2)), order=2)
    broken = stats.group_means.clone()
    broken[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="stats: expected finite values, got 1 not so"):
        corrected_imbalance(MapStatistics(stats.mean, stats.standard_error, 8, broken, (2, 2, 2, 2)))
    with pytest.raises(ValueError, match="paired: expected the same images and groups"):
        compare_imbalance(stats, statistics_of(random_maps(9), 4), paired=True)


# Caller untouched


def test_statistics_are_left_as_they_were() -> None:
    stats = statistics_of(random_maps(8), 4)
    before = stats.mean.clone(), stats.group_means.clone()
    compare_imbalance(stats, stats, paired=True)
    assert torch.equal(stats.mean, before[0])
    assert torch.equal(stats.group_means, before[1])
