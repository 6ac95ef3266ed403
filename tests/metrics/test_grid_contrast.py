"""The grid of one map and its noise floor: that the floor is what noise without a grid really gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from erfattr.metrics.grid_contrast import grid_contrast
from erfattr.metrics.imbalance import phase_contrast, phase_profile


def blobs(seed: int, size: int = 96) -> Tensor:
    """Noise whose neighbours agree, as in a saliency: exponential, smoothed over 3 x 3 pixels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 1, size + 2, size + 2, generator=generator, dtype=torch.float64)
    return torch.nn.functional.avg_pool2d(-torch.log(noise), 3, 1)[0, 0]


def test_profile_and_contrast_are_those_of_the_map() -> None:
    values = blobs(0)
    found = grid_contrast(values, 8)
    torch.testing.assert_close(found.profile, phase_profile(values, 8), rtol=0, atol=0)
    assert found.contrast == phase_contrast(phase_profile(values, 8))


def test_floor_is_what_noise_without_a_grid_gives() -> None:
    floors, contrasts, told = [], [], 0
    for seed in range(8):
        found = grid_contrast(blobs(seed), 8, draws=20)
        floors.append(found.noise_floor)
        contrasts.append(found.contrast)
        told += found.is_told
    mean_square = sum(contrast**2 for contrast in contrasts) / len(contrasts)
    # The mean square of 8 contrasts is known to some 7 %.
    assert sum(floors) / len(floors) == pytest.approx(math.sqrt(mean_square), rel=0.15)
    assert told <= 2  # one of 20 by chance


def test_a_grid_in_noise_is_told_and_its_size_found() -> None:
    grid = 1 + 0.5 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(48, 48)
    found = grid_contrast(blobs(3) * grid, (8, 8))
    assert found.is_told
    assert found.without_noise == pytest.approx(0.5, rel=0.05)


def test_an_even_map_has_neither() -> None:
    found = grid_contrast(torch.ones(32, 32), 4)
    assert (found.contrast, found.noise_floor) == pytest.approx((0, 0), abs=1e-12)
    assert not found.is_told or found.contrast < 1e-12


def test_same_seed_same_floor_and_the_map_is_untouched() -> None:
    values = blobs(1, 30)  # cut tiles at the border
    before = values.clone()
    first, second = (grid_contrast(values, 8, draws=5, seed=4) for _ in range(2))
    assert (first.noise_floor, first.noise_high) == (second.noise_floor, second.noise_high)
    assert grid_contrast(values, 8, draws=5, seed=5).noise_floor != first.noise_floor
    assert torch.equal(values, before)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="draws: expected a positive integer"):
        grid_contrast(torch.ones(8, 8), 2, draws=0)
    with pytest.raises(ValueError, match="sensitivity_map: expected at least one period"):
        grid_contrast(torch.ones(8, 8), 9)
    with pytest.raises(TypeError, match="period"):
        grid_contrast(torch.ones(8, 8), 2.5)  # type: ignore[arg-type]
