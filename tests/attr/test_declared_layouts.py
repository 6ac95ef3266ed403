"""What networks say of their own layouts, used where the pass shows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torchvision.models import SwinTransformer, VisionTransformer

from erfattr import ERF, from_tokens
from erfattr.attr.declared_layouts import declared_layout, layout_by_contract
from erfattr.receptive_field._place_rules.registry import Found, Placing, place_rule


def _vit() -> VisionTransformer:
    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
    )


def test_torchvision_says_how_large_patches_are_and_where_channels_lie() -> None:
    layout = declared_layout(_vit(), "encoder.layers.encoder_layer_1", (2, 17, 8), (32, 32))
    assert layout is not None
    assert str(layout) == "(N, L, C) tokens, 1 prefix + 4 x 4 grid, from VisionTransformer.patch_size"
    assert declared_layout(_vit(), "encoder", (2, 18, 8), (32, 32)) is None
    swin = SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3)
    layout = declared_layout(swin, "features.1.0", (1, 8, 6, 8), (32, 24))
    assert layout is not None
    assert str(layout) == "(N, H, W, C), as a SwinTransformer keeps its maps"
    assert layout.grid == (8, 6)
    assert declared_layout(swin, "permute", (1, 8, 8, 6), (32, 24)) is None


def test_timm_says_how_many_tokens_stand_before_the_grid() -> None:
    with torch.device("meta"):
        vit = timm.create_model("vit_tiny_patch16_224", img_size=64, reg_tokens=3)
        swin = timm.create_model("swin_tiny_patch4_window7_224")
    layout = declared_layout(vit, "blocks.0", (1, 20, 192), (64, 64))
    assert layout is not None
    assert (layout.grid, layout.prefix) == ((4, 4), 4)
    assert layout.found == "from VisionTransformer.patch_embed and num_prefix_tokens"
    layout = declared_layout(swin, "layers.0.blocks.1", (1, 56, 56, 96), (224, 224))
    assert layout is not None
    assert str(layout) == "(N, H, W, C), as a SwinTransformer keeps its maps"


@pytest.mark.parametrize(("length", "prefix"), [(24, 0), (25, 1), (26, 2), (29, 5)])
def test_hugging_face_configuration_says_the_patch_size(length: int, prefix: int) -> None:
    model = nn.Sequential(nn.Identity())
    model.config = SimpleNamespace(patch_size=(16, 8), image_size=64, num_register_tokens=4)
    layout = declared_layout(model, "0", (1, length, 8), (64, 48))
    assert layout is not None
    assert (layout.grid, layout.prefix) == ((4, 6), prefix)
    assert declared_layout(model, "0", (1, 27, 8), (64, 48)) is None


def test_who_says_nothing_is_not_asked() -> None:
    assert declared_layout(nn.Sequential(nn.Identity()), "0", (1, 16, 8), (32, 32)) is None
    assert declared_layout(nn.Sequential(nn.Identity()), "0", (1, 4, 4, 8), (32, 32)) is None
    contract = layout_by_contract(nn.Conv2d(3, 8, 1), (1, 8, 4, 4))
    assert contract is not None
    assert str(contract) == "(N, C, H, W), as every Conv2d gives it"
    assert layout_by_contract(nn.Conv2d(3, 8, 1), (8, 4, 4)) is None
    assert layout_by_contract(nn.LayerNorm(8), (1, 4, 4, 8)) is None


@torch.library.custom_op("erfattr_tests::opaque", mutates_args=(), schema="(Tensor value) -> Tensor")
def opaque(value: Tensor) -> Tensor:
    """An operator that nobody has heard of."""
    return value.clone()


opaque.register_autograd(lambda _, gradient: gradient)


class Shy(nn.Module):
    """Does not run while somebody watches its operators."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, value: Tensor) -> Tensor:
        if is_in_torch_dispatch_mode():
            raise RuntimeError("watched")
        return self.inner(value)


