"""Strides of single operators, and which of them see the whole image."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from erfattr.receptive_field.operators_seen import operators_seen


class Hidden(nn.Module):
    """A stride of 8 that no layer shows, behind a convolution that covers it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(F.avg_pool2d(x, (8, 3)), size=x.shape[-2:])


@pytest.mark.parametrize(
    ("model", "period"),
    [
        (nn.Conv2d(3, 1, 3), (1, 1)),
        (nn.Sequential(nn.Conv2d(3, 3, 3, stride=(2, 3)), nn.MaxPool2d(3)), (6, 9)),
        (nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=2)), (4, 4)),
        (nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 16, 1), nn.PixelShuffle(4)), (4, 4)),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelShuffle(2)), (1, 1)),
        (Hidden(), (8, 3)),
        (nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-2]), (32, 32)),
        (torchvision.models.vgg11(weights=None).features, (32, 32)),
    ],
)
def test_period_is_the_least_common_multiple_of_all_strides(
    model: nn.Module, period: tuple[int, int]
) -> None:
    seen = operators_seen(model, 96)
    assert seen.period == period
    assert (seen.mixing, seen.size_bound, seen.unknown) == ((), (), ())


@pytest.mark.parametrize(
    ("model", "count", "first"),
    [
        (torchvision.models.efficientnet_b0(weights=None).features, 16, "mean in '1.0.block.1.avgpool'"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GroupNorm(4, 4)), 2, "native_group"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(94)), 1, "native_layer_norm in '1'"),
        # Over channels alone it sees one position.
        (nn.Sequential(torchvision.models.convnext_tiny(weights=None).features[:2]), 0, ""),
    ],
)  # fmt: skip
def test_what_mixes_is_named_once_for_each_layer(model: nn.Module, count: int, first: str) -> None:
    seen = operators_seen(model, 96)
    assert len(seen.mixing) == count
    assert not count or str(seen.mixing[0]).startswith(first)


def test_attention_is_named() -> None:
    model = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32)
    seen = operators_seen(model, 32)
    assert any("self_attention" in operator.layer for operator in seen.mixing)
    assert operators_seen(model, 32, layer="conv_proj").mixing == ()


def test_what_depends_on_the_size_is_named() -> None:
    model = nn.Sequential(
        nn.AdaptiveAvgPool2d(6), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    )
    assert [operator.layer for operator in operators_seen(model, 96).size_bound] == ["0", "1"]


def test_errors_and_hooks() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 3))
    with pytest.raises(ValueError, match="on an image of 2 x 2 stopped at"):
        operators_seen(model, 2)
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(1, 1, 2, 2)

    with pytest.raises(ValueError, match="one tensor that depends on the image"):
        operators_seen(Constant(), 8)
