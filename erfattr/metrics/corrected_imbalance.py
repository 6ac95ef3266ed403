"""Imbalance indices without the sampling noise of their map, with standard errors, and their comparison."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from erfattr._checks import check_choice
from erfattr.metrics.imbalance import imbalance_index, window_mean
from erfattr.metrics.jackknife import error_of_root, group_sums, influence
from erfattr.metrics.statistics import MapStatistics

# Periods of a checkerboard that are looked for: strides of networks that halve their maps, patches of 14.
_PERIODS = (2, 4, 8, 14, 16, 32)
# Side in pixels of the windows that give the envelope: wide enough to average noise, narrow beside an ERF.
_ENVELOPE = 8
# Classes of predicted size in which the prediction is held against the images.
_CLASSES = 12
# Pairs of groups that are held out, about: all up to 16 groups, neighbours of more.
_PAIRS = 128
# Standard deviation of an index that may lie anywhere between its two bounds, as a share of their distance.
_SHAPE_SPREAD = 1 / math.sqrt(12)
# Stands for zero where something that is zero itself is divided by it.
_TINY = 1e-300


@dataclass(frozen=True)
class Estimate:
    """An imbalance index without the sampling noise of its map.

    Attributes:
        value: The index at infinitely many images. Negative (about every other time) where the map has no
            imbalance that can be told from noise: read it as 0 within its standard error.
        standard_error: One standard deviation of ``value``, over images and over what is not known about the
            distribution of the differences.
        uncorrected: `imbalance_index` of the mean map as it is.
        noise_floor: What a perfectly flat map with the same noise would score over as many images.
        n_images: Number of images.
        order: 1 for eq. 4, 2 for eq. 5.
        normalize: ``"mean"`` or ``"none"``, as in `imbalance_index`.
    """

    value: float
    standard_error: float
    uncorrected: float
    noise_floor: float
    n_images: int
    order: int = 1
    normalize: str = "mean"

    def __str__(self) -> str:
        """Value and error with two digits of the error, and what they were computed from."""
        value, error = _rounded(self.value, self.standard_error)
        return (
            f"L{self.order} {value} +- {error} "
            f"(uncorrected {self.uncorrected:.3g}, noise floor {self.noise_floor:.3g}, "
            f"{self.n_images} images)"
        )


@dataclass(frozen=True)
class Comparison:
    """Difference of two corrected indices.

    Attributes:
        difference: The first index minus the second.
        standard_error: One standard deviation of the difference.
        first: The first estimate.
        second: The second estimate.
    """

    difference: float
    standard_error: float
    first: Estimate
    second: Estimate

    @property
    def sentence(self) -> str:
        """What a reader may conclude: ``"smaller by 0.031 +- 0.004 (0.051 against 0.082)"``."""
        size, error = _rounded(abs(self.difference), self.standard_error)
        digits = len(error.partition(".")[2])
        style = f".{digits}f" if self.standard_error > 0 else ".3g"
        values = f"{self.first.value:{style}} against {self.second.value:{style}}"
        if abs(self.difference) <= 2 * self.standard_error:
            signed, error = _rounded(self.difference, self.standard_error)
            return f"no difference beyond the noise: {signed} +- {error} ({values})"
        return f"{'smaller' if self.difference < 0 else 'larger'} by {size} +- {error} ({values})"


def corrected_imbalance(stats: MapStatistics, order: int = 1, normalize: str = "mean") -> Estimate:
    r"""Estimate what `imbalance_index` would be over infinitely many images.

    A difference of neighbouring pixels is measured with noise, :math:`x = d + e`, and :math:`\mathrm E|x|`
    exceeds :math:`|d|`. So it is *predicted*, by the combination nearest to d of x itself, the difference of
    the smoothed map, and the mean difference at the same phase of periods of 2 to 32 pixels times the local
    scale s of the map. Two groups of images, g and h, are held out; the prediction m comes from the others.
    Then, averaged over pairs of groups and in classes of :math:`|m| / s`,

    .. math::

        b = \frac{\langle x_g \operatorname{sign} m \rangle}{\langle |m| \rangle}, \qquad
        v = \langle (x_g - b m) (x_h - b m) \rangle

    say, whatever the noise, how large d is along its prediction and how far from it on average. With d taken
    as normal about b m, of a variance :math:`\sigma^2 = v \, s^2 / \langle s^2 \rangle`,

    .. math::

        L = \langle b |m| \rangle + \bigl\langle \mathrm E |N(b m, \sigma^2)| - b |m| \bigr\rangle .

    The first term is unbiased for :math:`\langle d \operatorname{sign} m \rangle`, which the index is never
    below. The second is what no prediction reaches. Its v, summed over the classes, enters as
    :math:`v^3 / (v^2 + \epsilon^2)`, with its jackknife error :math:`\epsilon`: what cannot be told from
    noise counts little. Where v is negative the term is subtracted, so a map without imbalance gives values
    about 0. Without noise the result is the index itself.

    It says nothing about how much of the imbalance is a checkerboard and how much a steep envelope, and it
    supposes that the images are independent draws. A pattern of another period is not predicted until the
    noise is small: its index rests on the normal distribution, and the standard error is widened for that.

    Args:
        stats: What ``attribute(..., return_statistics=True)`` returns, of at least three groups that have an
            image.
        order: 1 for eq. 4, 2 for eq. 5.
        normalize: ``"mean"`` for R / mean(R), without unit; ``"none"`` for R itself.

    Returns:
        The `Estimate`. Its standard error comes from a jackknife over the groups, and from how far the
        bounds :math:`\langle b |m| \rangle` and :math:`\langle \sqrt{b^2 m^2 + \sigma^2} \rangle` lie apart.

    Raises:
        TypeError: ``stats`` is not a `MapStatistics`.
        ValueError: fewer than three groups; values that are not finite; a map that is zero
            everywhere, too small, or of no positive mean; ``order`` or ``normalize`` is none of the choices.

    Example:
        Four images that agree have no noise: the index of the stripes 1, 0, 1, 0 is 1 of their mean.

        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> statistics = StreamingStatistics(groups=4)
        >>> statistics.update(torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(4, 4, 1))
        >>> estimate = corrected_imbalance(statistics.result())
        >>> round(estimate.value, 12), round(estimate.standard_error, 12), estimate.noise_floor
        (1.0, 0.0, 0.0)

    References:
        T. T. Cai and M. G. Low: Testing composite hypotheses, Hermite polynomials and optimal estimation of a
        nonsmooth functional. Annals of Statistics 39, 2011 (why a mean absolute value is hard to estimate
        under noise). F. M. T. A. Busing et al.: Delete-m jackknife for unequal m. Statistics and Computing 9,
        1999.
    """
    return _fit(stats, order, normalize)[0]


def compare_imbalance(
    a: MapStatistics, b: MapStatistics, order: int = 1, *, normalize: str = "mean", paired: bool = False
) -> Comparison:
    """Compare the imbalance of two maps, without the noise of either.

    Args:
        a: Statistics of the first map.
        b: Statistics of the second map; its number of images may differ.
        order: 1 for eq. 4, 2 for eq. 5.
        normalize: ``"mean"`` to compare networks; ``"none"`` only where both maps have one scale.
        paired: Both maps were made from the same images in the same order, so part of their noise is common;
            the standard error of the difference then comes from both jackknives together.

    Returns:
        The `Comparison`: ``difference`` is negative where ``a`` is the more balanced one; its ``sentence``
        says so in words, and says "no difference beyond the noise" within two standard errors.

    Raises:
        TypeError: ``a`` or ``b`` is not a `MapStatistics`.
        ValueError: what `corrected_imbalance` refuses; ``paired`` with different numbers of images or groups.

    Example:
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> a, b = StreamingStatistics(groups=4), StreamingStatistics(groups=4)
        >>> a.update(torch.tensor([1.5, 0.5, 1.5, 0.5]).repeat(4, 4, 1))
        >>> b.update(torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(4, 4, 1))
        >>> round(compare_imbalance(a.result(), b.result()).difference, 12)
        -0.5
    """
    first, shares_a, unknown_a = _fit(a, order, normalize, "a")
    second, shares_b, unknown_b = _fit(b, order, normalize, "b")
    if not paired:
        error = math.hypot(first.standard_error, second.standard_error)
    elif a.group_sizes != b.group_sizes:
        raise ValueError(
            f"paired: expected the same images and groups in both, got groups of {a.group_sizes} images"
            f" and of {b.group_sizes}"
        )
    else:
        common = (shares_a - shares_b).square().sum().sqrt().item()
        error = math.hypot(common, unknown_a, unknown_b)
    return Comparison(first.value - second.value, error, first, second)


def _fit(
    stats: MapStatistics, order: int, normalize: str, name: str = "stats"
) -> tuple[Estimate, Tensor, float]:
    """Return the estimate, each group's share in its error, and the part of the error that no image tells."""
    check_choice("order", order, (1, 2))
    check_choice("normalize", normalize, ("none", "mean"))
    sums, sizes = group_sums(name, stats)
    uncorrected = imbalance_index(stats.mean, order, normalize).item()  # refuses small maps and bad means
    # Squares of gradients would leave the range of floating-point numbers in the end.
    scale = stats.mean.abs().max().item()
    sums = sums / scale
    moments, floor = _moments(sums, sizes, order)
    means = _with_and_without(sums.mean((1, 2))) / _with_and_without(sizes)
    unit = torch.full_like(means, 1 / scale) if normalize == "none" else means

    weight, size, shape, remainder = _prediction(moments)
    noise = influence(remainder[0], remainder[1:], sizes).square().sum().sqrt()
    kept = remainder**3 / (remainder**2 + noise**2).clamp_min(_TINY)
    lower = (weight * size).sum(1)
    missed = (weight * _excess(size, shape * kept.abs()[:, None])).sum(1)
    values = (lower + kept.sign() * missed) / unit

    squares = values * values.abs()
    share = influence(squares[0], squares[1:], sizes)
    square, error_of_square = squares[0].item(), share.square().sum().sqrt().item()
    error = error_of_root(square, error_of_square)
    most = shape[0] * (remainder[0].clamp_min(0) + noise)
    upper = (weight[0] * (size[0] ** 2 + most).sqrt()).sum()
    unknown = _SHAPE_SPREAD * ((upper - lower[0]) / unit[0]).item()
    estimate = Estimate(
        values[0].item(),
        math.hypot(error, unknown),
        uncorrected,
        floor / unit[0].item(),
        stats.n_images,
        order,
        normalize,
    )
    return estimate, share * (error / error_of_square if error_of_square else 0.0), unknown


