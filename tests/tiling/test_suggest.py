"""Halo and alignment: tiles equal the whole image, and do not with less."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from erfattr import Tiling, stitch, suggest_tiling, tiling_error
from erfattr.tiling.stitching import HaloError
from tests.tiling import networks

SEEDS = range(24)
MANY = range(24, 224)


def sized(tiling: Tiling, draw: random.Random, *, aligned: bool) -> tuple[int, int]:
    """A size in which tiles inside have a halo on all sides."""
    sizes = [
        2 * halo + draw.choice((4, 5)) * period + (0 if aligned else draw.randrange(period))
        for halo, period in zip(tiling.halo, tiling.alignment, strict=True)
    ]
    return max(sizes[0], 24), max(sizes[1], 24)


def tiles_for(tiling: Tiling) -> tuple[int, int]:
    """Tiles that keep two periods or three: there are some inside the image, and not too many."""
    rows, columns = (2 * h + 3 * p for h, p in zip(tiling.halo, tiling.alignment, strict=True))
    return rows, columns


def check(model: nn.Module, seed: int, *, aligned: bool) -> str:
    """Compare tiles with the whole image at the halo that is suggested, and at one step less."""
    draw = random.Random(seed)
    first = suggest_tiling(model, 96, in_channels=2)
    size = sized(first, draw, aligned=aligned)
    if aligned:
        size = tuple(-(-length // p) * p for length, p in zip(size, first.alignment, strict=True))  # type: ignore[assignment]
    tiling = suggest_tiling(model, size, in_channels=2)
    assert tiling.exact, tiling.note
    images = networks.noise(size)
    assert tiling_error(model, images, tiling, tiles_for(tiling)).largest == 0
    for axis in (0, 1):
        if tiling.halo[axis]:
            less = list(tiling.halo)
            less[axis] -= tiling.alignment[axis]
            smaller = tiling.with_halo((less[0], less[1]))
            assert not smaller.exact
            try:
                error = tiling_error(model, images, smaller, tiles_for(smaller)).largest
            except HaloError:  # without padding there is nothing to put together
                continue
            assert error > 0
    return "halo" if max(tiling.halo) else "no halo"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_unet(seed: int) -> None:
    check(networks.random_unet(seed), seed, aligned=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_encoder_on_any_size(seed: int) -> None:
    check(networks.random_encoder(seed), seed, aligned=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_random_networks(seed: int) -> None:
    check(networks.random_unet(seed), seed, aligned=True)
    check(networks.random_encoder(seed), seed, aligned=False)


# Closed forms.


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # halo, alignment, ((above, below), (left, right)), units for a period
        ([nn.Conv2d(1, 1, 1)], ((0, 0), (1, 1), ((0, 0), (0, 0)), (1, 1))),
        ([nn.Conv2d(1, 1, (5, 3), padding=(2, 1))], ((2, 1), (1, 1), ((2, 2), (1, 1)), (1, 1))),
        # Without padding a unit stands at the first pixel that it reads.
        ([nn.Conv2d(1, 1, 5)], ((4, 4), (1, 1), ((0, 4), (0, 4)), (1, 1))),
        ([nn.Conv2d(1, 1, 3, stride=2, padding=1)], ((2, 2), (2, 2), ((1, 0), (1, 0)), (1, 1))),
        # Up and down again: the phases reach 1 above and 0 below; two of them stand on a period.
        (
            [nn.Conv2d(1, 1, 3, stride=2, padding=1), nn.Upsample(scale_factor=2)],
            ((2, 2), (2, 2), ((1, 0), (1, 0)), (2, 2)),
        ),
        ([nn.PixelShuffle(1), nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2)],
         ((1, 1), (1, 1), ((1, 1), (1, 1)), (2, 2))),
    ],
)  # fmt: skip
def test_closed_form(layers: list[nn.Module], expected: tuple[object, ...]) -> None:
    tiling = suggest_tiling(nn.Sequential(*layers), 64, in_channels=1)
    assert (tiling.halo, tiling.alignment, tiling.margins, tiling.step) == expected
    assert tiling.exact
    (h, v), (rows, columns) = tiling.halo, tiling.alignment
    assert tiling.minimum_tile == (2 * h + rows, 2 * v + columns)


class Block(nn.Sequential):
    def __init__(self, given: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(given, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """Three levels, two convolutions each: the one that people ask about."""

    def __init__(self, resize: str = "transposed") -> None:
        super().__init__()
        self.resize = resize
        self.down = nn.ModuleList([Block(1, 4), Block(4, 4), Block(4, 4)])
        self.middle = Block(4, 4)
        self.rise = nn.ModuleList([nn.ConvTranspose2d(4, 4, 2, 2) for _ in range(3)])
        self.up = nn.ModuleList([Block(8, 4) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for rise, up in zip(self.rise, self.up, strict=True):
            skip = skips.pop()
            if self.resize == "transposed":
                x = rise(x)
            elif self.resize == "size":
                x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear")
            else:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = up(torch.cat([skip, x], 1))
        return x


def test_unet_of_three_levels_and_an_image_of_gigapixels() -> None:
    # Two convolutions a block read one row more each, at their stride: 2 (1 + 2 + 4) on the way down, as many
    # on the way up, 2 * 8 in the middle: 44; that a block reads into the next unit below adds 2 for the worst
    # of 8 phases.
    tiling = suggest_tiling(UNet(), (100_000, 60_000), in_channels=1)
    assert (tiling.halo, tiling.alignment) == ((48, 48), (8, 8))
    assert tiling.exact
    assert max(tiling.margins[0]) == 46


def test_alignment_matters_more_than_halo() -> None:
    torch.manual_seed(0)
    model = UNet().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # what comes through the middle is not lost beside the skips
    images = torch.randn(1, 1, 256, 32).double()
    tiling = suggest_tiling(model, (256, 32), in_channels=1)
    with torch.no_grad():
        whole = model(images)
        # A tile that begins four rows off, with eight rows of halo more than is needed.
        part = model(images[:, :, 60:220])[:, :, 56:64]
    largest = float(whole.abs().max())
    assert float((part - whole[:, :, 116:124]).abs().max()) / largest > 1e-4
    assert tiling_error(model, images, tiling, (104 + 8, 32)).largest < 1e-13


# Networks of which no halo is exact: said why.


class Ramp(nn.Module):
    """Adds where in the image a row lies."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.linspace(-1, 1, x.shape[2]).to(x)[:, None]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)], r"whole image is seen by native_group_norm in '1'"),
        ([nn.InstanceNorm2d(1)], r"in '0' \(InstanceNorm2d\)"),
        ([torchvision.ops.SqueezeExcitation(1, 1)], r"mean in '0.avgpool' \(AdaptiveAvgPool2d\)"),
        ([nn.AdaptiveAvgPool2d(16)], r"size of the image sets adaptive_avg_pool2d in '0'"),
        ([nn.Conv2d(1, 1, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)],
         "size of the image sets upsample_bilinear2d in '1'"),
        ([nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")], "do not repeat|other side"),
        ([nn.Conv2d(1, 1, 3), Ramp()], "tiles of noise differ by"),
        # What was cut off is padded with zeros again, where a larger image has values.
        ([nn.Conv2d(1, 1, 2, 2), nn.ConvTranspose2d(1, 1, 2, 2, 1), nn.Conv2d(1, 1, 3, padding=1)],
         "tiles of noise differ by"),
    ],
)  # fmt: skip
def test_no_halo_is_exact(layers: list[nn.Module], words: str) -> None:
    torch.manual_seed(0)
    tiling = suggest_tiling(nn.Sequential(*layers).eval(), 64, in_channels=1)
    assert not tiling.exact
    assert torch.tensor(tiling.halo).max() < 64
    assert re.search(words, tiling.note), tiling.note


