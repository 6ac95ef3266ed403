from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from erfattr.metrics.significance import estimate_phase_profile
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics
from erfattr.metrics.weak_phases import weak_phases


def noisy(pattern: Tensor, images: int, seed: int, size: int = 64, groups: int = 16) -> MapStatistics:
    """Maps of a pattern whose noise is skewed and shared by neighbours, as gradients' is."""
    generator = torch.Generator().manual_seed(seed)
    repeats = (size // pattern.shape[0], size // pattern.shape[1])
    streaming = StreamingStatistics(groups)
    for _ in range(images):
        noise = torch.randn(1, 1, size + 2, size + 2, generator=generator, dtype=torch.float64)
        smooth = torch.nn.functional.avg_pool2d(noise, 3, 1)[0, 0] * 3
        streaming.update((pattern.repeat(repeats) * smooth.exp())[None])
    return streaming.result()


def test_no_phase_is_weak_where_all_are_alike() -> None:
    marked = [int(weak_phases(noisy(torch.ones(8, 8), 48, seed), 8).mask.sum()) for seed in range(20)]
    assert sum(marked) <= 2


def test_ends_of_even_phases_receive_the_mean() -> None:
    found = [weak_phases(noisy(torch.ones(8, 8), 48, seed), 8) for seed in range(20)]
    for name in ("weakest", "strongest"):
        values = np.array([getattr(one, name) for one in found])
        errors = np.array([getattr(one, f"{name}_error") for one in found])
        # Chosen and measured on the same images they would be some 5 % off.
        assert abs(values.mean() - 1) < 3 * values.std(ddof=1) / 20**0.5
        assert 0.6 < errors.mean() / values.std(ddof=1) < 1.6
        biased = [estimate_phase_profile(noisy(torch.ones(8, 8), 48, seed), 8).profile for seed in range(3)]
        assert all(profile.min() < 0.97 and profile.max() > 1.03 for profile in biased)


def test_a_grid_is_found_and_said() -> None:
    pattern = torch.ones(4, 4)
    pattern[1, :] = 0.8
    pattern[2, 3] = 1.8
    pattern /= pattern.mean()
    found = weak_phases(noisy(pattern, 200, 0), 4)
    assert bool(found.mask[1].all())
    assert not bool(found.mask[2, 3])
    # One phase of 16 is 5 % of them, rounded.
    assert found.weakest == pytest.approx(float(pattern.min()), abs=3 * found.weakest_error)
    assert found.strongest == pytest.approx(float(pattern.max()), abs=3 * found.strongest_error)
    begun = f"{int(found.mask.sum())} of 16 phases receive significantly less than the mean (5 % FDR); "
    assert found.sentence.startswith(begun + "the weakest 5 % receive 8")


def test_without_noise_the_sign_decides() -> None:
    pattern = torch.tensor([[1.5, 0.5], [1.0, 1.0]])
    streaming = StreamingStatistics(4)
    streaming.update(pattern.repeat(4, 8, 8))
    found = weak_phases(streaming.result(), 2)
    assert found.mask.tolist() == [[False, True], [False, False]]
    assert (found.weakest, found.weakest_error) == (0.5, 0.0)
    assert (found.strongest, found.strongest_error) == (1.5, 0.0)


def test_periods_that_differ() -> None:
    pattern = torch.tensor([[1.2, 0.8]])
    found = weak_phases(noisy(pattern, 64, 0), (1, 2))
    assert found.mask.tolist() == [[False, True]]


def test_images_need_not_fill_the_groups_evenly() -> None:
    found = weak_phases(noisy(torch.tensor([[1.2, 0.8], [1.0, 1.0]]), 53, 0), 2)
    assert found.n_images == 53
    assert found.weakest == pytest.approx(0.8, abs=4 * found.weakest_error)


@pytest.mark.parametrize(
    ("groups", "period", "options", "error", "message"),
    [
        (3, 2, {}, ValueError, "stats: expected at least 4 groups of images, two for each half, got 3"),
        (2, 2, {}, ValueError, "stats: expected at least 3 groups"),
        (4, 1, {}, ValueError, "period: expected more than one phase, got 1"),
        (4, 2, {"fdr": 0.0}, ValueError, "fdr: expected"),
        (4, 2.5, {}, TypeError, "period"),
    ],
)
def test_bad_arguments(
    groups: int, period: int, options: dict[str, float], error: type, message: str
) -> None:
    streaming = StreamingStatistics(groups)
    streaming.update(torch.rand(groups, 8, 8) + 1)
    with pytest.raises(error, match=message):
        weak_phases(streaming.result(), period, **options)


def test_a_map_instead_of_statistics_is_refused() -> None:
    with pytest.raises(TypeError, match="return_statistics=True"):
        weak_phases(torch.rand(8, 8), 2)  # type: ignore[arg-type]


def test_the_bell_of_a_narrow_map_is_no_pattern() -> None:
    y = torch.arange(96, dtype=torch.float64) - 47.5
    bell = torch.exp(-(y[:, None] ** 2 + y**2) / (2 * 12.0**2))
    streaming = StreamingStatistics(8)
    streaming.update(bell * (1 + 0.1 * torch.rand(32, 96, 96, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"spread of the map's rows, .* 1\d\.\d pixels, got 32: the bell"):
        weak_phases(streaming.result(), 32)
    # Beside a third of the bell's width its curvature is some thousandths.
    found = weak_phases(streaming.result(), 4)
    assert (found.weakest, found.strongest) == pytest.approx((1, 1), abs=0.005)
