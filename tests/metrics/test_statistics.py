"""Streaming statistics against formulas written out."""

from __future__ import annotations

import copy

import pytest
import torch

from erfattr.metrics.statistics import StreamingStatistics


def maps(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_three_images_by_hand() -> None:
    statistics = StreamingStatistics(groups=2)
    statistics.update(torch.tensor([[[1.0]], [[2.0]], [[6.0]]]))
    result = statistics.result()
    assert result.n_images == 3
    assert result.mean.item() == 3.0
    # Variance (4 + 1 + 9) / 2 = 7; standard error sqrt(7 / 3).
    assert result.standard_error.item() == pytest.approx((7 / 3) ** 0.5, rel=1e-12)
    assert result.group_means.flatten().tolist() == [3.5, 2.0]
    assert result.group_sizes == (2, 1)


def test_equals_torch_mean_and_std() -> None:
    data = maps(37)
    statistics = StreamingStatistics(groups=5)
    statistics.update(data)
    result = statistics.result()
    torch.testing.assert_close(result.mean, data.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(result.standard_error, data.std(0) / 37**0.5, rtol=1e-12, atol=0)
    for group in range(5):
        torch.testing.assert_close(result.group_means[group], data[group::5].mean(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("batch", [1, 2, 7, 16, 40])
def test_batching_changes_nothing_at_all(batch: int) -> None:
    data = maps(40)
    whole, parts = StreamingStatistics(groups=7), StreamingStatistics(groups=7)
    whole.update(data)
    for part in data.split(batch):
        parts.update(part)
    assert torch.equal(whole.result().mean, parts.result().mean)
    assert torch.equal(whole.result().standard_error, parts.result().standard_error)
    assert torch.equal(whole.result().group_means, parts.result().group_means)
    assert whole.result().group_sizes == parts.result().group_sizes


def test_first_index_decides_the_group() -> None:
    statistics = StreamingStatistics(groups=4)
    statistics.update(maps(1), first_index=6)
    statistics.update(maps(1, seed=1), first_index=3)
    result = statistics.result()
    assert result.group_sizes == (1, 1)
    assert torch.equal(result.group_means, torch.cat([maps(1), maps(1, seed=1)]))


def test_one_image_has_no_known_error() -> None:
    statistics = StreamingStatistics()
    statistics.update(maps(1))
    assert torch.isinf(statistics.result().standard_error).all()


def test_accumulates_in_float64() -> None:
    statistics = StreamingStatistics(groups=2)
    for _ in range(3):
        statistics.update(torch.full((2, 1, 1), 0.1, dtype=torch.float32))
    result = statistics.result()
    assert result.mean.dtype == torch.float64
    assert result.mean.item() == pytest.approx(float(torch.tensor(0.1)), rel=1e-15)


def test_errors() -> None:
    with pytest.raises(ValueError, match="groups: expected at least 2, got 1"):
        StreamingStatistics(groups=1)
    with pytest.raises(TypeError, match="groups: expected a positive integer"):
        StreamingStatistics(groups=2.0)  # type: ignore[arg-type]
    statistics = StreamingStatistics()
    with pytest.raises(ValueError, match="expected at least one image, got none"):
        statistics.result()
    statistics.update(maps(2))
    with pytest.raises(ValueError, match=r"maps: expected maps of shape \(3, 4\), got \(4, 4\)"):
        statistics.update(torch.zeros(1, 4, 4))


def test_caller_untouched() -> None:
    data = maps(3).requires_grad_(True)
    before = data.detach().clone()
    statistics = StreamingStatistics()
    statistics.update(data)
    result = statistics.result()
    result.mean.zero_()
    assert torch.equal(data.detach(), before)
    assert data.requires_grad
    assert statistics.result().mean.abs().sum() > 0


def test_statistics_taken_for_a_map_say_where_the_map_is() -> None:
    from erfattr import imbalance_index

    streaming = StreamingStatistics()
    streaming.update(torch.rand(4, 8, 8))
    statistics = streaming.result()
    with pytest.raises(
        AttributeError, match=r"has no 'max': the map itself is its mean, statistics\.mean\.max"
    ):
        statistics.max()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = statistics.nonsense
    with pytest.raises(TypeError, match=r"got MapStatistics; the map is its \.mean"):
        imbalance_index(statistics)
    assert torch.equal(copy.deepcopy(statistics).mean, statistics.mean)
