"""Corrected imbalance against the formula written out, known truths and known noise."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from erfattr.metrics.corrected_imbalance import Comparison, Estimate, compare_imbalance, corrected_imbalance
from erfattr.metrics.imbalance import imbalance_index
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics

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


def uses(size: int, chain: str) -> Tensor:
    """How often stride-2 convolutions use each pixel; those joined by + lie side by side, as in a ResNet."""
    stages = chain.split("-")
    counts = torch.ones(1, 1, *[size // 2 ** len(stages) + 40] * 2, dtype=torch.float64)
    for stage in reversed(stages):
        counts = sum(
            F.conv_transpose2d(
                counts,
                torch.ones(1, 1, side, side).double() / side**2,
                stride=2,
                padding=side // 2,
                output_padding=1,
            )
            for side in map(int, stage.split("+"))
        )  # type: ignore[assignment]
    return counts[0, 0, 32 : 32 + size, 32 : 32 + size]


def checkerboard(size: int, chain: str = "3-3-3-3-3", order: int = 1, width: float = 0.27) -> Tensor:
    """Uses of pixels by a chain of convolutions, weakened to an index of 0.085 (L2: 0.17), under a bell."""
    counts = uses(size, chain)
    relief = counts / counts.mean() - 1
    bell = torch.exp(-((torch.arange(size) - (size - 1) / 2).double() ** 2) / (2 * (width * size) ** 2))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        truth = torch.outer(bell, bell) * (1 + middle * relief)
        weak = imbalance_index(truth, order, "mean") < 0.085 * order
        low, high = (middle, high) if weak else (low, middle)
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
    # Steps of 1 in half of the terms (along rows): mean square 1/2, so V = -1/6, all of it missed by the
    # prediction, which is 0. The jackknife's values -1/2, 0, 0 give an error of 1/3, so V counts for
    # (1/6)^2 / ((1/6)^2 + (1/3)^2) = 1/5 of itself.
    estimate = corrected_imbalance(stats)
    assert estimate.value == pytest.approx(-math.sqrt(2 / math.pi / 30), rel=1e-9)
    assert estimate.uncorrected == 0.0


# Independent oracle: the definition written out, pixel by pixel, pair by pair, replicate by replicate


def smoothed(one: Tensor) -> Tensor:
    """Mean over all windows of 8 x 8 pixels that hold the pixel and lie inside the map."""
    height, width = min(8, one.shape[0]), min(8, one.shape[1])
    out = torch.zeros_like(one)
    for y, x in itertools.product(range(one.shape[0]), range(one.shape[1])):
        windows = [
            one[top : top + height, left : left + width].mean()
            for top in range(max(0, y - height + 1), min(y, one.shape[0] - height) + 1)
            for left in range(max(0, x - width + 1), min(x, one.shape[1] - width) + 1)
        ]
        out[y, x] = torch.stack(windows).mean()
    return out


def steps(one: Tensor, order: int, axis: int) -> Tensor:
    return torch.diff(one, order, axis)


def written_out_predictors(one: Tensor, scale: Tensor, order: int, axis: int) -> list[Tensor]:
    x, smooth = steps(one, order, axis), steps(smoothed(one), order, axis)
    predictors = [x, smooth]
    for period in (2, 4, 8, 14, 16, 32):
        if 2 * period <= min(one.shape):
            fold = torch.empty_like(x)
            for y, z in itertools.product(range(period), range(period)):
                same = (slice(y, None, period), slice(z, None, period))
                fold[same] = scale[same] * (x - smooth)[same].sum() / scale[same].sum()
            predictors.append(fold)
    return [p.flatten() for p in predictors]


def written_out_moments(means: Tensor, sizes: list[int], order: int) -> dict[tuple[int, int], Tensor]:
    """Means of s, s^2, |m|, m^2, r sign m, r m, r r for each pair of held-out groups, by class."""
    n, pairs = sum(sizes), list(itertools.combinations(range(len(sizes)), 2))
    mean = sum(m * k for m, k in zip(means, sizes, strict=True)) / n
    result = {pair: torch.zeros(7, 12, dtype=torch.float64) for pair in pairs}
    for axis in (0, 1):
        around = smoothed(mean).abs()
        length = mean.shape[axis] - order
        scale = sum(around.narrow(axis, start, length) for start in range(order + 1)) / (order + 1)
        predictors = [torch.stack(written_out_predictors(m, scale, order, axis)) for m in means]
        s = scale.flatten()
        true = sum(
            sizes[g]
            * sizes[h]
            * (predictors[g][0] * predictors[h] + predictors[h][0] * predictors[g]).mean(1)
            for g, h in pairs
        ) / (2 * sum(sizes[g] * sizes[h] for g, h in pairs))
        whole = sum(k * p for k, p in zip(sizes, predictors, strict=True)) / n
        weights = torch.linalg.solve(whole @ whole.T / len(s), true)
        typical = (weights @ whole).abs().sum() / s.sum()
        for g, h in pairs:
            others = [i for i in range(len(sizes)) if i not in (g, h)]
            m = sum(sizes[i] * (weights @ predictors[i]) for i in others) / sum(sizes[i] for i in others)
            for p in range(len(s)):
                ratio = float(m[p].abs() / s[p] / (m[p].abs() / s[p] + typical))
                r, q = predictors[g][0, p] - m[p], predictors[h][0, p] - m[p]
                row = [
                    s[p],
                    s[p] ** 2,
                    m[p].abs(),
                    m[p] ** 2,
                    (r + q) / 2 * m[p].sign(),
                    (r + q) / 2 * m[p],
                    r * q,
                ]
                result[g, h][:, min(int(12 * ratio), 11)] += torch.stack(row) / (
                    2 * mean.numel() - order * sum(mean.shape)
                )
    return result


def averaged(moments: dict[tuple[int, int], Tensor], sizes: list[int], *left_out: int) -> Tensor:
    kept = [pair for pair in moments if not {*left_out} & {*pair}]
    counts = [sizes[g] * sizes[h] for g, h in kept]
    return sum(c * moments[pair] for c, pair in zip(counts, kept, strict=True)) / sum(counts)


def missed_variances(moments: Tensor) -> tuple[list[float], list[float]]:
    """Of each class: how far the prediction is to be stretched, and the mean square of what it misses."""
    slopes, variances = [], []
    for _, _, size, square, signed, product, residual in moments.T.tolist():
        slope = max(0.0, 1 + signed / size) if size else 1.0
        slopes.append(slope)
        variances.append(residual - 2 * (slope - 1) * product + (slope - 1) ** 2 * square)
    return slopes, variances


def written_out_value(moments: Tensor, noise: float, v: float | None = None) -> tuple[float, float, float]:
    """Index (not normalised), lower and upper bound; with another v in the index, if one is given."""
    slopes, variances = missed_variances(moments)
    remainder = sum(variances)
    missed = remainder if v is None else v
    kept = missed * missed**2 / (missed**2 + noise**2)
    positive = [max(v, 0.0) for v in variances]
    lower = value = upper = 0.0
    for k, (s, s2, size, *_) in enumerate(moments.T.tolist()):
        if s == 0:
            continue
        share = positive[k] / sum(positive) / s2 if remainder > 0 else 1 / moments[1].sum().item()
        predicted = slopes[k] * size / s
        spread = math.sqrt(share * abs(kept))
        folded = predicted
        if spread > 0:
            beyond = 0.5 * math.erfc(predicted / spread / math.sqrt(2))  # chance of the other sign
            density = math.exp(-((predicted / spread) ** 2) / 2) / math.sqrt(2 * math.pi)
            folded = 2 * spread * density + predicted * (1 - 2 * beyond)
        lower += s * predicted
        value += s * (predicted + math.copysign(folded - predicted, kept))
        upper += s * math.sqrt(predicted**2 + share * (max(remainder, 0) + noise))
    return value, lower, upper


def delete_m_jackknife(whole: float, without: list[float], sizes: list[int]) -> float:
    """Standard error after Busing, Meijer and van der Leeden (1999), eq. 8."""
    n, groups = sum(sizes), len(sizes)
    h = [n / size for size in sizes]
    joined = groups * whole - sum((1 - size / n) * one for size, one in zip(sizes, without, strict=True))
    pseudo = [k * whole - (k - 1) * one for k, one in zip(h, without, strict=True)]
    return math.sqrt(sum((p - joined) ** 2 / (k - 1) for p, k in zip(pseudo, h, strict=True)) / groups)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("images", [12, 17])
@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_equals_the_definition_written_out(order: int, images: int, strength: float) -> None:
    maps = 1 + 0.5 * random_maps(images, 9, 10) + strength * random_maps(1, 9, 10, seed=9)
    stats = statistics_of(maps, 5)
    means, sizes = stats.group_means, list(stats.group_sizes)
    moments = written_out_moments(means, sizes, order)
    replicates = [averaged(moments, sizes, g) for g in range(5)]
    whole = averaged(moments, sizes)
    noise = delete_m_jackknife(
        sum(missed_variances(whole)[1]), [sum(missed_variances(one)[1]) for one in replicates], sizes
    )
    unit = stats.mean.mean().item()
    value, lower, upper = (x / unit for x in written_out_value(whole, noise))

    def square_of(found: float, *left_out: int) -> float:
        kept = [i for i in range(5) if i not in left_out]
        mean = sum(sizes[i] * means[i].mean().item() for i in kept) / sum(sizes[i] for i in kept)
        return math.copysign((found / mean) ** 2, found)

    square = square_of(value * unit)
    one = [square_of(written_out_value(part, noise)[0], g) for g, part in enumerate(replicates)]
    # Efron and Stein (1981): what a jackknife counts twice, of v.
    v = sum(missed_variances(whole)[1])
    v_one = [sum(missed_variances(part)[1]) for part in replicates]
    q = [
        5 * v - 4 * (v_one[g] + v_one[h]) + 3 * sum(missed_variances(averaged(moments, sizes, g, h))[1])
        for g, h in itertools.combinations(range(5), 2)
    ]
    variance = 4 / 5 * sum((part - sum(v_one) / 5) ** 2 for part in v_one)
    share = 1 - sum((part - sum(q) / 10) ** 2 for part in q) / 30 / variance
    twice = 1 - min(max(share, 3 / 8), 1)
    # It holds for what comes of v alone, all else being that of all groups.
    alone = [square_of(written_out_value(whole, noise, v=part)[0]) for part in v_one]
    error = delete_m_jackknife(square, one, sizes)
    of_v = min(1, (delete_m_jackknife(square, alone, sizes) / error) ** 2)
    error *= math.sqrt(1 - twice * of_v)
    low = abs(square) - 2 * error
    of_root = (abs(value) - math.copysign(abs(low) ** 0.5, low)) / 2

    estimate = corrected_imbalance(stats, order)
    assert estimate.value == pytest.approx(value, rel=1e-9)
    assert estimate.standard_error == pytest.approx(
        math.hypot(of_root, (upper - lower) / math.sqrt(12)), rel=1e-9
    )


# Known truth, known noise


def bias(truth: Tensor, images: int, kind: str, order: int, draws: int) -> tuple[float, float, float, float]:
    """Bias, spread and stated error of the estimate, and the uncorrected index, relative to the truth."""
    expected = imbalance_index(truth, order, "mean").item()
    drawn = [corrected_imbalance(noisy(truth, images, seed, kind), order) for seed in range(draws)]
    values = torch.tensor([one.value for one in drawn], dtype=torch.float64) / expected
    error = sum(one.standard_error for one in drawn) / draws / expected
    plain = sum(one.uncorrected for one in drawn) / draws / expected
    return values.mean().item() - 1, values.std().item(), error, plain


CHAINS = ["3-3-3", "1", "3+1-3+1", "7-3-1"]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("chain", CHAINS)
def test_unbiased_where_the_plain_index_is_off_by_a_factor_of_two(chain: str, order: int) -> None:
    truth = checkerboard(96, chain, order)
    for images, largest in ((100, 0.3), (1600, 0.06)):
        off, _, error, plain = bias(truth, images, "gradients", order, 3)
        assert abs(off) < error < largest, images
        if images == 100:
            assert plain > 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "gradients"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("chain", ["3", "3-3-3-3-3", *CHAINS])
def test_unbiased_at_every_number_of_images(chain: str, order: int, kind: str) -> None:
    truth = checkerboard(160, chain, order)
    for images in COUNTS:
        off, spread, error, _ = bias(truth, images, kind, order, 8)
        assert abs(off) < error, images
        # Stated errors cover what really varies.
        assert spread < 1.2 * error, images


@pytest.mark.parametrize("order", [1, 2])
def test_unbiased_where_the_map_fills_a_small_part_of_the_image(order: int) -> None:
    # As of an early layer: a bell of 5 pixels in 96, and nothing beyond 15.
    away = (torch.arange(96) - 47.5).abs() > 15
    bell = torch.exp(-((torch.arange(96) - 47.5).double() ** 2) / (2 * 5.0**2)).masked_fill(away, 0)
    counts = uses(96, "3-3")
    truth = torch.outer(bell, bell) * (0.6 + 0.4 * counts / counts.mean())
    for images, largest in ((100, 0.2), (1600, 0.05)):
        off, _, error, _ = bias(truth, images, "gradients", order, 3)
        assert abs(off) < error < largest, images


def test_map_without_imbalance_is_zero_within_its_error() -> None:
    flat = torch.ones(64, 64, dtype=torch.float64)
    drawn = [corrected_imbalance(noisy(flat, 64, seed, "gaussian")) for seed in range(20)]
    assert all(abs(one.value) < 3 * one.standard_error for one in drawn)
    assert all(one.uncorrected > 0.2 for one in drawn)
    # Both signs come up: clipping at zero would make averages over maps too large.
    assert 4 <= sum(one.value < 0 for one in drawn) <= 16


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


def test_many_groups_are_held_out_in_neighbouring_pairs() -> None:
    # 40 groups: 120 pairs of neighbours instead of 780; the estimate does not hang on which.
    truth = checkerboard(48)
    many = corrected_imbalance(noisy(truth, 1600, 0, "gradients", groups=40))
    few = corrected_imbalance(noisy(truth, 1600, 0, "gradients"))
    assert many.value == pytest.approx(few.value, abs=math.hypot(many.standard_error, few.standard_error))


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
