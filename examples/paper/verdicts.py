"""The rules by which claims are judged, written before the runs that they judge, and their statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

SIGNIFICANT = 0.05
HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "not decided", "cannot be tested here"
# A rank correlation below this explains less than half of the variance of the ranks.
STRONG = 0.5**0.5

# What the record prints. A number in a rule is not changed once its runs have begun.
RULES = {
    "size": "holds where every 95 % interval of Spearman's correlation over networks ends below "
    "0.71; does not hold where one correlation is positive with p below 0.05. Nine "
    "networks cannot exclude a strong relation; 18 can.",
    "depth": "holds where sigma of trained networks grows from ResNet-50 to ResNet-152 by less "
    "than the fourth root of the ratio of depths. It needs their ImageNet weights.",
    "imbalance_resnets": "judged over ResNets by L1 alone, since L1 and L2 of one network are not "
    "independent: a random-effects mean of the differences (DerSimonian and Laird, with "
    "Hartung and Knapp's error). Holds where the mean is negative with p below 0.05 and "
    "the 95 % prediction interval for a further network leaves out 0.",
    "imbalance_no_pool": "the same change of L1 for MobileNetV2, which has no pool to widen, by the paired "
    "t-test over its trained runs. About 13 pairs would decide an effect of the size "
    "seen in the first three.",
    "accuracy": "decided on pairs of runs that did not suggest the claim: seeds 10 to 14 of "
    "MobileNetV2 and of the demo network, 2 epochs at 112 pixels, precision 32. "
    "Stratified by network: the mean of the networks' mean paired differences, its "
    "error from the variances within networks, Welch's degrees of freedom, two-sided.",
    "speed": "decided on new pairs of `original` and `padded_fresh`, which is the paper's "
    "condition since it trains from scratch: seeds 600 to 624 of the demo network in "
    "each of the two micro-object tasks, 50 pairs in all. Time is the number of steps "
    "until the test accuracy, measured four times an epoch, first exceeds 90 %, as its "
    "logarithm. Stratified by task as accuracy is by network, two-sided.",
    "translation": "decided on the networks of the new pairs for accuracy: the share of predictions "
    "that change under a step of one pixel, averaged over all eight steps, stratified by "
    "network, two-sided. The top probability's change is shown beside it and does not "
    "decide.",
    "perturbation_size": "holds where R of the pixels correlates (Spearman, p below 0.05) both with the mean "
    "rise and with the mean absolute change of the output, in photographs that did not "
    "make R. Beside it, for random amplitudes: the correlation of the change's size "
    "with amplitude times R, and with the amplitude alone.",
    "perturbation_sign": "equation 12 also says that a pixel made brighter raises the output. Holds where R "
    "of the pixels correlates positively (Spearman, p below 0.05) with the mean signed "
    "change.",
}


def verdict(effect: float, p: float | None, claimed: int) -> str:
    """Judge an effect whose claimed sign is +1 or -1; no p: all values were equal, and the sign decides."""
    if p is not None and p >= SIGNIFICANT:
        return OPEN
    return HOLDS if effect * claimed > 0 else FAILS


def agreed(verdicts: Iterable[str]) -> str:
    """Several measurements of one claim decide it where they agree."""
    different = set(verdicts)
    return different.pop() if len(different) == 1 else OPEN


class Pooled(NamedTuple):
    """A mean over strata or networks.

    Attributes:
        mean: The effect.
        error: Its standard error.
        p: Two-sided.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    mean: float
    error: float
    p: float
    low: float
    high: float


def _pooled(mean: float, error: float, freedom: float) -> Pooled:
    half = float(student.ppf(1 - SIGNIFICANT / 2, freedom)) * error
    p = float(2 * student.sf(abs(mean) / error, freedom)) if error > 0 else float(mean == 0)
    return Pooled(mean, error, p, mean - half, mean + half)


def stratified(strata: Sequence[Sequence[float]]) -> Pooled:
    """Mean of the strata's mean paired differences; each stratum weighs alike (Welch, Satterthwaite)."""
    means = [float(np.mean(values)) for values in strata]
    # The variance that each stratum adds to the mean of the means.
    shares = [float(np.var(values, ddof=1)) / len(values) / len(strata) ** 2 for values in strata]
    variance = sum(shares)
    parts = sum(share**2 / (len(values) - 1) for share, values in zip(shares, strata, strict=True))
    freedom = variance**2 / parts if parts > 0 else math.inf
    return _pooled(float(np.mean(means)), math.sqrt(variance), freedom)


class RandomEffects(NamedTuple):
    """A random-effects mean, and the 95 % interval in which a further network's effect is predicted."""

    mean: Pooled
    spread: float
    low: float
    high: float


def random_effects(effects: Sequence[float], errors: Sequence[float]) -> RandomEffects:
    """Pool effects of different networks (DerSimonian and Laird 1986; Hartung and Knapp 2001).

    The prediction interval is that of Higgins, Thompson and Spiegelhalter (2009), with k - 2 degrees of
    freedom.
    """
    y, v = np.asarray(effects, float), np.asarray(errors, float) ** 2
    k, w = len(y), 1 / v
    fixed = (w * y).sum() / w.sum()
    heterogeneity = (w * (y - fixed) ** 2).sum()
    tau2 = max(0.0, (heterogeneity - (k - 1)) / (w.sum() - (w**2).sum() / w.sum()))
    w = 1 / (v + tau2)
    mean = float((w * y).sum() / w.sum())
    error = math.sqrt((w * (y - mean) ** 2).sum() / ((k - 1) * w.sum()))
    half = float(student.ppf(1 - SIGNIFICANT / 2, k - 2)) * math.sqrt(tau2 + error**2)
    return RandomEffects(_pooled(mean, error, k - 1), math.sqrt(tau2), mean - half, mean + half)
