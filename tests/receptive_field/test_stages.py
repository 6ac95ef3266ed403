"""The stages of networks of several families, by the names that their authors use."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from erfattr.models.demo import DemoNet
from erfattr.receptive_field.stages import stage_layers
from erfattr.receptive_field.trace import receptive_fields


def stages(model: nn.Module, count: int = 4, size: int = 224) -> tuple[str, ...]:
    return stage_layers(receptive_fields(model.eval(), size, probe=False), count)


class UNet(nn.Module):
    """Down by 2 and 4, and up again."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 4, 3, padding=1), nn.ReLU()) for c in (3, 4, 4))
        self.up = nn.ModuleList(nn.ConvTranspose2d(4, 4, 2, 2) for _ in range(2))
        self.join = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for index, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return x


def vit(layers: int) -> nn.Module:
    return torchvision.models.VisionTransformer(64, 8, layers, 2, 16, 32)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (DemoNet(10), ("layer1", "layer2", "layer3", "layer4")),
        (torchvision.models.resnet50(), ("layer1", "layer2", "layer3", "layer4")),
        (torchvision.models.mobilenet_v2(), ("features.3", "features.6", "features.13", "features.18")),
        # Single layers, and the pooling to 7 x 7 behind them, which changes nothing, is not taken.
        (torchvision.models.vgg11_bn(), ("features.13", "features.20", "features.27", "features.28")),
        (torchvision.models.swin_t(), ("features.1", "features.3", "features.5", "features.7")),
        (
            torchvision.models.densenet121(),
            tuple(f"features.denseblock{number}" for number in range(1, 5)),
        ),
    ],
    ids=["demo", "resnet50", "mobilenet_v2", "vgg11_bn", "swin_t", "densenet121"],
)
def test_last_blocks_of_the_last_resolutions(model: nn.Module, expected: tuple[str, ...]) -> None:
    assert stages(model) == expected
    assert stages(model, 2) == expected[-2:]


def test_blocks_of_one_resolution_are_taken_at_even_distance() -> None:
    names = tuple(f"encoder.layers.encoder_layer_{index}" for index in range(8))
    assert stages(vit(8), 4, 64) == names[1::2]
    assert stages(vit(8), 1, 64) == names[-1:]
    assert stages(vit(2), 4, 64) == names[:2]


def test_the_way_back_up_of_a_u_net_is_no_stage() -> None:
    assert stages(UNet(), 4, 64) == ("down.0", "down.1", "down.2")


def test_a_net_of_ones_own_of_one_layer() -> None:
    assert stages(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU()), 4, 32) == ("1",)


def test_errors() -> None:
    with pytest.raises(ValueError, match="count: expected a positive integer"):
        stage_layers({}, 0)
    with pytest.raises(ValueError, match="fields: expected a layer whose map has several positions"):
        stage_layers({})