class _Predictors:
    """What a difference is predicted from: linear in a map, given the local scale of the mean map.

    Attributes:
        scale: Local scale of each difference, (P,).
    """

    def __init__(self, mean: Tensor, order: int, axis: int) -> None:
        self._order, self._axis = order, axis
        scale = _envelope(mean).abs().unfold(axis, order + 1, 1).mean(-1)
        self.scale = scale.flatten()
        rows, columns = torch.arange(scale.shape[0])[:, None], torch.arange(scale.shape[1])
        self._folds = []
        for period in _PERIODS:
            if 2 * period <= min(mean.shape):
                phase = (rows % period * period + columns % period).flatten()
                total = self.scale.new_zeros(period**2).index_add(0, phase, self.scale)
                self._folds.append((phase, total.clamp_min(_TINY)))

    def differences(self, one: Tensor) -> Tensor:
        return torch.diff(one, n=self._order, dim=self._axis).flatten()

    def __call__(self, one: Tensor, envelope: Tensor) -> Tensor:
        """Return (K, P): the differences, those of the envelope, and their means at the same phase."""
        x, smooth = self.differences(one), self.differences(envelope)
        predictors = [x, smooth]
        for phase, total in self._folds:
            means = torch.zeros_like(total).index_add(0, phase, x - smooth) / total
            predictors.append(self.scale * means[phase])
        return torch.stack(predictors)