def test_what_runs_after_the_layer_does_not_count() -> None:
    model = torchvision.models.resnet18(weights=None)
    tiling = suggest_tiling(model, 256, layer="layer1")
    # 7x7 stride 2, pooling 3 stride 2, four convolutions at stride 4: 3 + 2 + 16, and up to 3 beside.
    assert (tiling.halo, tiling.alignment, tiling.exact) == ((24, 24), (4, 4), True)
    images = torch.randn(1, 3, 256, 96)
    error = tiling_error(model, images, suggest_tiling(model, (256, 96), layer="layer1"), (96, 96))
    assert error.largest < 1e-5  # float32: sums in another order


def test_resizing_to_the_size_of_a_map_needs_a_multiple_of_the_strides() -> None:
    even = suggest_tiling(UNet("size").eval(), 256, in_channels=1)
    odd = suggest_tiling(UNet("size").eval(), (253, 256), in_channels=1)
    assert (even.halo, even.exact) == ((56, 56), True)
    assert (odd.halo, odd.exact) == ((56, 56), False)
    assert "on one of 256 x 256 they do: pad the image to that" in odd.note


def test_model_comes_back_as_it_was_and_without_data_it_is_not_checked() -> None:
    model = UNet().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    suggest_tiling(model, 128, in_channels=1)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    tiling = suggest_tiling(model.to("meta"), 128, in_channels=1)
    assert tiling.halo == (48, 48)
    assert tiling.note.startswith("not checked with numbers")


