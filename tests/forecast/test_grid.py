"""Sources of the grid: closed forms, and what does not add up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from erfattr import forecast_map, grid_sources, phase_contrast, phase_profile


def chain(*kernels: int) -> nn.Module:
    model = nn.Sequential(*(nn.Conv2d(1, 1, k, stride=2, padding=(k - 1) // 2, bias=False) for k in kernels))
    for layer in model:
        nn.init.ones_(layer.weight)
    return model


def test_a_single_layer_makes_all_of_its_grid() -> None:
    found = grid_sources(chain(3), "output", input_size=256, in_channels=1)
    assert found.period == (2, 2)
    assert found.contrast == pytest.approx(0.2439, abs=1e-3)  # of 1, sqrt 2, sqrt 2, 2; the border
    assert found.sources[0].without < 0.1 * found.contrast
    assert found.sources[0].alone == found.contrast
    assert found.sources[0].share > 0.99
    assert found.remainder == 1 - found.sources[0].share
    assert found.left == found.sources[0].without


def test_the_even_layer_of_two_makes_nothing_alone() -> None:
    found = grid_sources(chain(2, 3), "output", input_size=64, in_channels=1)
    assert [source.layer for source in found.sources] == ["0", "1"]
    assert found.sources[0].alone < 0.1 * found.contrast
    assert found.sources[1].share > 0.99
    # The box of the first blurs what the second makes: shares overlap, and that is stated.
    assert found.remainder < -0.1


def test_what_slices_make_is_left() -> None:
    class Slices(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2, ::2]

    model = nn.Sequential(Slices(), nn.Conv2d(1, 1, 2, stride=2))
    found = grid_sources(model, "output", "center", "expected", input_size=32, in_channels=1)
    # One pixel of four, whatever follows.
    assert found.contrast == pytest.approx(3**0.5, rel=1e-4)
    assert found.left == pytest.approx(3**0.5, rel=1e-4)
    assert found.remainder == pytest.approx(1, abs=1e-3)


def test_contrast_is_that_of_the_forecast() -> None:
    model = chain(3, 3, 1)
    found = grid_sources(model, "output", input_size=64, in_channels=1)
    profile = phase_profile(forecast_map(model, "output", input_size=64, in_channels=1), found.period)
    assert found.contrast == phase_contrast(profile)


def test_image_smaller_than_the_period_is_refused() -> None:
    with pytest.raises(ValueError, match="input_size: expected an image larger than the total stride"):
        grid_sources(nn.Conv2d(1, 1, 4, stride=4), "output", input_size=4, in_channels=1)
    with pytest.raises(ValueError, match="weights: expected one of"):
        grid_sources(chain(3), weights="mean")  # type: ignore[arg-type]
    assert torch.is_grad_enabled()
