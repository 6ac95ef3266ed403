"""Remedies in forecast: closed forms, cost by hand, what is left out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from erfattr import forecast_remedies
from erfattr.forecast.cures import _spread
from erfattr.remedies.kernel_padding import pad_kernels


def stem() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 5, 1, stride=2, bias=False),
    )


def test_contrast_and_cost_of_padding() -> None:
    found = {
        entry.title: entry for entry in forecast_remedies(stem(), "output", weights="expected", input_size=64)
    }
    assert next(iter(found)) == "original"
    # 32 x 32 outputs of 4 x 3 x 9, and 16 x 16 of 5 x 4; two operations each.
    assert found["original"].flops == 2 * (32 * 32 * 4 * 27 + 16 * 16 * 20)
    assert found["original"].parameters == 4 * 27 + 20
    padded = found["kernel padding"]
    assert padded.flops == 2 * (32 * 32 * 4 * 48 + 16 * 16 * 80)
    assert padded.parameters == 4 * 48 + 80
    assert padded.layers == ("0", "2")
    assert padded.contrast < 0.01 * found["original"].contrast
    assert padded.same_outputs
    single = found["kernel padding: 2"]
    assert 0 < single.contrast < found["original"].contrast
    assert not found["average shortcuts: 2"].same_outputs


@pytest.mark.parametrize("groups", [1, 3])
def test_taps_are_equally_strong_and_each_filter_keeps_its_energy(groups: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 600, 3, stride=2, bias=False, groups=groups)
    # As trained ones are: the lone middle tap makes up for the eight around it.
    with torch.no_grad():
        convolution.weight[:, :, 1, 1] *= 4
    model = pad_kernels(convolution)
    energy = model.weight.square().sum((1, 2, 3))
    _spread(model)
    squared = model.weight.detach().square()
    torch.testing.assert_close(squared.sum((1, 2, 3)), energy, rtol=1e-5, atol=0)
    shares = squared.sum((0, 1)) / squared.sum()
    # Of depthwise filters exactly; of others drawn, 600 times.
    torch.testing.assert_close(
        shares, torch.full((4, 4), 1 / 16), rtol=0, atol=1e-6 if groups == 3 else 0.25 / 16
    )


def test_padding_a_network_that_balances_its_kernels_is_no_worse_than_its_architecture() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False))
    with torch.no_grad():
        # The sums of squares of the four phases are equal: one tap, two, two and four.
        model[0].weight[:, :, 1, 1] *= 2
        model[0].weight[:, :, [0, 2, 1, 1], [1, 1, 0, 2]] *= 2**0.5
    found = {
        entry.remedy: entry for entry in forecast_remedies(model, "output", input_size=64, per_layer=False)
    }
    assert found["original"].contrast < 0.05
    assert found["kernel padding"].contrast < 0.05


def test_without_single_layers_and_without_remedies() -> None:
    names = [entry.title for entry in forecast_remedies(stem(), "output", input_size=32, per_layer=False)]
    assert names[:2] == ["original", "kernel padding"]
    assert not any(":" in name and "shortcuts" not in name for name in names)
    even = nn.Conv2d(3, 4, 2, stride=2)
    assert [entry.remedy for entry in forecast_remedies(even, "output", input_size=32)] == ["original"]


def test_model_is_only_read() -> None:
    model = stem()
    before = [parameter.clone() for parameter in model.parameters()]
    forecast_remedies(model, "output", input_size=32)
    assert all(torch.equal(now, was) for now, was in zip(model.parameters(), before, strict=True))
    with pytest.raises(TypeError, match="per_layer: expected True or False"):
        forecast_remedies(model, per_layer=1)  # type: ignore[arg-type]
