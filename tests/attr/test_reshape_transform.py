"""Layouts for toolkits that ask the caller: each against what the network is known to do."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from erfattr import reshape_transform


def test_vision_transformer_tokens_lie_behind_the_class_token() -> None:
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32)
    found = reshape_transform(model, model.encoder.layers.encoder_layer_1, (32, 32))
    tokens = torch.arange(2 * 17 * 16.0).reshape(2, 17, 16)
    assert torch.equal(found(tokens), tokens[:, 1:].transpose(1, 2).reshape(2, 16, 4, 4))
    with pytest.raises(ValueError, match=r"expected that of 'encoder.layers.encoder_layer_1'"):
        found(tokens[:, :16])


def test_swin_maps_have_their_channels_last() -> None:
    model = torchvision.models.swin_t(weights=None)
    found = reshape_transform(model, "features.1", (64, 64))
    maps = torch.rand(2, 16, 16, 96)
    assert torch.equal(found(maps), maps.permute(0, 3, 1, 2))


def test_convolutional_maps_stay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
    maps = torch.rand(3, 2, 8, 8)
    assert reshape_transform(model, "0", (8, 8), in_channels=1)(maps) is maps


def test_grad_cam_of_a_transformer_is_that_by_hand() -> None:
    grad_cam = pytest.importorskip(
        "pytorch_grad_cam", reason="OpenCV wants a library of the system", exc_type=ImportError
    )
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32).eval()
    layer = model.encoder.layers.encoder_layer_0
    images = torch.rand(2, 3, 32, 32)

    def by_hand(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), 16, 4, 4)

    cams = []
    for way in (by_hand, reshape_transform(model, layer, (32, 32))):
        with grad_cam.GradCAM(model=model, target_layers=[layer], reshape_transform=way) as method:
            cams.append(torch.from_numpy(method(images, None)))
    assert torch.equal(*cams)


def test_errors() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="nothing shows where rows, columns and channels of '1' lie"):
        reshape_transform(model, "1", (8, 8), in_channels=1)
    with pytest.raises(TypeError, match="model: expected"):
        reshape_transform(torch.relu, "1")  # type: ignore[arg-type]
