"""Sources: layouts brought to (N, C, H, W), and the last spatial layer of torchvision's networks."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from erfattr import FeatureUnit, ModelOutput, from_channels_last, from_tokens
from erfattr.attr.sources import last_spatial_layer


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
        assert last_spatial_layer(model, torch.zeros(1, 3, 224, 224)) == layer


def test_errors() -> None:
    with pytest.raises(TypeError, match="layer: expected a module, its dotted name or None, got 4"):
        FeatureUnit(4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target: expected None, an integer"):
        ModelOutput(())
    with pytest.raises(ValueError, match="layer: no module of the Linear gives an output of shape"):
        last_spatial_layer(nn.Linear(4, 4), torch.zeros(1, 3, 4, 4))
