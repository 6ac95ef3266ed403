"""Imbalance indices without the sampling noise of their map, with standard errors, and their comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from erfattr._checks import check_choice
from erfattr._jackknife import error_of_root, group_sums, influence, signed_root
from erfattr.imbalance import imbalance_index
from erfattr.statistics import MapStatistics

# Mean absolute over root mean square difference, as a power of the kurtosis. The power goes through two known
# points: differences of one size (kurtosis 1, ratio 1) and Gaussian ones (kurtosis 3, ratio sqrt(2 / pi)).
_SHAPE_POWER = math.log(math.pi / 2) / (2 * math.log(3))
# What is taken for the kurtosis of differences while the images do not tell: 3 +- 2.
_PRIOR_KURTOSIS, _PRIOR_SPREAD = 3.0, 2.0
# How far the power law may be off, for the standard error (docs/methods/estimators.md).
_SHAPE_MISFIT = 0.03
# Differences worked on at a time: bounds the memory, not the result.
_CHUNK = 1 << 14


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
    exceeds :math:`|d|`. Products over *different* groups of images have no such excess, whatever the noise:
    :math:`V = \langle x_g x_h \rangle` and :math:`Q = \langle x_g x_h x_k x_l \rangle`, averaged over pixels
    and over all pairs and quadruples of groups, are unbiased for :math:`\langle d^2 \rangle` and
    :math:`\langle d^4 \rangle`. Then

    .. math::

        L = \sqrt V \; \kappa^{-a} \, \bigl(c_x \kappa_x^{a}\bigr)^{w^4},
        \qquad \kappa = Q / V^2, \quad w = V / \langle x^2 \rangle, \quad a = \frac{\ln(\pi / 2)}{2 \ln 3},

    where :math:`\kappa^{-a}` turns a root mean square into a mean absolute value (exact for differences of
    one size and for Gaussian ones) and the bracket corrects that power law by what it misses on the noisy
    map (:math:`c_x` its ratio of mean absolute to root mean square, :math:`\kappa_x` its kurtosis), the more
    the less noise there is. Without noise the result is the index itself. While the images do not determine
    :math:`\kappa`, it is drawn towards 3, the Gaussian value, and the standard error is widened for it.

    The negative root is taken where V is negative, and the estimate never exceeds the uncorrected index,
    which is too large on average. It says nothing about how much of the imbalance is a checkerboard and how
    much a steep envelope, and it supposes that the images are independent draws.
    Where many neighbours are exactly equal and the others far apart (unused rows, lone strong pixels) it is
    too large, and by more than its standard error, until the noise is small; see the page on the estimators.

    Args:
        stats: What ``attribute(..., return_statistics=True)`` returns, of at least three groups that have an
            image; from five groups on the images may determine the kurtosis.
        order: 1 for eq. 4, 2 for eq. 5.
        normalize: ``"mean"`` for R / mean(R), without unit; ``"none"`` for R itself.

    Returns:
        The `Estimate`. Its standard error comes from a jackknife over the groups.

    Raises:
        TypeError: ``stats`` is not a `MapStatistics`.
        ValueError: fewer than three groups; values that are not finite; a map that is zero
            everywhere, too small, or of no positive mean; ``order`` or ``normalize`` is none of the choices.

    Example:
        Four images that agree have no noise: the index of the stripes 1, 0, 1, 0 is 1 of their mean.

        >>> from erfattr.statistics import StreamingStatistics
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
        >>> from erfattr.statistics import StreamingStatistics
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
    n = sizes.sum()
    # Fourth powers of gradients would leave the range of floating-point numbers in the end.
    scale = stats.mean.abs().max().item()
    sums = sums / scale
    moments, floor = _moments(sums, sizes, order)
    means = torch.cat([sums.sum((0, 1, 2))[None], (sums.sum(0) - sums).sum((1, 2))])
    means = means / torch.cat([n[None], n - sizes]) / sums[0].numel()
    unit = torch.full_like(means, 1 / scale) if normalize == "none" else means

    whole = moments[0]
    trust, spread = _trust_in_kurtosis(moments, sizes)
    squares = torch.stack([_signed_square(one, trust) for one in moments]) / unit**2
    share = influence(squares[0], squares[1:], sizes)
    square, error_of_square = squares[0].item(), share.square().sum().sqrt().item()
    value = signed_root(square)
    error = error_of_root(square, error_of_square)
    noise = 1 - _signal_share(whole)
    unknown = abs(value) * math.hypot(_SHAPE_POWER * spread, _SHAPE_MISFIT * math.sqrt(noise))
    estimate = Estimate(
        value,
        math.hypot(error, unknown),
        uncorrected,
        floor / unit[0].item(),
        stats.n_images,
        order,
        normalize,
    )
    return estimate, share * (error / error_of_square if error_of_square else 0.0), unknown


def _moments(sums: Tensor, sizes: Tensor, order: int) -> tuple[Tensor, float]:
    """Return moments of the differences, of all groups and without each one, and the noise floor.

    The columns are: mean product of two groups and of four (not finite if there are fewer), and of the whole
    the mean absolute value, square and fourth power.
    """
    groups = len(sizes)
    counts = [_with_and_without(sizes**k)[:, None] for k in (1, 2, 3, 4)]
    pairs, quadruples = _elementary(counts)
    totals, floor, terms = torch.zeros(groups + 1, 5, dtype=torch.float64), 0.0, 0
    # A half against the other half: the map cancels, and the noise is left as strong as in the whole. One
    # split for every way to cut the circle of groups in two.
    circle = torch.arange(groups)
    halves = [(circle - start) % groups < groups // 2 for start in range((groups + 1) // 2)]
    contrasts = torch.stack([_half_against_half(half, sizes) for half in halves])
    for one in (sums, sums.transpose(1, 2)):
        for rows in torch.split(one, max(1, _CHUNK // one.shape[2]), dim=1):
            differences = torch.diff(rows, n=order, dim=2).flatten(1)
            powers = [_with_and_without(differences**k) for k in (1, 2, 3, 4)]
            two, four = _elementary(powers)
            mean = powers[0] / counts[0]
            square = mean * mean
            columns = [two / pairs, four / quadruples, mean.abs(), square, square * square]
            totals += torch.stack([column.sum(1) for column in columns], dim=1)
            floor += (contrasts @ differences).abs().sum().item() / len(halves)
            terms += differences.shape[1]
    return totals / terms, floor / terms


def _half_against_half(half: Tensor, sizes: Tensor) -> Tensor:
    """Return weights of the groups' sums: half's mean less the other's, with the noise of the whole."""
    here, there = sizes[half].sum(), sizes[~half].sum()
    weight = torch.where(half, 1 / here, -1 / there)
    return weight * (here * there).sqrt() / sizes.sum()


