"""Differences of neighbouring pixels, and their prediction from the groups that do not measure them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from erfattr.metrics.imbalance import window_mean
from erfattr.metrics.jackknife import FEWEST_FOR_TWO

# Periods of a checkerboard that are looked for: strides of networks that halve their maps, patches of 14.
_PERIODS = (2, 4, 8, 14, 16, 32)
# Side in pixels of the windows that give the envelope: wide enough to average noise, narrow beside an ERF.
_ENVELOPE = 8
# Classes of predicted size in which the prediction is held against the images.
_CLASSES = 12
# Pairs of groups that are held out, about: all up to 16 groups, neighbours of more.
_PAIRS = 128
# Differences that are worked on at a time, so that they stay in the processor's cache.
_CHUNK = 16384
# Share of a map below which a difference is rounding: a sum of some thousand groups has lost this much.
_ROUNDING = 1e-13
# Stands for zero where something that is zero itself is divided by it.
TINY = 1e-300


class Moments(NamedTuple):
    """Means over differences x, their predictions m and what these miss, r = x - m, in classes of |m| / s.

    Each is (1 + G + D, classes): of all pairs (g, h) of held-out groups, then of the pairs without each
    group, then of those without both groups of each of the D pairs of `held_out_pairs`. A difference counts
    as 0 outside its class, so the sum over classes is the mean over all differences.

    Moments of r, not of x: where a prediction is good, those of x would cancel to rounding.

    Attributes:
        s: Mean of the local scale.
        s_squared: Mean of s^2.
        m_size: Mean of |m|.
        m_squared: Mean of m^2.
        r_sign_m: Mean of r sign(m), r being the mean of the two groups'.
        r_m: Mean of r m, likewise.
        r_g_r_h: Mean of r_g r_h: the noise of two groups is independent, so only what m misses is left.
    """

    s: Tensor
    s_squared: Tensor
    m_size: Tensor
    m_squared: Tensor
    r_sign_m: Tensor
    r_m: Tensor
    r_g_r_h: Tensor


def held_out_pairs(groups: int) -> list[tuple[int, int]]:
    """Return the pairs of groups that are held out together: all of up to 16 groups, neighbours of more."""
    reach = max(1, _PAIRS // groups)
    return [
        (g, h) for g, h in itertools.combinations(range(groups), 2) if min(h - g, groups - h + g) <= reach
    ]


def held_out_moments(sums: Tensor, sizes: Tensor, order: int) -> Moments:
    """Return the moments of predictions and of what they miss, over both axes of a map.

    Args:
        sums: Sums of the groups' maps, (G, H, W).
        sizes: Images of each group, (G,).
        order: 1 for first differences, 2 for second ones.
    """
    groups = len(sizes)
    pairs = held_out_pairs(groups)
    envelopes = torch.stack([_envelope(group_sum) for group_sum in sums])
    totals, terms = sums.new_zeros(len(pairs), len(Moments._fields), _CLASSES), 0
    for axis in (0, 1):
        predictors = _Predictors(sums.sum(0) / sizes.sum(), order, axis)
        combination = _regression(predictors, sums, envelopes, sizes)
        x = torch.stack([predictors.differences(group_sum).flatten() for group_sum in sums])
        predicted = torch.stack(
            [predictors.combined(combination, *maps) for maps in zip(sums, envelopes, strict=True)]
        )
        totals += _totals(x, predicted, predictors.scale.flatten(), sizes, pairs)
        terms += x.shape[1]
    held = torch.tensor(pairs)
    # The first row keeps all pairs, row 1 + g those without group g; a pair counts by its products of images.
    kept = (held[None] != torch.arange(groups)[:, None, None]).all(2)
    without_two = kept[held].all(1) if groups >= FEWEST_FOR_TWO else kept[:0]
    weights = torch.cat([torch.ones_like(kept[:1]), kept, without_two]) * sizes[held].prod(1)
    means = torch.einsum("gp,pkc->gkc", weights / weights.sum(1, keepdim=True), totals)
    return Moments(*(means / terms).unbind(1))


def noise_floor(sums: Tensor, sizes: Tensor, order: int) -> float:
    """Return the index, not normalised, of the noise alone, as strong as in the mean of all images.

    A half of the groups against the other half: the map cancels, and its noise is left. One split for every
    way to cut the circle of groups in two. The arguments are those of `held_out_moments`.
    """
    groups = len(sizes)
    circle = torch.arange(groups)
    halves = [(circle - start) % groups < groups // 2 for start in range((groups + 1) // 2)]
    total, terms = 0.0, 0
    for half in halves:
        contrast = torch.einsum("g,ghw->hw", _half_against_half(half, sizes), sums)
        for axis in (0, 1):
            differences = torch.diff(contrast, n=order, dim=axis)
            total += differences.abs().sum().item()
            terms += differences.numel()
    return total / terms


class _Predictors:
    """What a difference is predicted from: linear in a map, given the local scale of the mean map.

    The difference itself, that of the envelope, and for each period the mean of their remainder at the same
    phase, in units of the local scale, times that scale.

    Attributes:
        scale: Local scale s of each difference, (H', W').
    """

    def __init__(self, mean: Tensor, order: int, axis: int) -> None:
        self._order, self._axis = order, axis
        self.scale = _envelope(mean).abs().unfold(axis, order + 1, 1).mean(-1)
        self._periods = [period for period in _PERIODS if 2 * period <= min(mean.shape)]
        self._totals = [total.clamp_min(TINY) for total in self._folds(self.scale)]

    def differences(self, sensitivity_map: Tensor) -> Tensor:
        """Return the differences of a map, (H', W')."""
        return torch.diff(sensitivity_map, n=self._order, dim=self._axis)

    def products(self, sensitivity_map: Tensor, envelope: Tensor) -> Tensor:
        """Return the products of each predictor with the differences, summed over the map, (K,)."""
        x, smooth, means = self._parts(sensitivity_map, envelope)
        # A repeated pattern times x is the pattern times x at its phases.
        folds = self._folds(self.scale * x) if means else []
        repeated = [(mean * fold).sum() for mean, fold in zip(means, folds, strict=True)]
        return torch.stack([(x * x).sum(), (smooth * x).sum(), *repeated])

    def combined(self, combination: Tensor, sensitivity_map: Tensor, envelope: Tensor) -> Tensor:
        """Return the combination of the predictors with these coefficients, (H' W',)."""
        x, smooth, means = self._parts(sensitivity_map, envelope)
        total = combination[0] * x + combination[1] * smooth
        if means:
            pattern = sum(
                (
                    _repeated(factor * mean, x.shape)
                    for factor, mean in zip(combination[2:], means, strict=True)
                ),
                torch.zeros_like(x),
            )
            total += self.scale * pattern
        return total.flatten()

    def __call__(self, sensitivity_map: Tensor, envelope: Tensor) -> Tensor:
        """Return all predictors, (K, H' W')."""
        x, smooth, means = self._parts(sensitivity_map, envelope)
        repeated = [self.scale * _repeated(mean, x.shape) for mean in means]
        return torch.stack([x, smooth, *repeated]).flatten(1)

    def _parts(self, sensitivity_map: Tensor, envelope: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the differences, those of the envelope, and the mean remainder at each phase."""
        x, smooth = self.differences(sensitivity_map), self.differences(envelope)
        if not self._periods:
            return x, smooth, []
        folds = self._folds(x - smooth)
        return x, smooth, [fold / total for fold, total in zip(folds, self._totals, strict=True)]

    def _folds(self, values: Tensor) -> list[Tensor]:
        """Return, for each period, the sums at the same phase, (period, period)."""
        folds: dict[int, Tensor] = {}
        # A long fold holds the sums of the periods that divide it.
        for period in reversed(self._periods):
            source = next((fold for length, fold in folds.items() if length % period == 0), values)
            folds[period] = _folded(source, period)
        return [folds[period] for period in self._periods]


