"""Averaged shortcuts against timm's layer and the convolution of the mean."""

from __future__ import annotations

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from erfattr import average_shortcuts
from erfattr.models.demo import DemoNet


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- closed form ---


def test_average_shortcut_is_the_1x1_convolution_of_the_mean() -> None:
    model = nn.Conv2d(3, 5, 1, stride=2).double()
    image = noise(2, 3, 6, 8)
    means = image.reshape(2, 3, 3, 2, 4, 2).mean(dim=(3, 5))
    expected = torch.einsum("nchw,kc->nkhw", means, model.weight[..., 0, 0]) + model.bias[:, None, None]
    torch.testing.assert_close(average_shortcuts(model)(image), expected, rtol=1e-12, atol=1e-12)


# --- independent oracle ---


@pytest.mark.parametrize("size", [(12, 12), (13, 12), (7, 9), (1, 1)])
def test_averaged_shortcut_is_timms(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    peer = timm.models.resnet.downsample_avg(4, 6, 1, stride=2).double().eval()
    model = nn.Conv2d(4, 6, 1, stride=2, bias=False).double()
    model.load_state_dict({"weight": peer[1].weight})
    image = noise(2, 4, *size)
    torch.testing.assert_close(peer[2](average_shortcuts(model)(image)), peer(image), rtol=1e-12, atol=1e-12)


# --- what is changed and what is left ---


def test_record_of_a_resnet(resnet: DemoNet) -> None:
    _, average = average_shortcuts(resnet, return_changes=True)
    assert average.changed == tuple(f"layer{stage}.0.downsample.0" for stage in (2, 3, 4))
    assert average.layers[3].after == "1x1 convolution, stride 1, of 2x2 means"
    assert average.layers[0].note == "not a 1x1 convolution"


def test_average_shortcuts_leaves_a_padded_1x1_convolution() -> None:
    _, record = average_shortcuts(nn.Sequential(nn.Conv2d(1, 1, 1, 2, padding=1)), return_changes=True)
    assert record.layers[0].note == "it pads"
