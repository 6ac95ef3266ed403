"""Noise of an estimate: measured by a jackknife over a map's groups of images, and held back.

Squares and products can be estimated without bias, by products of different groups; they may come out
negative. What is wanted is their root, and of a noisy value the share that is not noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from erfattr._checks import describe
from erfattr.metrics.statistics import MapStatistics

# A jackknife leaves one group out, and a product of two groups needs two that are left.
FEWEST_GROUPS = 3
# A product of two groups needs two more where two are left out.
FEWEST_FOR_TWO = 4


class SignedRoot(NamedTuple):
    """The root of a square that was estimated, with the square's sign.

    Attributes:
        value: ``sign(square) * sqrt(abs(square))``.
        standard_error: One standard deviation of ``value``.
        influence: Each group's part in the standard error, (G,): the root of their sum of squares is the
            error.
    """

    value: float
    standard_error: float
    influence: Tensor


def group_sums(name: str, stats: Any) -> tuple[Tensor, Tensor]:
    """Return sums (G, H, W) and sizes (G,) of the groups, float64, of statistics that hold enough of them."""
    if not isinstance(stats, MapStatistics):
        hint = "; attribute(..., return_statistics=True) returns one" if isinstance(stats, Tensor) else ""
        raise TypeError(f"{name}: expected a MapStatistics, got {describe(stats)}{hint}")
    groups = len(stats.group_sizes)
    if groups < FEWEST_GROUPS:
        raise ValueError(
            f"{name}: expected at least {FEWEST_GROUPS} groups of images,"
            f" got {groups} ({stats.n_images} images)"
        )
    means = stats.group_means.double()
    if not bool(torch.isfinite(means).all()):
        raise ValueError(f"{name}: expected finite values, got {int((~torch.isfinite(means)).sum())} not so")
    if not bool(stats.mean.any()):
        raise ValueError(f"{name}: expected a map that is not zero everywhere, got only zeros")
    sizes = torch.tensor(stats.group_sizes, dtype=torch.float64)
    return means * sizes[:, None, None], sizes


def with_and_without(values: Tensor) -> Tensor:
    """Return the sum over the first axis, and below it the sums without each one."""
    total = values.sum(0, keepdim=True)
    return torch.cat([total, total - values])


def pseudo_values(whole: Tensor, without: Tensor, sizes: Tensor) -> Tensor:
    """Return h whole - (h - 1) without, with h = n / size: as if each group had given a value of its own.

    Args:
        whole: The estimate from all groups, of any shape.
        without: The estimates without each group, with a first axis more, (G, ...).
        sizes: Images of each group, (G,).
    """
    h = _inverse_shares(sizes, whole)
    return h * whole - (h - 1) * without


def influence(whole: Tensor, without: Tensor, sizes: Tensor) -> Tensor:
    """Return each group's part in the error, (G, ...): delete-m jackknife for groups of unequal size.

    The arguments are those of `pseudo_values`; Busing et al. 1999, eq. 8.
    """
    h = _inverse_shares(sizes, whole)
    joined = len(sizes) * whole - ((1 - 1 / h) * without).sum(0)
    return (pseudo_values(whole, without, sizes) - joined) / (len(sizes) * (h - 1)).sqrt()


def standard_error(whole: Tensor, without: Tensor, sizes: Tensor) -> Tensor:
    """Return one standard deviation of ``whole``; the arguments are those of `pseudo_values`."""
    return influence(whole, without, sizes).square().sum(0).sqrt()


def root_mean_product(rows: Tensor) -> SignedRoot:
    """Return the root of the mean product of two different rows, with its standard error.

    To it, noise that is independent between the rows adds nothing on average.

    Args:
        rows: One for each group, (G, K).
    """
    count = len(rows)
    products = rows @ rows.T / rows.shape[1]
    products.fill_diagonal_(0)
    total, of_row = products.sum(), products.sum(1)
    whole = total / (count * (count - 1))
    one = (total - 2 * of_row) / ((count - 1) * (count - 2))
    pairs = list(itertools.combinations(range(count), 2)) if count >= FEWEST_FOR_TWO else []
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    two = total - 2 * (of_row[first] + of_row[second] - products[first, second])
    two = two / max((count - 2) * (count - 3), 1)
    # Rows count alike, whatever the sizes of their groups.
    return signed_root(whole, one, torch.ones_like(one), second_order_share(whole, one, two, pairs))


def second_order_share(whole: Tensor, one: Tensor, two: Tensor, pairs: Sequence[tuple[int, int]]) -> float:
    """Return the share of a jackknife's variance that is left once what it counts twice is taken off.

    Of a mean over pairs of groups, the part that no group has alone varies less than the jackknife says: by
    half, where nothing but noise is measured. The estimates without two groups say how large that part is.

    Args:
        whole: The estimate from all groups, a scalar.
        one: The estimates without each group, (G,).
        two: The estimates without both groups of each pair, (D,).
        pairs: The D pairs.

    Returns:
        From (G - 2) / (2 (G - 1)), where no group has a part of its own, to 1; 1 where there is no pair.

    References:
        B. Efron and C. Stein: The jackknife estimate of variance. Annals of Statistics 9, 1981, section 5.
    """
    if not pairs:
        return 1.0
    n = len(one)
    first, second = torch.tensor(pairs, device=one.device).T
    q = n * whole - (n - 1) * (one[first] + one[second]) + (n - 2) * two
    variance = (n - 1) / n * (one - one.mean()).square().sum()
    twice = (q - q.mean()).square().sum() / (n * (n + 1))
    share = 1 - twice / variance.clamp_min(torch.finfo(variance.dtype).tiny)
    # What is left where no group has a part of its own; less would be the correction's own noise.
    return min(max(share.item(), (n - 2) / (2 * (n - 1))), 1.0)


def signed_root(square: Tensor, without: Tensor, sizes: Tensor, share: float = 1.0) -> SignedRoot:
    """Return the root of an estimated square, which keeps the square's sign, and its standard error.

    The error is half of what two errors of the square towards zero take away from the root. Far from zero
    that is error / (2 root). Near zero this formula would make the ratio of root and error twice that of the
    square and its error, so chance would look significant.

    Args:
        square: The square from all groups, a scalar.
        without: The squares without each group, (G,).
        sizes: Images of each group, (G,).
        share: What of the jackknife's variance counts, as `second_order_share` says.
    """
    parts = influence(square, without, sizes) * math.sqrt(share)
    error_of_square = parts.square().sum().sqrt().item()
    size = abs(square.item())
    error = (math.sqrt(size) - _signed_sqrt(size - 2 * error_of_square)) / 2
    # The parts add up to the square's error, and are scaled to add up to the root's.
    ratio = error / error_of_square if error_of_square else 0.0
    return SignedRoot(_signed_sqrt(square.item()), error, parts * ratio)


def signal_share(signal: Tensor, noise: Tensor) -> Tensor:
    """Return signal / (signal + noise), Wiener's factor: what a noisy value is multiplied by.

    Args:
        signal: Mean square of what is wanted, not negative.
        noise: Mean square of the error, not negative.

    Returns:
        In [0, 1]; 0 where there is neither.
    """
    return signal / (signal + noise).clamp_min(torch.finfo(torch.float64).tiny)


def _inverse_shares(sizes: Tensor, whole: Tensor) -> Tensor:
    """Return h = n / size of each group, with as many axes behind it as an estimate has."""
    return (sizes.sum() / sizes).reshape(-1, *[1] * whole.ndim)


def _signed_sqrt(square: float) -> float:
    return math.copysign(math.sqrt(abs(square)), square)
