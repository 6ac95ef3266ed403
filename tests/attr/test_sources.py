"""Sources: layouts brought to (N, C, H, W), the last spatial layer, another kind of source, one channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from captum.attr import NeuronGradient
from torch import Tensor, nn

from erfattr import ERF, FeatureUnit, MapSource, ModelOutput, SensitivityMaps, from_channels_last, from_tokens
from erfattr.attr._first_pass import first_pass
from erfattr.attr._gradients import Batch, ResolvedSource
from erfattr.attr.layouts import is_constant_mean
from erfattr.attr.sources import FirstLook, Source


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


def test_errors() -> None:
    with pytest.raises(TypeError, match="layer: expected a module, its dotted name or None, got 4"):
        FeatureUnit(4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target: expected None, an integer"):
        ModelOutput(())
    with pytest.raises(ValueError, match="layer: no module of the Linear gives an output of shape"):
        ERF(nn.Linear(4, 4)).attribute(torch.zeros(1, 3, 4, 4))


# --- another kind


@dataclass(frozen=True)
class ChannelMean(Source):
    """The mean of one channel over all positions: a third kind of source, which takes this one class."""

    layer: str
    channel: int

    def identity(self, model: Callable[..., Any]) -> tuple[Any, ...]:
        return ("channel mean", self.layer, self.channel)

    def layer_in(self, model: Callable[..., Any]) -> str:
        return self.layer

    def resolve(self, first: FirstLook) -> ResolvedSource:
        def scalar(output: Any, batch: Batch) -> Tensor:
            return output[:, self.channel].mean((1, 2)).sum()

        described = MapSource(self.layer, None, None, None, self.channel, first.rectify, first.input_size)
        return ResolvedSource(first.layer, scalar, described)


def test_another_kind_of_source_is_one_class(resnet: nn.Module, images: Tensor) -> None:
    units = [FeatureUnit("layer1"), ChannelMean("layer2", 3), ModelOutput(1)]
    for sources in (units, units[:2]):
        result = SensitivityMaps(resnet, sources).attribute(images)[1]
        resnet.eval()
        upto = nn.Sequential(*list(resnet.children())[:6])
        total = torch.zeros(64, 64, dtype=torch.float64)
        for image in images:
            image = image[None].clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(upto(image)[0, 3].mean(), image)
            total += gradient.mean((0, 1)).relu()
        torch.testing.assert_close(result.mean, total / 5, rtol=1e-9, atol=1e-11 * float(total.max()))
        assert result.source == MapSource("layer2", None, None, None, 3, "relu", (64, 64))


@pytest.mark.parametrize(("target", "selector"), [(3, (3, 4, 4)), ((3, 2, 6), (3, 2, 6))])
def test_one_channel_is_captums_neuron(
    resnet: nn.Module, images: Tensor, target: Any, selector: tuple[int, ...]
) -> None:
    erf = ERF(resnet, "layer2", rectify="none")
    result, statistics = erf.attribute(images, target, return_statistics=True)
    assert statistics.source is not None
    assert (statistics.source.target, statistics.source.unit) == (selector[0], selector[1:])
    resnet.eval()
    expected = NeuronGradient(resnet, resnet.layer2).attribute(images.clone().requires_grad_(True), selector)
    torch.testing.assert_close(
        result, expected.mean((0, 1)).detach(), rtol=1e-9, atol=1e-11 * float(expected.max())
    )


def test_channels_that_are_not_there(resnet: nn.Module, images: Tensor) -> None:
    with pytest.raises(ValueError, match="target: expected a channel of the 32 of layer 'layer2', got 32"):
        ERF(resnet, "layer2").attribute(images, 32)
    with pytest.raises(ValueError, match=r"target: expected None, a channel k or a channel at a position"):
        ERF(resnet, "layer2").attribute(images, "predicted")
    with pytest.raises(TypeError, match=r"channel: expected an integer or None, got 1\.0"):
        FeatureUnit("layer2", channel=1.0)  # type: ignore[arg-type]


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
@pytest.mark.parametrize("layer", [None, "3"])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_mean_is_refused(kind: str, layer: str | None, count: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), Normalised(kind, 8)
    ).to(dtype)
    images = torch.rand(count, 3, 64, 64, dtype=dtype)
    with pytest.raises(ValueError, match=r"channels of '3' is constant .*; take layer '2' before it, or one"):
        ERF(model, layer).attribute(images)
    assert ERF(model, layer).attribute(images, 0).any()
    assert ERF(model, "2").attribute(images).any()
    if kind == "layer norm":
        nn.init.uniform_(model[3].norm.weight, 0.5, 1.5)  # with unequal weights the mean varies
        assert ERF(model, layer).attribute(images).max() > 1e-4


def test_features_that_are_the_same_everywhere_are_not_constant_means() -> None:
    assert not is_constant_mean(torch.ones(1, 3, 4, 4))
    assert not is_constant_mean(torch.rand(1, 1, 4, 4))
    assert not is_constant_mean(torch.rand(1, 3, 4, 4))
    assert is_constant_mean(torch.rand(1, 3, 4, 4).softmax(1))