def _folded(values: Tensor, period: int) -> Tensor:
    """Return the sums of the values at the same phase, (period, period)."""
    height, width = values.shape
    padded = F.pad(values, (0, -width % period, 0, -height % period))
    return padded.reshape(padded.shape[0] // period, period, -1, period).sum((0, 2))


def _repeated(pattern: Tensor, size: torch.Size) -> Tensor:
    """Return a pattern (period, period), repeated over ``size`` and cut off there."""
    period = len(pattern)
    return pattern.repeat(-(-size[0] // period), -(-size[1] // period))[: size[0], : size[1]]


def _envelope(sensitivity_map: Tensor) -> Tensor:
    height, width = sensitivity_map.shape
    return window_mean(sensitivity_map, (min(_ENVELOPE, height), min(_ENVELOPE, width)))


def _half_against_half(half: Tensor, sizes: Tensor) -> Tensor:
    """Return weights of the groups' sums: half's mean less the other's, with the noise of the whole."""
    here, there = sizes[half].sum(), sizes[~half].sum()
    weight = torch.where(half, 1 / here, -1 / there)
    return weight * (here * there).sqrt() / sizes.sum()


def _regression(predictors: _Predictors, sums: Tensor, envelopes: Tensor, sizes: Tensor) -> Tensor:
    """Return the combination of predictors nearest to the true differences, (K,).

    Their products with the true differences are unbiased over pairs of different groups.
    """
    whole = predictors(sums.sum(0), envelopes.sum(0))
    # All pairs of groups less those of a group with itself, whose noise would count as signal.
    same = torch.stack([predictors.products(*maps) for maps in zip(sums, envelopes, strict=True)]).sum(0)
    n = sizes.sum()
    products = (whole @ whole[0] - same) * n**2 / (n**2 - sizes.square().sum())
    # Predictors are scaled to unit length: those of a weak pattern are not to fall below the pseudo-inverse's
    # tolerance, which leaves out only what others repeat.
    gram = whole @ whole.T
    length = gram.diagonal().sqrt()
    # What is left of a constant by rounding predicts nothing: it is as if it were zero.
    length = torch.where(length > _ROUNDING * predictors.scale.norm() * n, length, torch.inf)
    inverse = torch.linalg.pinv(gram / length / length[:, None], rtol=1e-12, hermitian=True)
    combination: Tensor = inverse @ (products / length) / length
    return combination


def _totals(x: Tensor, predicted: Tensor, s: Tensor, sizes: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """Return sums of what `Moments` are the means of, (pairs, moments, classes).

    Args:
        x: Differences of the groups' sums, (G, P).
        predicted: What the predictors of each group's sum combine to, (G, P).
        s: Local scale of each difference, (P,).
        sizes: Images of each group, (G,).
        pairs: Groups held out together.
    """
    whole, n = predicted.sum(0), sizes.sum()
    typical = (whole / n).abs().sum() / s.sum().clamp_min(TINY)

    def part(start: int) -> Tensor:
        here = slice(start, start + _CHUNK)
        means = x[:, here] / sizes[:, None]
        return _totals_of_part(means, predicted[:, here], whole[here], s[here], typical, sizes, pairs)

    starts = range(0, x.shape[1], _CHUNK)
    with ThreadPoolExecutor(max(1, min(torch.get_num_threads(), len(starts)))) as pool:
        # Added in the order of the parts: the same sum with any number of threads.
        return sum(pool.map(part, starts), s.new_zeros(len(pairs), len(Moments._fields), _CLASSES))


def _totals_of_part(
    means: Tensor,
    predicted: Tensor,
    whole: Tensor,
    s: Tensor,
    typical: Tensor,
    sizes: Tensor,
    pairs: list[tuple[int, int]],
) -> Tensor:
    """Return the sums over a part of the differences that stays in the processor's cache.

    ``means`` are the groups' mean differences, (G, P); the other arguments are those of `_totals`.
    """
    n, counts = sizes.sum().item(), sizes.tolist()
    # One class more, for |m| / s that rounds up to the end of the last one.
    totals = s.new_zeros(len(pairs), len(Moments._fields), _CLASSES + 1)
    rows = s.new_empty(len(Moments._fields), len(s))
    classes = torch.empty_like(s, dtype=torch.long)
    # NumPy's arithmetic on the same memory: a call of it costs a fifth of one of torch's, and there are many.
    own, s_squared, m_size, m_squared, r_sign_m, r_m, r_g_r_h = rows.numpy()  # as in `Moments`
    x, given, local, places = means.numpy(), predicted.numpy(), s.numpy(), classes.numpy()
    without = whole.numpy() - given
    # Classes of |m| / s, narrow below its mean and wide above.
    middle = np.maximum(typical.item() * local, TINY)
    own[:] = local
    np.square(local, out=s_squared)
    # Written into again and again: memory that is asked for anew costs more than the arithmetic.
    m, r, other = (np.empty_like(local) for _ in range(3))
    for number, (g, h) in enumerate(pairs):
        # The prediction comes from the groups that are not held out: linear, so by subtraction.
        np.subtract(without[g], given[h], out=m)
        np.divide(m, n - counts[g] - counts[h], out=m)
        np.abs(m, out=m_size)
        np.square(m, out=m_squared)
        np.subtract(x[g], m, out=r)
        np.subtract(x[h], m, out=other)
        np.multiply(r, other, out=r_g_r_h)
        np.add(r, other, out=r)  # twice the mean: halved at the end
        np.multiply(r, m, out=r_m)
        np.sign(m, out=other)
        np.multiply(other, r, out=r_sign_m)
        np.add(m_size, middle, out=other)
        np.divide(m_size, other, out=other)
        np.multiply(other, _CLASSES, out=other)
        places[:] = other
        totals[number].index_add_(1, classes, rows)
    totals[..., -2] += totals[..., -1]
    found = Moments(*totals[..., :-1].unbind(1))
    return torch.stack(found._replace(r_sign_m=found.r_sign_m / 2, r_m=found.r_m / 2), 1)
