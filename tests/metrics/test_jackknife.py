"""Errors of estimates from groups against means and roots whose errors are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import sem

from erfattr.metrics.jackknife import (
    group_sums,
    influence,
    pseudo_values,
    root_mean_product,
    second_order_share,
    signal_share,
    signed_root,
    standard_error,
    with_and_without,
)
from erfattr.metrics.statistics import MapStatistics

VALUES = torch.tensor([1.0, 4.0, 2.0, 9.0, 4.0], dtype=torch.float64)
ALIKE = torch.ones(5, dtype=torch.float64)


def whole_and_without(values: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over all images of groups with these means, and the means without each group."""
    means = with_and_without(values * sizes) / with_and_without(sizes)
    return means[0], means[1:]


def test_sums_with_and_without() -> None:
    assert with_and_without(VALUES).tolist() == [20, 19, 16, 18, 11, 16]
    assert with_and_without(torch.eye(2)).tolist() == [[1, 1], [0, 1], [1, 0]]


def test_error_of_a_mean_is_the_standard_error_of_the_mean() -> None:
    whole, without = whole_and_without(VALUES, ALIKE)
    assert standard_error(whole, without, ALIKE).item() == pytest.approx(sem(VALUES.numpy()), rel=1e-12)
    # Whatever the shape of the estimate.
    several = standard_error(whole * torch.ones(2, 3), without[:, None, None] * torch.ones(2, 3), ALIKE)
    assert several.tolist() == [[pytest.approx(sem(VALUES.numpy()), rel=1e-12)] * 3] * 2


def test_pseudo_values_of_a_mean_are_the_groups_means() -> None:
    sizes = torch.tensor([2.0, 1.0, 3.0, 1.0, 2.0], dtype=torch.float64)
    whole, without = whole_and_without(VALUES, sizes)
    torch.testing.assert_close(pseudo_values(whole, without, sizes), VALUES, rtol=1e-12, atol=0)


def test_influence_of_unequal_groups_is_busings_formula() -> None:
    sizes = [2, 1, 3, 1, 2]
    whole, without = whole_and_without(VALUES, torch.tensor(sizes).double())
    h = [9 / size for size in sizes]
    joined = 5 * whole - sum((1 - 1 / k) * t for k, t in zip(h, without.tolist(), strict=True))
    expected = [
        (k * whole - (k - 1) * t - joined) / math.sqrt(5 * (k - 1))
        for k, t in zip(h, without.tolist(), strict=True)
    ]
    found = influence(whole, without, torch.tensor(sizes).double())
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_mean_product_leaves_out_what_a_row_has_with_itself() -> None:
    # By entry 1 * 2 + 1 * 3 + 2 * 3 = 11 over 3 pairs; without one row the product of the other two.
    rows = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], dtype=torch.float64)
    found = root_mean_product(rows)
    without = torch.tensor([6.0, 3.0, 2.0], dtype=torch.float64)
    expected = signed_root(torch.tensor(11 / 3, dtype=torch.float64), without, torch.ones(3).double())
    assert found.value == pytest.approx(math.sqrt(11 / 3), rel=1e-12)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-12)


PAIRS = list(itertools.combinations(range(8), 2))
EIGHT = torch.ones(8, dtype=torch.float64)


def mean_product(rows: torch.Tensor) -> torch.Tensor:
    products = rows @ rows.T / rows.shape[1]
    return (products.sum() - products.trace()) / (len(rows) * (len(rows) - 1))


