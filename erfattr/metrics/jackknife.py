"""Jackknife over the groups of a map's statistics: what estimators with standard errors share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from erfattr._checks import describe
from erfattr.metrics.statistics import MapStatistics

# A jackknife leaves one group out, and a product of two groups needs two that are left.
FEWEST_GROUPS = 3


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


def influence(whole: Tensor, without: Tensor, sizes: Tensor) -> Tensor:
    """Return each group's share in the error: the root of the sum of squares is the jackknife's error.

    Delete-m jackknife for groups of unequal size; ``whole`` of any shape, ``without`` with a first axis more.
    """
    weight = (sizes.sum() / sizes).reshape(-1, *[1] * whole.ndim)
    joined = len(sizes) * whole - ((1 - 1 / weight) * without).sum(0)
    pseudo = weight * whole - (weight - 1) * without
    return (pseudo - joined) / (len(sizes) * (weight - 1)).sqrt()


def mean_product(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean product of two different rows, of all rows and without each one."""
    count = len(rows)
    products = rows @ rows.T / rows.shape[1]
    products.fill_diagonal_(0)
    total = products.sum()
    without = (total - 2 * products.sum(1)) / ((count - 1) * (count - 2))
    return total / (count * (count - 1)), without


def signed_root(square: float) -> float:
    return math.copysign(math.sqrt(abs(square)), square)


def error_of_root(square: float, error: float) -> float:
    """Return one standard error of the signed root: half of what two errors towards zero take away.

    Far from zero: error / (2 root). Near zero that formula would make the ratio of root and error twice
    that of the square and its error, so chance would look significant.
    """
    size = abs(square)
    return (math.sqrt(size) - signed_root(size - 2 * error)) / 2