@pytest.mark.parametrize("count", [2, 4])
def test_network_that_cannot_be_followed_is_run_without(count: int, snapshot: Any, assert_same: Any) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.ReLU()), nn.Flatten())
    model, images = Shy(inner).double(), torch.rand(count, 3, 8, 8, dtype=torch.float64)
    before = snapshot(model)
    found, statistics = ERF(model, "inner.0").attribute(images, return_statistics=True)
    assert statistics.source is not None
    assert statistics.source.layout == "(N, C, H, W), as every Conv2d gives it"
    assert torch.allclose(found, ERF(inner, "0").attribute(images), atol=1e-15)
    with pytest.raises(ValueError, match=r"to give a feature map, got shape \(\d, 4, 8, 8\): nothing shows"):
        ERF(model, "inner.1").attribute(images)
    with pytest.raises(ValueError, match="no module of the Shy gives a feature map"):
        ERF(model).attribute(images)
    assert_same(before, snapshot(model))


class Opaque(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return opaque(value)


@contextmanager
def _made_opaque(model: nn.Module, name: str) -> Iterator[None]:
    handle = model.get_submodule(name).register_forward_hook(lambda _module, _args, output: opaque(output))
    try:
        yield
    finally:
        handle.remove()


def test_network_is_asked_where_the_pass_loses_the_tokens() -> None:
    torch.manual_seed(0)
    model = _vit().double().eval()
    nn.init.normal_(model.heads.head.weight)
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    layer = "encoder.layers.encoder_layer_0"
    expected = ERF(model, layer).attribute(images)
    with _made_opaque(model, layer):
        found, statistics = ERF(model, layer).attribute(images, return_statistics=True)
    assert statistics.source is not None
    assert statistics.source.layout.endswith("4 x 4 grid, from VisionTransformer.patch_size")
    assert torch.allclose(found, expected, atol=1e-14)


def test_lost_maps_are_refused_and_to_spatial_goes_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 4, 4), nn.Flatten(2), Opaque(), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)
    )
    images = torch.rand(2, 3, 16, 16)
    for layer in ("2", "3"):
        with pytest.raises(ValueError, match=r"to give a feature map, got shape \(2, 6, 16\): nothing shows"):
            ERF(model, layer).attribute(images)
    with pytest.raises(ValueError, match=r"since '3', behind the last known feature map '1', gives shape"):
        ERF(model).attribute(images)
    tokens = from_tokens((4, 4), prefix=0)
    found, statistics = ERF(model, "3", to_spatial=lambda value: tokens(value.transpose(1, 2))).attribute(
        images, return_statistics=True
    )
    assert statistics.source is not None
    assert statistics.source.layout == "as to_spatial gives it"
    assert found.nonzero().min(0).values.tolist() == [8, 8]


def test_convolution_behind_an_unknown_operator_gives_a_map_by_contract() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Opaque(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    images = torch.rand(1, 3, 8, 8)
    found, statistics = ERF(model, "3").attribute(images, return_statistics=True)
    assert statistics.source is not None
    assert statistics.source.layout == "(N, C, H, W), as every Conv2d gives it"
    assert found.nonzero().min(0).values.tolist() >= [2, 2]
    with pytest.raises(ValueError, match="no module of the Sequential gives a feature map"):
        ERF(model).attribute(images)


def test_rule_that_does_not_fit_is_named_where_it_costs_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(call: Placing) -> Found:
        raise IndexError("a dim that is not there")

    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2), nn.ReLU())
    images = torch.rand(2, 3, 8, 8)
    expected = ERF(model, "3").attribute(images)
    monkeypatch.setitem(place_rule._by_name, "view", broken)
    monkeypatch.setattr(place_rule, "_found", {})
    other = nn.Sequential(*model)  # nothing is remembered of it
    with pytest.raises(
        ValueError, match=r"nothing shows .* \(lost at view: IndexError: a dim that is not there\)"
    ):
        ERF(other, "3").attribute(images)
    assert torch.equal(ERF(other, "3", to_spatial=lambda value: value).attribute(images), expected)
