"""Differences of neighbouring pixels, and their prediction from the groups that do not measure them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from erfattr.metrics.imbalance import window_mean

# Periods of a checkerboard that are looked for: strides of networks that halve their maps, patches of 14.
_PERIODS = (2, 4, 8, 14, 16, 32)
# Side in pixels of the windows that give the envelope: wide enough to average noise, narrow beside an ERF.
_ENVELOPE = 8
# Classes of predicted size in which the prediction is held against the images.
_CLASSES = 12
# Pairs of groups that are held out, about: all up to 16 groups, neighbours of more.
_PAIRS = 128
# Stands for zero where something that is zero itself is divided by it.
TINY = 1e-300


class Moments(NamedTuple):
    """Means over differences x, their predictions m and what these miss, r = x - m, in classes of |m| / s.

    Each is (G + 1, classes): of all pairs (g, h) of held-out groups, then of the pairs without each group. A
    difference counts as 0 outside its class, so the sum over classes is the mean over all differences.

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


def held_out_moments(sums: Tensor, sizes: Tensor, order: int) -> Moments:
    """Return the moments of predictions and of what they miss, over both axes of a map.

    Args:
        sums: Sums of the groups' maps, (G, H, W).
        sizes: Images of each group, (G,).
        order: 1 for first differences, 2 for second ones.
    """
    groups = len(sizes)
    reach = max(1, _PAIRS // groups)
    pairs = [
        (g, h) for g, h in itertools.combinations(range(groups), 2) if min(h - g, groups - h + g) <= reach
    ]
    envelopes = torch.stack([_envelope(group_sum) for group_sum in sums])
    totals, terms = sums.new_zeros(len(pairs), len(Moments._fields), _CLASSES), 0
    for axis in (0, 1):
        predictors = _Predictors(sums.sum(0) / sizes.sum(), order, axis)
        combination = _regression(predictors, sums, envelopes, sizes)
        x = torch.stack([predictors.differences(group_sum) for group_sum in sums])
        predicted = torch.stack(
            [combination @ predictors(*maps) for maps in zip(sums, envelopes, strict=True)]
        )
        totals += _totals(x, predicted, predictors.scale, sizes, pairs)
        terms += x.shape[1]
    held = torch.tensor(pairs)
    # The first row keeps all pairs, row 1 + g those without group g; a pair counts by its products of images.
    kept = (held[None] != torch.arange(groups)[:, None, None]).all(2)
    weights = torch.cat([torch.ones_like(kept[:1]), kept]) * sizes[held].prod(1)
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
    contrasts = torch.stack([_half_against_half(half, sizes) for half in halves])
    differences = torch.cat([torch.diff(sums, n=order, dim=axis).flatten(1) for axis in (1, 2)], 1)
    return (contrasts @ differences).abs().mean().item()


class _Predictors:
    """What a difference is predicted from: linear in a map, given the local scale of the mean map.

    Attributes:
        scale: Local scale s of each difference, (P,).
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
                self._folds.append((phase, total.clamp_min(TINY)))

    def differences(self, sensitivity_map: Tensor) -> Tensor:
        return torch.diff(sensitivity_map, n=self._order, dim=self._axis).flatten()

    def __call__(self, sensitivity_map: Tensor, envelope: Tensor) -> Tensor:
        """Return (K, P): the differences, those of the envelope, and their means at the same phase."""
        x, smooth = self.differences(sensitivity_map), self.differences(envelope)
        predictors = [x, smooth]
        for phase, total in self._folds:
            means = torch.zeros_like(total).index_add(0, phase, x - smooth) / total
            predictors.append(self.scale * means[phase])
        return torch.stack(predictors)


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
    same = torch.stack(
        [own @ own[0] for own in (predictors(*maps) for maps in zip(sums, envelopes, strict=True))]
    ).sum(0)
    n = sizes.sum()
    products = (whole @ whole[0] - same) * n**2 / (n**2 - sizes.square().sum())
    # Predictors are scaled to unit length: those of a weak pattern are not to fall below the pseudo-inverse's
    # tolerance, which leaves out only what others repeat.
    gram = whole @ whole.T
    length = gram.diagonal().sqrt().clamp_min(TINY)
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
    totals = s.new_zeros(len(pairs), len(Moments._fields), _CLASSES)
    for number, (g, h) in enumerate(pairs):
        # The prediction comes from the groups that are not held out: linear, so by subtraction.
        m = (whole - predicted[g] - predicted[h]) / (n - sizes[g] - sizes[h])
        r_g, r_h = x[g] / sizes[g] - m, x[h] / sizes[h] - m
        r = (r_g + r_h) / 2
        rows = Moments(
            s=s,
            s_squared=s**2,
            m_size=m.abs(),
            m_squared=m * m,
            r_sign_m=r * m.sign(),
            r_m=r * m,
            r_g_r_h=r_g * r_h,
        )
        # Classes of |m| / s, narrow below its mean and wide above.
        place = m.abs() / (m.abs() + typical * s).clamp_min(TINY)
        totals[number].index_add_(1, (_CLASSES * place).long().clamp_max(_CLASSES - 1), torch.stack(rows))
    return totals
