"""Sources: their checks, another kind of source, one channel of a unit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import NeuronGradient
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from erfattr import (
    ERF,
    DeadPixelMap,
    FeatureUnit,
    MapSource,
    ModelOutput,
    SensitivityMaps,
    receptive_fields,
    theoretical_receptive_field,
)
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


def test_integers_of_numpy_are_integers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    images = torch.rand(4, 3, 8, 8)
    one = np.int64(1)
    assert FeatureUnit("0", (one, one), channel=one) == FeatureUnit("0", (1, 1), channel=1)  # type: ignore[arg-type]
    assert type(ModelOutput(one).target) is int  # type: ignore[arg-type]
    expected = DeadPixelMap(model).attribute(images, 1)
    assert torch.equal(DeadPixelMap(model).attribute(images, one), expected)
    expected = ERF(model, "0").attribute(images, (1, 2, 3))
    assert torch.equal(ERF(model, "0").attribute(images, (one, np.int32(2), np.uint8(3))), expected)
    assert len(ERF(model, "0").attribute(images, reduction="none", max_examples=np.int64(2))) == 2
    with pytest.raises(ValueError, match="target: expected None, an integer"):
        DeadPixelMap(model).attribute(images, np.True_)


@pytest.mark.parametrize(
    ("network", "shape", "word"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), (4, 3, 32), "signals"),
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU()), (4, 3, 8, 9, 9), "volumes"),
    ],
)
@pytest.mark.parametrize("count", [1, 3, 4])
def test_signals_and_volumes_are_refused(
    network: nn.Module, shape: tuple[int, ...], word: str, count: int
) -> None:
    for make in (lambda: ERF(network, "0"), lambda: DeadPixelMap(network)):
        with pytest.raises(ValueError, match=f"inputs: expected images .*; {word} are not supported yet"):
            make().attribute(torch.rand(shape))
        # Three images of three colours are no batch of one volume either.
        with pytest.raises(ValueError, match=f"model: expected a network of images .*, got one of {word}"):
            make().attribute(torch.rand(count, 3, 16, 16))
    for find in (
        lambda: theoretical_receptive_field(network, "0", 16),
        lambda: receptive_fields(network, 16),
    ):
        with pytest.raises(ValueError, match=f"model: expected a network of images .*, got one of {word}"):
            find()


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, images: Tensor) -> Tensor:
        def both(value: Tensor) -> Tensor:
            return self.second(self.first(value).relu())

        return self.head(checkpoint(both, images, use_reentrant=self.reentrant).mean((2, 3)))


@pytest.mark.parametrize("count", [1, 4])
def test_gradient_checkpointing_is_understood_or_named(count: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(count, 3, 9, 9)
    plain, reentrant = Checkpointed(False), Checkpointed(True)
    alike = nn.Sequential(OrderedDict(first=plain.first, relu=nn.ReLU(), second=plain.second))
    assert torch.allclose(ERF(plain).attribute(images), ERF(alike, "second").attribute(images), atol=1e-7)
    assert DeadPixelMap(plain).attribute(images).any()
    for layer in (None, "first"):
        with pytest.raises(ValueError, match=r"runs with gradients switched off, .* use_reentrant=False"):
            ERF(reentrant, layer).attribute(images)
    with pytest.raises(ValueError, match="expected gradient checkpointing with use_reentrant=False"):
        DeadPixelMap(reentrant).attribute(images)


def test_layers_of_traced_modules_are_refused_and_outputs_mapped() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).eval()
    images = torch.rand(4, 3, 8, 8)
    traced = torch.jit.trace(model, images)
    inner = torch.jit.trace(model[:3], images)
    within = nn.Sequential(OrderedDict(body=inner, map=nn.Identity(), rest=model[3:]))
    for network, layer in ((traced, None), (traced, "0"), (within, "body.0"), (within, "body")):
        with pytest.raises(ValueError, match=r"was traced or scripted \(torch.jit\)"):
            ERF(network, layer)
    with pytest.raises(ValueError, match=r"was traced or scripted \(torch.jit\)"):
        theoretical_receptive_field(traced, "0", 8)
    expected = DeadPixelMap(model).attribute(images)
    assert torch.allclose(DeadPixelMap(traced).attribute(images), expected, atol=1e-8)
    assert torch.allclose(ERF(within).attribute(images), ERF(model, "2").attribute(images), atol=1e-8)


def test_layers_of_compiled_models_go_by_their_own_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(body=nn.Conv2d(3, 4, 3), rest=nn.Sequential(nn.Flatten(), nn.Linear(144, 3)))
    )
    compiled = torch.compile(model, backend="eager")
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(ERF(compiled, "body").attribute(images), ERF(model, "body").attribute(images))
    with pytest.raises(ValueError, match="the OptimizedModule has no layer 'bodi'; nearest: body"):
        ERF(compiled, "bodi")


class FromTokens(nn.Module):
    """A batch normalisation before a map that becomes tokens and a map again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Conv2d(3, 8, 1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 4, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        value = self.norm(self.first(images))
        tokens = value.flatten(2).transpose(1, 2).contiguous() * torch.arange(8.0, dtype=images.dtype)
        return self.last(tokens.transpose(1, 2).view(value.shape).square())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_image_gives_what_it_gives_in_a_batch(dtype: torch.dtype) -> None:
    """PyTorch's own gradient of a single image is wrong behind this batch normalisation."""
    torch.manual_seed(0)
    model = FromTokens().to(dtype).eval()
    nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    nn.init.uniform_(model.norm.running_var, 0.5, 2.0)
    images = torch.rand(2, 3, 6, 6, dtype=dtype)
    for make in (lambda: ERF(model, "last", rectify="none"), lambda: DeadPixelMap(model, rectify="none")):
        several = make().attribute(images, reduction="none")
        alone = make().attribute(images[:1], reduction="none")
        assert torch.allclose(alone, several[:1], rtol=1e-4, atol=0)
