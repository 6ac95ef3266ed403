"""Layouts brought to (N, C, H, W), the last layer with a map, means over channels that are constant."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from erfattr import ERF, FeatureUnit, from_channels_last, from_tokens
from erfattr.attr._first_pass import first_pass
from erfattr.attr._gradients import Batch
from erfattr.attr.layouts import is_constant_mean


def test_tokens_are_laid_out_row_by_row() -> None:
    tokens = torch.arange(7.0)[None, :, None].repeat(1, 1, 2)  # a class token, then 2 x 3 patches
    spatial = from_tokens((2, 3))(tokens)
    assert spatial[0, 1].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert torch.equal(from_tokens((2, 3), prefix=0)(tokens[:, 1:]), spatial)


def test_channels_last_is_permuted() -> None:
    features = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert from_channels_last(features)[0, 3, 1, 2] == features[0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("mobilenet_v3_small", "features"),
        ("densenet121", "features"),
        ("squeezenet1_1", "classifier.2"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("convnext_tiny", "features"),
        ("swin_t", "permute"),
    ],
)
def test_last_spatial_layer(name: str, layer: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None).eval()
        batch = Batch(torch.zeros(1, 3, 224, 224), None, (), 0)
        assert first_pass(model, [FeatureUnit()], "relu", batch).layers.names == (layer,)


# --- a mean over channels that is constant


class Normalised(nn.Module):
    """Normalises over channels, as ConvNeXt's and Swin's layers do, or takes their softmax."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.norm = nn.LayerNorm(channels)

    def forward(self, value: Tensor) -> Tensor:
        if self.kind == "softmax":
            return value.softmax(1)
        return self.norm(value.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["layer norm", "softmax"])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_mean_is_refused_where_named_and_passed_over_where_not(
    kind: str, count: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), Normalised(kind, 8)
    ).to(dtype)
    images = torch.rand(count, 3, 64, 64, dtype=dtype)
    with pytest.raises(ValueError, match=r"channels of '3' is constant .*; take layer '2' before it, or one"):
        ERF(model, "3").attribute(images)
    assert ERF(model, "3").attribute(images, 0).any()
    before = ERF(model, "2").attribute(images)
    for _ in range(2):  # what is remembered of the model says the same
        found, statistics = ERF(model).attribute(images, return_statistics=True)
        assert torch.equal(found, before)
        assert statistics.source is not None
        assert statistics.source.layer == "2"
        assert statistics.source.layout == ("(N, C, H, W), traced; '3' behind it has a constant channel mean")
    assert ERF(model).attribute(images, 0).any()
    if kind == "layer norm":
        nn.init.uniform_(model[3].norm.weight, 0.5, 1.5)  # with unequal weights the mean varies
        found, statistics = ERF(model).attribute(images, return_statistics=True)
        assert statistics.source is not None
        assert statistics.source.layer == "3"
        assert found.max() > 1e-4


def test_features_that_are_the_same_everywhere_are_not_constant_means() -> None:
    assert not is_constant_mean(torch.ones(1, 3, 4, 4))
    assert not is_constant_mean(torch.rand(1, 1, 4, 4))
    assert not is_constant_mean(torch.rand(1, 3, 4, 4))
    assert is_constant_mean(torch.rand(1, 3, 4, 4).softmax(1))
