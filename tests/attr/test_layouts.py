"""Layouts brought to (N, C, H, W), the last layer with a map, means over channels that are constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
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


# --- networks of every kind, against a literal gradient of a conversion written out by hand


def _output(model: nn.Module, layer: str, images: Tensor) -> Any:
    seen: list[Any] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *given: seen.append(given[2]))
    model(images)
    handle.remove()
    return seen[-1]


def _literal(model: nn.Module, layer: str, images: Tensor, convert: Callable[[Any], Tensor]) -> Tensor:
    """Eq. 1 to 3 for the centre unit, one image at a time."""
    total = torch.zeros(images.shape[2:], dtype=images.dtype)
    for image in images:
        leaf = image[None].clone().requires_grad_(True)
        features = convert(_output(model, layer, leaf))
        unit = features[0, :, features.shape[2] // 2, features.shape[3] // 2]
        (gradient,) = torch.autograd.grad(unit.mean(), leaf)
        total += gradient[0].mean(0).relu()
    return total / len(images)


def _tokens(height: int, width: int, prefix: int = 0) -> Callable[[Any], Tensor]:
    def convert(output: Any) -> Tensor:
        values = output if isinstance(output, Tensor) else output[0]
        return values[:, prefix:].mT.reshape(len(values), -1, height, width)

    return convert


def _as_it_is(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _last_to_second(output: Any) -> Tensor:
    return torch.movedim(output, 3, 1)


_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def _vgg() -> nn.Module:
    layers = torchvision.models.vgg.make_layers([8, "M", 16, "M", 16, 16, "M", 24, "M", 24, "M"])
    model = torchvision.models.VGG(layers, num_classes=3)
    model.classifier = nn.Linear(24 * 7 * 7, 3)
    return model


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)])
        self.bottom = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)])
        self.join = nn.ModuleList([nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(12, 6, 3, padding=1)])
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, value: Tensor) -> Tensor:
        kept = []
        for layer in self.down:
            value = layer(value).relu()
            kept.append(value)
            value = nn.functional.max_pool2d(value, 2)
        value = self.bottom(value).relu()
        for up, join, skip in zip(self.up, self.join, reversed(kept), strict=True):
            value = join(torch.cat([up(value), skip], 1)).relu()
        return self.head(value)


def _hugging_face(name: str, **settings: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(initializer_range=0.2, **settings)
    suffix = "ForSemanticSegmentation" if name == "Segformer" else "ForImageClassification"
    model: nn.Module = getattr(transformers, f"{name}{suffix}")(config)
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], str, str, Callable[[Any], Tensor]]] = {
    "vgg": (_vgg, (64, 96), "features", "(N, C, H, W)", _as_it_is),
    "u-net": (UNet, (24, 32), "head", "(N, C, H, W)", _as_it_is),
    "torchvision vit": (
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3),
        *((32, 32), "encoder.layers", "(N, L, C) tokens, 1 prefix + 4 x 4 grid", _tokens(4, 4, 1)),
    ),
    "torchvision swin": (
        lambda: torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=5),
        *((64, 96), "features", "(N, H, W, C)", _last_to_second),
    ),
    "segmentation": (
        lambda: torchvision.models.get_model("lraspp_mobilenet_v3_large", weights_backbone=None),
        *((64, 96), "classifier", "(N, C, H, W)", _as_it_is),
    ),
    "timm vit with registers": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=(48, 64), reg_tokens=3, depth=2),
        *((48, 64), "blocks", "(N, L, C) tokens, 4 prefix + 3 x 4 grid", _tokens(3, 4, 4)),
    ),
    "timm swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224",
            img_size=(56, 112),
            embed_dim=12,
            depths=(1, 2, 1),
            num_heads=(1, 2, 2),
        ),
        *((56, 112), "layers", "(N, H, W, C)", _last_to_second),
    ),
    "timm mixer": (
        lambda: timm.models.MlpMixer(num_classes=3, img_size=64, patch_size=16, num_blocks=2, embed_dim=16),
        *((64, 64), "blocks", "(N, L, C) tokens, 4 x 4 grid", _tokens(4, 4)),
    ),
    "timm hybrid": (
        lambda: timm.create_model("mobilevit_xxs"),
        *((64, 96), "final_conv", "(N, C, H, W)", _as_it_is),
    ),
    "transformers ViT": (
        lambda: _hugging_face("ViT", image_size=64, patch_size=16, intermediate_size=32, **_SMALL),
        *((64, 64), "", "(N, L, C) tokens, 1 prefix + 4 x 4 grid", _tokens(4, 4, 1)),
    ),
    "transformers Dinov2": (
        lambda: _hugging_face("Dinov2", image_size=64, patch_size=16, **_SMALL),
        *((64, 64), "", "(N, L, C) tokens, 1 prefix + 4 x 4 grid", _tokens(4, 4, 1)),
    ),
    "transformers Swin": (
        lambda: _hugging_face(
            "Swin", image_size=64, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
        ),
        *((64, 64), "", "(N, L, C) tokens, 16 x 16 grid", _tokens(16, 16)),
    ),
    "transformers Segformer": (
        lambda: _hugging_face(
            "Segformer",
            depths=[1] * 4,
            hidden_sizes=[8, 10, 16, 24],
            num_attention_heads=[1, 2, 4, 8],
            decoder_hidden_size=8,
        ),
        *((64, 96), "decode_head", "(N, C, H, W)", _as_it_is),
    ),
    "transformers ConvNext": (
        lambda: _hugging_face("ConvNext", depths=[1] * 4, hidden_sizes=[8, 10, 16, 24]),
        *((64, 96), "", "(N, C, H, W)", _as_it_is),
    ),
    "transformers MobileViT": (
        lambda: _hugging_face(
            "MobileViT",
            image_size=64,
            hidden_sizes=[16, 16, 16],
            num_attention_heads=2,
            neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
        ),
        *((64, 64), "mobilevit.conv_1x1_exp", "(N, C, H, W)", _as_it_is),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_default_map_of_every_kind_of_network(name: str) -> None:
    build, size, layer, layout, convert = NETWORKS[name]
    torch.manual_seed(0)
    model = build().double().eval()
    images = torch.rand(4, 3, *size, dtype=torch.float64)
    found, statistics = ERF(model).attribute(images, return_statistics=True)
    source = statistics.source
    assert source is not None
    if layer:  # names inside of Hugging Face's models move between its releases
        assert source.layer == layer
    assert layout in source.layout
    assert "traced" in source.layout
    expected = _literal(model, source.layer, images, convert)
    assert float((found - expected).abs().max() / expected.max()) < 1e-10
    # A few images are run on the model as it is, and find the same.
    few = ERF(model).attribute(images[:2])
    expected = _literal(model, source.layer, images[:2], convert)
    assert float((few - expected).abs().max() / expected.max()) < 1e-10


def test_windows_heads_and_keys_are_refused() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, qk_norm=True, depth=1)
    block = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(1,), num_heads=(1,)
    )
    images = torch.rand(4, 3, 64, 64)
    with pytest.raises(ValueError, match=r"got shape \(1, 3, 17, 64\): its patches are split over heads"):
        ERF(vit, "blocks.0.attn.k_norm").attribute(images)
    with pytest.raises(ValueError, match=r"got shape \(1, 192\): no dims are left for rows and columns"):
        ERF(vit, "fc_norm").attribute(images)
    assert ERF(vit, "blocks.0.attn.qkv").attribute(images).any()
    with pytest.raises(
        ValueError, match=r"got shape \(4, 49, 36\): its rows and columns run along several dims"
    ):
        ERF(block, "layers.0.blocks.0.attn.qkv").attribute(torch.rand(1, 3, 56, 56))


def test_layers_inside_attention_are_not_taken_for_the_last_map() -> None:
    """A block that attends in its own forward: its parts are no feature maps of the network."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.k_norm, self.out = nn.Linear(8, 24), nn.Identity(), nn.Linear(8, 8)

        def forward(self, tokens: Tensor) -> Tensor:
            n, length, width = tokens.shape
            q, k, v = self.qkv(tokens).view(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4)
            weights = (q @ self.k_norm(k).mT).softmax(-1)
            return tokens + self.out((weights @ v).transpose(1, 2).reshape(n, length, width))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.block, self.head = nn.Conv2d(3, 8, 4, 4), Block(), nn.Linear(8, 2)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patch(images).flatten(2).transpose(1, 2)
            return self.head(self.block(tokens).mean(1))

    torch.manual_seed(0)
    model = Network().double()
    images = torch.rand(3, 3, 16, 24, dtype=torch.float64)
    found, statistics = ERF(model).attribute(images, return_statistics=True)
    assert statistics.source is not None
    assert statistics.source.layer == "block"
    assert statistics.source.center == (9.5, 13.5)  # patch (2, 3) of four pixels
    assert torch.allclose(found, _literal(model, "block", images, _tokens(4, 6)), atol=1e-14)


