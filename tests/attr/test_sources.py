"""Sources: their checks, another kind of source, one channel of a unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from captum.attr import NeuronGradient
from torch import Tensor, nn

from erfattr import ERF, FeatureUnit, MapSource, ModelOutput, SensitivityMaps
from erfattr.attr._gradients import Batch, ResolvedSource
from erfattr.attr.sources import FirstLook, Source


def test_errors() -> None:
    with pytest.raises(TypeError, match="layer: expected a module, its dotted name or None, got 4"):
        FeatureUnit(4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target: expected None, an integer"):
        ModelOutput(())
    with pytest.raises(ValueError, match="layer: no module of the Linear gives a feature map"):
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
