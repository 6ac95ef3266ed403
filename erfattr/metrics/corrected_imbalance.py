"""Imbalance indices without the sampling noise of their map, with standard errors, and their comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from erfattr._checks import check_choice
from erfattr._showing import Shown
from erfattr.metrics._held_out import (
    TINY,
    Moments,
    held_out_moments,
    held_out_pairs,
    noise_floor,
)
from erfattr.metrics.imbalance import imbalance_index
from erfattr.metrics.jackknife import (
    FEWEST_FOR_TWO,
    group_sums,
    second_order_share,
    signal_share,
    signed_root,
    standard_error,
    with_and_without,
)
from erfattr.metrics.statistics import MapStatistics

# Standard deviation of an index that may lie anywhere between its two bounds, as a share of their distance.
_SHAPE_SPREAD = 1 / math.sqrt(12)


@dataclass(frozen=True, repr=False)
class Estimate(Shown):
    """An imbalance index without the sampling noise of its map.

    Attributes:
        value: The index at infinitely many images. Negative (about every other time) where the map has no
            imbalance that can be told from noise: read it as 0 within its standard error.
        standard_error: One standard deviation of ``value``: the root of the sum of squares of the two below.
        sampling_error: Its part that falls with the number of images: how far the value scatters between
            samples of images.
        shape_error: Its part that no number of images tells beforehand: what is not known about the
            distribution of the differences that the noise hides. It widens the error where it is needed and
            where not.
        uncorrected: `imbalance_index` of the mean map as it is.
        noise_floor: What a perfectly flat map with the same noise would score over as many images.
        n_images: Number of images.
        order: 1 for eq. 4, 2 for eq. 5.
        normalize: ``"mean"`` or ``"none"``, as in `imbalance_index`.

    Example:
        >>> from erfattr import DeadPixelMap, corrected_imbalance, demo_model, sample_images
        >>> images = sample_images(16, size=64).split(1)
        >>> _, statistics = DeadPixelMap(demo_model()).attribute(images, return_statistics=True)
        >>> estimate = corrected_imbalance(statistics)
        >>> estimate.value < estimate.uncorrected, estimate.n_images
        (True, 16)
    """

    value: float
    standard_error: float
    uncorrected: float
    noise_floor: float
    n_images: int
    order: int = 1
    normalize: str = "mean"
    sampling_error: float = math.nan
    shape_error: float = math.nan

    def _in_words(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """Value and error with two digits of the error, and what they were computed from."""
        value, error = _rounded(self.value, self.standard_error)
        parts = ""
        if math.isfinite(self.sampling_error):
            sampling, shape = (_rounded(0, part)[1] for part in (self.sampling_error, self.shape_error))
            parts = f"{sampling} over images, {shape} shape; "
        return (
            f"L{self.order} {value} +- {error} "
            f"({parts}uncorrected {self.uncorrected:.3g}, noise floor {self.noise_floor:.3g}, "
            f"{self.n_images} images)"
        )


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Difference of two corrected indices.

    Attributes:
        difference: The first index minus the second.
        standard_error: One standard deviation of the difference.
        first: The first estimate.
        second: The second estimate.

    Example:
        >>> from erfattr import DeadPixelMap, compare_imbalance, demo_model, sample_images
        >>> model, images = demo_model(), sample_images(16, size=64).split(1)
        >>> _, of_demo = DeadPixelMap(model).attribute(images, return_statistics=True)
        >>> comparison = compare_imbalance(of_demo, of_demo, paired=True)
        >>> comparison.difference, comparison.first == comparison.second
        (0.0, True)
    """

    difference: float
    standard_error: float
    first: Estimate
    second: Estimate

    def _in_words(self) -> str:
        return self.sentence

    @property
    def sentence(self) -> str:
        """What a reader may conclude, such as ``"smaller by 0.031 +- 0.004 (0.051 against 0.082)"``."""
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
        The `Estimate`. Its standard error comes from a jackknife over the groups, less what that counts twice
        of v (`second_order_share`), and from how far the
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
    return _fit(stats, order, normalize).estimate


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
    first, second = _fit(a, order, normalize, "a"), _fit(b, order, normalize, "b")
    if not paired:
        error = math.hypot(first.estimate.standard_error, second.estimate.standard_error)
    elif a.group_sizes != b.group_sizes:
        raise ValueError(
            f"paired: expected the same images and groups in both, got groups of {a.group_sizes} images"
            f" and of {b.group_sizes}"
        )
    else:
        # Group by group, so that what both maps have from the same images cancels.
        from_images = (first.influence - second.influence).square().sum().sqrt().item()
        error = math.hypot(from_images, first.unknown, second.unknown)
    difference = first.estimate.value - second.estimate.value
    return Comparison(difference, error, first.estimate, second.estimate)


class _Fit(NamedTuple):
    """An estimate, and the two parts of its standard error.

    Attributes:
        estimate: What is returned.
        influence: Each group's part in the error over images, (G,).
        unknown: The part that no image tells: the shape of the distribution of differences.
    """

    estimate: Estimate
    influence: Tensor
    unknown: float