def test_channels_last_layer_of_a_swin_is_read_right() -> None:
    torch.manual_seed(0)
    model = torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=5)
    images = torch.rand(4, 3, 64, 64)
    found, statistics = ERF(model, "features.1").attribute(images, return_statistics=True)
    source = statistics.source
    assert source is not None
    assert (source.unit, source.feature_size, source.center) == ((8, 8), (16, 16), (33.5, 33.5))
    seen = found.nonzero()
    assert seen.min(0).values.tolist() == [16, 16]
    assert seen.max(0).values.tolist() == [47, 47]
    assert torch.equal(found, ERF(model, "features.1", to_spatial=from_channels_last).attribute(images))


class Levels(nn.Module):
    """One head on maps of three sizes, the last a single position."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Conv2d(3 if level == 0 else 4, 4, 2, 2) for level in range(3))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, value: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.body:
            value = layer(value)
            outputs.append(self.head(value))
        return outputs


@pytest.mark.parametrize("count", [1, 5])
def test_last_run_of_a_layer_counts_for_the_last_map_too(count: int) -> None:
    torch.manual_seed(0)
    model, images = Levels().double(), torch.rand(count, 3, 8, 8, dtype=torch.float64)
    found, statistics = ERF(model).attribute([images, images], return_statistics=True)
    assert statistics.source is not None
    assert (statistics.source.layer, statistics.source.feature_size) == ("body.1", (2, 2))
    assert torch.equal(found, ERF(model, "body.1").attribute([images, images]))
    larger = torch.rand(count, 3, 16, 16, dtype=torch.float64)
    _, statistics = ERF(model).attribute(larger, return_statistics=True)
    assert statistics.source is not None
    assert (statistics.source.layer, statistics.source.feature_size) == ("head", (2, 2))