def left_out(
    statistic: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a statistic of eight rows, those without each one, and those without two."""

    def without(*some: int) -> torch.Tensor:
        return statistic(rows[[row for row in range(8) if row not in some]])

    one = torch.stack([without(row) for row in range(8)])
    return statistic(rows), one, torch.stack([without(*pair) for pair in PAIRS])


def test_estimates_without_two_rows_are_those_of_the_other_rows() -> None:
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double() + 1
    whole, one, two = left_out(mean_product, rows)
    share = second_order_share(whole, one, two, PAIRS)
    assert 6 / 14 < share < 1
    expected = signed_root(whole, one, EIGHT, share)
    assert root_mean_product(rows).standard_error == pytest.approx(expected.standard_error, rel=1e-12)


def test_nothing_is_counted_twice_of_a_mean() -> None:
    rows = torch.randn(8, generator=torch.Generator().manual_seed(0)).double()
    whole, one, two = left_out(torch.mean, rows)
    assert second_order_share(whole, one, two, PAIRS) == pytest.approx(1, abs=1e-12)
    assert second_order_share(whole, one, two[:0], []) == 1


@pytest.mark.parametrize(
    # Without a signal the jackknife says more than twice the variance; with a strong one it is right.
    ("signal", "said", "corrected"),
    [(0.0, 14 / 6, 1.4), (2.0, 1.04, 1.02)],
)
def test_variance_of_a_mean_product_is_nearer_to_its_spread(
    signal: float, said: float, corrected: float
) -> None:
    drawn = torch.randn(1500, 8, 50, generator=torch.Generator().manual_seed(1)).double() + signal
    squares, variances, shares = [], [], []
    for rows in drawn:
        whole, one, two = left_out(mean_product, rows)
        squares.append(whole)
        variances.append(standard_error(whole, one, EIGHT).square())
        shares.append(second_order_share(whole, one, two, PAIRS))
    spread, stated = torch.stack(squares).var(), torch.stack(variances)
    assert (stated.mean() / spread).item() == pytest.approx(said, rel=0.05)
    assert ((stated * torch.tensor(shares)).mean() / spread).item() == pytest.approx(corrected, rel=0.05)


@pytest.mark.parametrize(
    ("square", "error_of_square", "value", "error"),
    [
        # Half of root(9) - root(9 - 2 * 4) = (3 - 1) / 2.
        (9.0, 4.0, 3.0, 1.0),
        # Across zero the root keeps its sign: (root(4) + root(12)) / 2.
        (4.0, 8.0, 2.0, 1 + math.sqrt(3)),
        # A negative square has a negative root, and the error of the positive one.
        (-9.0, 4.0, -3.0, 1.0),
        (0.0, 2.0, 0.0, 1.0),
        # Without an error of the square the root has none.
        (9.0, 0.0, 3.0, 0.0),
    ],
)
def test_signed_root_by_hand(square: float, error_of_square: float, value: float, error: float) -> None:
    # Two estimates up and two down, with the sum of squared influences that is wanted.
    whole = torch.tensor(square, dtype=torch.float64)
    spread = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    sizes = torch.ones(4, dtype=torch.float64)
    without = whole + spread * error_of_square / standard_error(whole, whole + spread, sizes)
    root = signed_root(whole, without, sizes)
    assert root.value == pytest.approx(value, rel=1e-12)
    assert root.standard_error == pytest.approx(error, rel=1e-12)
    assert root.influence.square().sum().sqrt().item() == pytest.approx(error, rel=1e-12)
    if error:
        assert root.influence.sign().tolist() == influence(whole, without, sizes).sign().tolist()


def test_error_of_a_root_far_from_zero_is_that_of_calculus() -> None:
    square = torch.tensor(100.0, dtype=torch.float64)
    without = square + 1e-4 * torch.tensor([1.0, -1.0, 2.0, -2.0, 0.0], dtype=torch.float64)
    root = signed_root(square, without, ALIKE)
    # d sqrt(q) = dq / (2 sqrt(q)), to the share of the error in the square.
    assert root.standard_error == pytest.approx(standard_error(square, without, ALIKE).item() / 20, rel=1e-5)


def test_signal_share_is_wieners_factor() -> None:
    signal, noise = torch.tensor([3.0, 0.0, 2.0, 0.0, 1e-200]), torch.tensor([1.0, 5.0, 0.0, 0.0, 1e-200])
    shares = signal_share(signal.double(), noise.double())
    assert shares.tolist()[:4] == [0.75, 0.0, 1.0, 0.0]
    tiny = torch.tensor(1e-200, dtype=torch.float64)
    assert signal_share(tiny, tiny).item() == 0.5


def test_sums_of_groups_are_means_times_sizes() -> None:
    means = torch.arange(1.0, 13.0).view(3, 2, 2)
    stats = MapStatistics(means.mean(0), torch.zeros(2, 2), 6, means, (1, 2, 3))
    sums, sizes = group_sums("stats", stats)
    assert sums.dtype == sizes.dtype == torch.float64
    assert sizes.tolist() == [1, 2, 3]
    assert sums[:, 0, 0].tolist() == [1, 10, 27]