class _Classes(NamedTuple):
    """What the moments say of each class, in units of the local scale s; the first axis is that of `Moments`.

    Attributes:
        s: Mean of s, the weight of the class in the index, (G + 1, classes).
        b_m: Predicted size b |m| / s, (G + 1, classes).
        shape: sigma^2 / (s^2 v), (G + 1, classes).
        v: Variance of what the prediction misses, summed over the classes, (G + 1,).
    """

    s: Tensor
    b_m: Tensor
    shape: Tensor
    v: Tensor


def _fit(stats: MapStatistics, order: int, normalize: str, name: str = "stats") -> _Fit:
    """Estimate as `corrected_imbalance` says; ``name`` is what messages call the statistics."""
    check_choice("order", order, (1, 2))
    check_choice("normalize", normalize, ("none", "mean"))
    sums, sizes = group_sums(name, stats)
    uncorrected = imbalance_index(stats.mean, order, normalize).item()  # refuses small maps and bad means
    # Squares of gradients would leave the range of floating-point numbers in the end.
    scale = stats.mean.abs().max().item()
    sums = sums / scale
    groups = len(sizes)
    means = with_and_without(sums.mean((1, 2))) / with_and_without(sizes)
    unit = torch.full_like(means, 1 / scale) if normalize == "none" else means

    found = _classes(held_out_moments(sums, sizes, order))
    # The last rows, without two groups, are for the error of v alone.
    s, b_m, shape, v = (part[: 1 + groups] for part in found)
    epsilon = standard_error(v[0], v[1:], sizes)
    v_held_back = v * signal_share(v**2, epsilon**2)
    lower = (s * b_m).sum(1)
    values = (lower + _missed(s, b_m, shape, v_held_back)) / unit
    alone = (lower[0] + _missed(s[:1], b_m[:1], shape[:1], v_held_back)) / unit[0]

    # The jackknife is one of squares: an index near zero is no smooth function of the images, its square is.
    squares, by_v = values * values.abs(), alone * alone.abs()
    # v is a mean over pairs of groups, of which a jackknife counts a part twice; the rest is none.
    pairs = held_out_pairs(groups) if groups >= FEWEST_FOR_TWO else []
    twice = 1 - second_order_share(v[0], v[1:], found.v[1 + groups :], pairs)
    variance_by_v, variance = (standard_error(x[0], x[1:], sizes).square() for x in (by_v, squares))
    of_v = (variance_by_v / variance.clamp_min(TINY)).clamp_max(1).item()
    root = signed_root(squares[0], squares[1:], sizes, share=1 - twice * of_v)
    # The most that lies beyond the prediction, an error epsilon above what was found.
    beyond = shape[0] * (v[0].clamp_min(0) + epsilon)
    upper = (s[0] * (b_m[0] ** 2 + beyond).sqrt()).sum()
    unknown = _SHAPE_SPREAD * ((upper - lower[0]) / unit[0]).item()
    estimate = Estimate(
        value=values[0].item(),
        standard_error=math.hypot(root.standard_error, unknown),
        uncorrected=uncorrected,
        noise_floor=noise_floor(sums, sizes, order) / unit[0].item(),
        n_images=stats.n_images,
        order=order,
        normalize=normalize,
        sampling_error=root.standard_error,
        shape_error=unknown,
    )
    return _Fit(estimate, root.influence, unknown)


def _missed(s: Tensor, b_m: Tensor, shape: Tensor, v: Tensor) -> Tensor:
    """Return what no prediction reaches, for each row of v.

    A negative v comes of noise as often as a positive one: its term is subtracted, so that they cancel.
    """
    return v.sign() * (s * _excess(b_m, shape * v.abs()[:, None])).sum(1)


def _classes(moments: Moments) -> _Classes:
    """Return what the moments say of each class: b, v and how v is shared out."""
    s, s_squared, m_size, m_squared, r_sign_m, r_m, r_g_r_h = moments
    # b = <x sign m> / <|m|> and v_class = <(x_g - b m) (x_h - b m)>, with x = m + r.
    b = (1 + r_sign_m / m_size.clamp_min(TINY)).clamp_min(0)
    v_class = r_g_r_h - 2 * (b - 1) * r_m + (b - 1) ** 2 * m_squared
    v = v_class.sum(1)
    # For a class that came out negative by chance, the others make up. Where their sum did, no class is known
    # to differ: sigma is the same multiple of s in all.
    positive = torch.where(v[:, None] > 0, v_class.clamp_min(0), s_squared)
    shape = positive / s_squared.clamp_min(TINY) / positive.sum(1, keepdim=True).clamp_min(TINY)
    return _Classes(s, b * m_size / s.clamp_min(TINY), shape, v)


def _excess(size: Tensor, variance: Tensor) -> Tensor:
    """Return E|N(size, variance)| - size: the mean of a folded normal distribution, less its fold."""
    sigma = variance.sqrt()
    z = size / sigma.clamp_min(TINY)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    tail: Tensor = torch.special.ndtr(-z)
    return 2 * (sigma * density - size * tail)


def _rounded(value: float, error: float) -> tuple[str, str]:
    """Write a value and its error with one or two digits of the error, none below the tenth decimal."""
    if not 0 < error < math.inf:
        return f"{value:.3g}", f"{error:.3g}"
    exponent = math.floor(math.log10(error))
    digits = min(max(-exponent + (error / 10.0**exponent < 2), 0), 10)
    return f"{value:.{digits}f}", f"{error:.{digits}f}"