# Part of the effective field.


def test_coverage_leaves_an_error_that_is_measured() -> None:
    torch.manual_seed(0)
    model = UNet().eval()
    images = torch.rand(3, 1, 160, 160)
    exact = suggest_tiling(model, 160, in_channels=1)
    tiling = suggest_tiling(model, 160, 0.99, in_channels=1, images=images.split(2))
    assert max(tiling.halo) < max(exact.halo)
    assert not tiling.exact
    # The independent way: tile here, and compare.
    whole = model(images).detach()
    mine = stitch(model, images, tiling, 2 * tiling.halo[0] + 40)
    assert tiling.error == pytest.approx(float((mine - whole).abs().max() / whole.abs().max()), rel=1e-6)
    assert tiling.error > 1e-5
    assert f"largest error of {tiling.error:.2g}" in tiling.note


def test_coverage_of_a_network_that_sees_the_whole_image() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 1, 3, padding=1))
    tiling = suggest_tiling(model, 64, 0.5, in_channels=1, images=torch.rand(2, 1, 64, 64))
    assert not tiling.exact
    assert "whole image is seen by" in tiling.note
    assert tiling.error is not None
    assert tiling.error > 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"input_size": 0}, ValueError, r"input_size: expected \(H, W\)"),
        ({"input_size": 64, "coverage": 1.5}, ValueError, "coverage: expected a number in"),
        ({"input_size": 64, "coverage": 0.9}, ValueError, "images: expected some to measure the error"),
        ({"input_size": 64, "layer": "nowhere"}, ValueError, "has no layer 'nowhere'"),
        ({"input_size": 30}, ValueError, "on an image of 30 x 30 stopped at aten.cat"),
    ],
)
def test_errors(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        suggest_tiling(UNet(), in_channels=1, **arguments)  # type: ignore[arg-type]


def test_classifier_has_no_positions() -> None:
    model = torchvision.models.resnet18(weights=None)
    with pytest.raises(ValueError, match=r"positions \(N, C, H, W\), got shape \(1, 1000\); name the layer"):
        suggest_tiling(model, 64)
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module"):
        suggest_tiling(torch.relu, 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "layer", "words"),
    [
        (
            torchvision.models.swin_t,
            "features",
            r"map of 7 x 7; no finite halo .*features.1.0.attn",
        ),
        (
            torchvision.models.vit_b_16,
            "encoder",
            r"layer that is wanted; no finite halo .*self_attention",
        ),
    ],
)
def test_attention_is_named_where_the_layout_is_refused(model: Any, layer: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        suggest_tiling(model(weights=None), 224, layer=layer)