def _with_and_without(values: Tensor) -> Tensor:
    """Return the sum over the first axis, and below it the sums without each one."""
    total = values.sum(0, keepdim=True)
    return torch.cat([total, total - values])


def _elementary(powers: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sums of products over pairs and over quadruples of distinct groups, from power sums."""
    one, two, three, four = powers
    pairs = (one**2 - two) / 2
    quadruples = (one**4 - 6 * one**2 * two + 3 * two**2 + 8 * one * three - 6 * four) / 24
    return pairs, quadruples


def _signal_share(moments: Tensor) -> float:
    """Return the share of the noisy map's mean square difference that is not noise, in [0, 1]."""
    pairs, _, _, square, _ = moments.tolist()
    return min(max(pairs / square, 0.0), 1.0) if square > 0 else 1.0


def _trust_in_kurtosis(moments: Tensor, sizes: Tensor) -> tuple[float, float]:
    """Return how far to follow the measured kurtosis, in [0, 1], and what stays unknown of its logarithm."""
    signal = _signal_share(moments[0])
    prior_spread = _PRIOR_SPREAD * (1 - signal**2)
    if signal == 0 or len(sizes) < 5:  # every jackknife replicate needs quadruples
        return 0.0, prior_spread / _PRIOR_KURTOSIS
    kurtosis = moments[:, 1] / moments[:, 0] ** 2
    variance = influence(kurtosis[0], kurtosis[1:], sizes).square().sum().item()
    trust = prior_spread**2 / (prior_spread**2 + variance) if prior_spread > 0 else 0.0
    return trust, (1 - trust) * prior_spread / _PRIOR_KURTOSIS


def _signed_square(moments: Tensor, trust: float) -> Tensor:
    """Return the square of the corrected index, negative where the mean square difference is."""
    pairs, quadruples, absolute, square, fourth = moments.tolist()
    if pairs <= 0 or square <= 0:
        return torch.tensor(pairs * _PRIOR_KURTOSIS ** (-2 * _SHAPE_POWER), dtype=torch.float64)
    signal = _signal_share(moments)
    noisy_kurtosis = fourth / square**2
    kurtosis = _PRIOR_KURTOSIS + signal**2 * (noisy_kurtosis - _PRIOR_KURTOSIS)
    if trust > 0:
        kurtosis += trust * (quadruples / pairs**2 - kurtosis)
    missed = absolute / math.sqrt(square) * noisy_kurtosis**_SHAPE_POWER
    shape = max(kurtosis, 1.0) ** -_SHAPE_POWER * missed ** (signal**4)
    # Noise only adds, so the uncorrected index is too large on average: no estimate should exceed it.
    return torch.tensor(min(pairs * shape**2, absolute**2), dtype=torch.float64)


def _rounded(value: float, error: float) -> tuple[str, str]:
    """Write a value and its error with one or two digits of the error, none below the tenth decimal."""
    if not 0 < error < math.inf:
        return f"{value:.3g}", f"{error:.3g}"
    exponent = math.floor(math.log10(error))
    digits = min(max(-exponent + (error / 10.0**exponent < 2), 0), 10)
    return f"{value:.{digits}f}", f"{error:.{digits}f}"