def _envelope(one: Tensor) -> Tensor:
    height, width = one.shape
    return window_mean(one, (min(_ENVELOPE, height), min(_ENVELOPE, width)))


def _moments(sums: Tensor, sizes: Tensor, order: int) -> tuple[Tensor, float]:
    """Return moments of prediction and residual, (G + 1, 7, classes), and the noise floor.

    Along the first axis: of all pairs of held-out groups, then of those without each group. The seven are
    the means of s, s^2, |m|, m^2, r sign(m), r m, r_g r_h, with m the prediction and r the groups' residuals.
    """
    groups = len(sizes)
    reach = max(1, _PAIRS // groups)
    pairs = [
        (g, h) for g, h in itertools.combinations(range(groups), 2) if min(h - g, groups - h + g) <= reach
    ]
    # A half against the other half: the map cancels, and the noise is left as strong as in the whole. One
    # split for every way to cut the circle of groups in two.
    circle = torch.arange(groups)
    halves = [(circle - start) % groups < groups // 2 for start in range((groups + 1) // 2)]
    contrasts = torch.stack([_half_against_half(half, sizes) for half in halves])
    envelopes = torch.stack([_envelope(one) for one in sums])
    moments, floor, terms = sums.new_zeros(len(pairs), 7, _CLASSES), 0.0, 0
    for axis in (0, 1):
        predictors = _Predictors(sums.sum(0) / sizes.sum(), order, axis)
        weights = _regression(predictors, sums, envelopes, sizes)
        differences = torch.stack([predictors.differences(one) for one in sums])
        predictions = torch.stack([weights @ predictors(*both) for both in zip(sums, envelopes, strict=True)])
        moments += _held_out(differences, predictions, predictors.scale, sizes, pairs)
        floor += (contrasts @ differences).abs().sum().item() / len(halves)
        terms += differences.shape[1]
    held = torch.tensor(pairs)
    counts = sizes[held].prod(1)
    kept = torch.cat([torch.ones_like(counts)[None], (held[None] != circle[:, None, None]).all(2)]) * counts
    means = torch.einsum("gp,pkc->gkc", kept / kept.sum(1, keepdim=True), moments)
    return means / terms, floor / terms


def _half_against_half(half: Tensor, sizes: Tensor) -> Tensor:
    """Return weights of the groups' sums: half's mean less the other's, with the noise of the whole."""
    here, there = sizes[half].sum(), sizes[~half].sum()
    weight = torch.where(half, 1 / here, -1 / there)
    return weight * (here * there).sqrt() / sizes.sum()


def _regression(predictors: _Predictors, sums: Tensor, envelopes: Tensor, sizes: Tensor) -> Tensor:
    """Return the combination of predictors nearest to the true differences.

    Their products with the true differences are unbiased over pairs of different groups.
    """
    whole = predictors(sums.sum(0), envelopes.sum(0))
    same = sum(one @ one[0] for one in map(predictors, sums, envelopes))
    n = sizes.sum()
    products = (whole @ whole[0] - same) * n**2 / (n**2 - sizes.square().sum())
    gram = whole @ whole.T
    size = gram.diagonal().sqrt().clamp_min(_TINY)
    inverse = torch.linalg.pinv(gram / size / size[:, None], rtol=1e-12, hermitian=True)
    combination: Tensor = inverse @ (products / size) / size
    return combination


def _held_out(
    differences: Tensor, predictions: Tensor, scale: Tensor, sizes: Tensor, pairs: list[tuple[int, int]]
) -> Tensor:
    """Return sums over differences, for each pair of groups and class of the others' prediction."""
    whole, n = predictions.sum(0), sizes.sum()
    typical = (whole / n).abs().sum() / scale.sum().clamp_min(_TINY)
    moments = scale.new_zeros(len(pairs), 7, _CLASSES)
    for number, (g, h) in enumerate(pairs):
        m = (whole - predictions[g] - predictions[h]) / (n - sizes[g] - sizes[h])
        size, sign = m.abs(), m.sign()
        one, other = differences[g] / sizes[g] - m, differences[h] / sizes[h] - m
        mean = (one + other) / 2
        rows = torch.stack([scale, scale**2, size, m * m, mean * sign, mean * m, one * other])
        # Classes of |m| / s, narrow below its mean and wide above.
        fraction = size / (size + typical * scale).clamp_min(_TINY)
        moments[number].index_add_(1, (_CLASSES * fraction).long().clamp_max(_CLASSES - 1), rows)
    return moments


def _prediction(moments: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return weight, predicted size and share in the remainder's variance of each class, and that remainder.

    Size and variance are relative to the local scale, the variance also to the remainder, (G + 1,).
    """
    scale, square, size, size_square, signed, product, residual = moments.unbind(1)
    slope = (1 + signed / size.clamp_min(_TINY)).clamp_min(0)
    variance = residual - 2 * (slope - 1) * product + (slope - 1) ** 2 * size_square
    remainder = variance.sum(1)
    # Where a class came out negative by chance, the others make up for it.
    positive = torch.where(remainder[:, None] > 0, variance.clamp_min(0), square)
    shape = positive / square.clamp_min(_TINY) / positive.sum(1, keepdim=True).clamp_min(_TINY)
    return scale, slope * size / scale.clamp_min(_TINY), shape, remainder


def _excess(size: Tensor, variance: Tensor) -> Tensor:
    """Return E|N(size, variance)| - size."""
    spread = variance.sqrt()
    z = size / spread.clamp_min(_TINY)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    tail: Tensor = torch.special.ndtr(-z)
    return 2 * (spread * density - size * tail)


def _with_and_without(values: Tensor) -> Tensor:
    """Return the sum over the first axis, and below it the sums without each one."""
    total = values.sum(0, keepdim=True)
    return torch.cat([total, total - values])


def _rounded(value: float, error: float) -> tuple[str, str]:
    """Write a value and its error with one or two digits of the error, none below the tenth decimal."""
    if not 0 < error < math.inf:
        return f"{value:.3g}", f"{error:.3g}"
    exponent = math.floor(math.log10(error))
    digits = min(max(-exponent + (error / 10.0**exponent < 2), 0), 10)
    return f"{value:.{digits}f}", f"{error:.{digits}f}"
