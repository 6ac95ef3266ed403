"""Receptive fields: Table 1 and hand arithmetic, then the NaN probe as oracle, then errors."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from erfattr.receptive_field._tracing import Tracing
from erfattr.receptive_field.field import (
    ReceptiveField,
    nan_probe,
    receptive_fields,
    theoretical_receptive_field,
    total_stride,
)

# Table 1 of the paper.
TABLE_1 = {
    "resnet18": 435,
    "resnet34": 899,
    "resnet50": 427,
    "resnet101": 971,
    "resnet152": 1451,
    "wide_resnet50_2": 427,
    "wide_resnet101_2": 971,
    "resnext50_32x4d": 427,
    "resnext101_32x8d": 971,
}


def on_meta(build: Callable[..., nn.Module], **options: Any) -> nn.Module:
    with torch.device("meta"):
        return build(**options)


def every_unit(rf: ReceptiveField) -> list[tuple[int, int]]:
    return [(i, j) for i in range(rf.output_size[0]) for j in range(rf.output_size[1])]


def assert_equals_probe(
    model: nn.Module, layer: str | None, size: int | tuple[int, int], *, channels_last: bool = False
) -> ReceptiveField:
    """Touched rows and columns and the box inside the image, of every unit, against the real model."""
    rf = theoretical_receptive_field(model, layer, size)
    probe = nan_probe(model, layer, size, batch_size=16, channels_last=channels_last)
    assert rf.method == "operators"
    assert rf.unknown_operators == ()
    assert rf.output_size == probe.output_size
    for unit in every_unit(rf):
        assert rf.touched(unit) == probe.touched(unit), unit
        assert rf.bounds(unit, clipped=True) == probe.bounds(unit, clipped=True), unit
        y0, x0, y1, x1 = rf.bounds(unit)
        rows, columns = rf.touched(unit)
        assert not rows or (y0 <= rows[0] and rows[-1] <= y1 and x0 <= columns[0] and columns[-1] <= x1)
    return rf


class Functional(nn.Module):
    """``forward(x)`` is ``function(x, *modules)``."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.parts)


# -- closed form --


@pytest.mark.parametrize(("name", "size"), TABLE_1.items())
def test_table_1(name: str, size: int) -> None:
    model = on_meta(getattr(zoo, name))
    start = time.process_time()  # not the wall clock: other work on the machine is no business of this test
    rf = theoretical_receptive_field(model, "layer4")
    assert time.process_time() - start <= 1.0
    assert rf.size == rf.local_size == (size, size)
    assert rf.stride == (32, 32)
    assert rf.output_size == (7, 7)
    assert rf.center((3, 3)) == (96.0, 96.0)
    half = size // 2
    assert rf.bounds((3, 3)) == (96 - half, 96 - half, 96 + half, 96 + half)
    assert rf.bounds((0, 6)) == (-half, 192 - half, half, 192 + half)
    assert rf.bounds((0, 6), clipped=True) == (0, max(192 - half, 0), min(half, 223), 223)
    assert (rf.status, rf.method, rf.unknown_operators, rf.note) == ("exact", "operators", (), "")


@pytest.mark.parametrize("name", TABLE_1)
def test_every_layer_in_one_pass(name: str) -> None:
    model = on_meta(getattr(zoo, name))
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    fields = receptive_fields(model)
    assert len(runs) == 1
    assert fields["layer4"].size[0] == TABLE_1[name]
    assert (fields["conv1"].size, fields["maxpool"].size) == ((7, 7), (11, 11))
    assert fields["avgpool"].status == fields["fc"].status == fields[""].status == "whole image"
    order = list(fields)
    assert (
        order.index("conv1") < order.index("layer1.0.conv1") < order.index("layer1.0") < order.index("layer1")
    )
    assert order[-1] == ""
    assert fields["layer3"] == theoretical_receptive_field(model, model.get_submodule("layer3"))


def chain(windows: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Size and stride of (kernel, stride, dilation) windows in a row, as in any textbook."""
    size = stride = 1
    for kernel, step, dilation in windows:
        size += dilation * (kernel - 1) * stride
        stride *= step
    return size, stride


VGG16 = [(3, 1, 1), (3, 1, 1), (2, 2, 1)] * 2 + [(3, 1, 1), (3, 1, 1), (3, 1, 1), (2, 2, 1)] * 3
CONVNEXT_TINY = (
    [(4, 4, 1)]
    + [(7, 1, 1)] * 3
    + [(2, 2, 1)]
    + [(7, 1, 1)] * 3
    + [(2, 2, 1)]
    + [(7, 1, 1)] * 9
    + [(2, 2, 1)]
    + [(7, 1, 1)] * 3
)
# First convolution, then the strides of the 17 depthwise 3x3 convolutions.
MOBILENET_V2 = [(3, 2, 1)] + [(3, step, 1) for step in (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)]
ALEXNET = [(11, 4, 1), (3, 2, 1), (5, 1, 1), (3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 1)]


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("vgg16", VGG16),
        ("convnext_tiny", CONVNEXT_TINY),
        ("mobilenet_v2", MOBILENET_V2),
        ("alexnet", ALEXNET),
    ],
)
@pytest.mark.parametrize("input_size", [(224, 224), (160, 97)])
def test_plain_chains_follow_the_textbook(
    name: str, windows: list[tuple[int, int, int]], input_size: tuple[int, int]
) -> None:
    size, stride = chain(windows)
    rf = theoretical_receptive_field(on_meta(getattr(zoo, name)), "features", input_size)
    assert (rf.size, rf.stride, rf.status) == ((size, size), (stride, stride), "exact")


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("googlenet", "inception5b", 379),
        ("inception_v3", "Mixed_7c", 1311),
        ("densenet121", "features", 2071),
    ],
)
def test_branching_networks(name: str, layer: str, size: int) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    input_size = 299 if name == "inception_v3" else 224
    rf = theoretical_receptive_field(on_meta(getattr(zoo, name), **options), layer, input_size)
    assert (rf.size, rf.stride, rf.status) == ((size, size), (32, 32), "exact")


@pytest.mark.parametrize(("dilated", "stride"), [((False, False, True), 16), ((True, True, True), 4)])
def test_dilated_resnet_keeps_its_field(dilated: tuple[bool, ...], stride: int) -> None:
    model = on_meta(zoo.resnet50, replace_stride_with_dilation=list(dilated)) if len(dilated) == 3 else None
    assert model is not None
    rf = theoretical_receptive_field(model, "layer4")
    assert (rf.size, rf.stride, rf.status) == ((427, 427), (stride, stride), "exact")


def test_even_kernels_put_the_centre_unit_at_the_exact_centre_of_the_image() -> None:
    # ResNet's five strides with kernels 8, 4, 4, 4, 4 and one more row of padding before than after where the
    # kernel needs it: each stage moves the centre by half of its stride.
    def pad(before: int, after: int) -> nn.Module:
        return nn.ZeroPad2d((before, after, before, after))

    stages = [nn.Sequential(pad(3, 3), nn.Conv2d(3, 4, 8, stride=2)), nn.MaxPool2d(4, 2, padding=1)]
    stages += [nn.Sequential(pad(1, 1), nn.Conv2d(4, 4, 4, stride=2)) for _ in range(3)]
    rf = theoretical_receptive_field(nn.Sequential(*stages))
    assert rf.output_size == (7, 7)
    assert rf.center((3, 3)) == (111.5, 111.5)
    odd = nn.Sequential(*(nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(5)))
    assert theoretical_receptive_field(odd).center((3, 3)) == (96.0, 96.0)


def test_axes_are_kept_apart() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 2, (1, 7), padding=(0, 3)), nn.Conv2d(2, 2, (5, 3), (3, 2), (2, 0), (2, 1))
    )
    rf = theoretical_receptive_field(model, input_size=(40, 20))
    assert (rf.size, rf.stride) == ((9, 9), (3, 2))
    assert rf.bounds((1, 1)) == (3 - 2, 2 - 3, 3 - 2 + 8, 2 - 3 + 8)
    assert rf.touched((1, 1))[0] == (1, 3, 5, 7, 9)
    assert rf.touched((1, 1))[1] == tuple(range(8))


def test_dilated_chain_leaves_holes() -> None:
    # Every row that is a sum of one offset of each convolution is touched: all of -23..23 but -8 and 8.
    dilations = (1, 2, 4, 16)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=d, dilation=d) for d in dilations))
    sums = {sum(offsets) for offsets in itertools.product(*((-d, 0, d) for d in dilations))}
    assert sorted(set(range(-23, 24)) - sums) == [-8, 8]
    rf = theoretical_receptive_field(model, input_size=64)
    assert rf.size == (47, 47)
    assert rf.bounds((32, 32)) == (9, 9, 55, 55)
    assert rf.touched((32, 32)) == (tuple(sorted(32 + offset for offset in sums)),) * 2
    assert rf.status == "upper bound"
    assert "45 of 47 rows" in rf.note


def test_unclipped_size_does_not_need_a_large_image() -> None:
    model = on_meta(zoo.resnet152)
    for size in (32, 33, 64, (96, 40)):
        rf = theoretical_receptive_field(model, "layer4", size)
        assert (rf.size, rf.stride, rf.center((0, 0))) == ((1451, 1451), (32, 32), (0.0, 0.0))


def test_one_padded_position() -> None:
    rf = theoretical_receptive_field(nn.Sequential(nn.Conv2d(3, 1, 1, padding=1)), input_size=2)
    assert rf.touched((0, 0)) == ((), ())
    assert rf.bounds((0, 0)) == (-1, -1, -1, -1)
    assert rf.bounds((0, 0), clipped=True) == (0, 0, -1, -1)


# -- operators that mix positions --


def test_squeeze_excite_sees_everything_and_keeps_its_place() -> None:
    rf = theoretical_receptive_field(on_meta(zoo.efficientnet_b0), "features")
    assert (rf.status, rf.size, rf.local_size) == ("whole image", (224, 224), (851, 851))
    assert (rf.stride, rf.center((3, 3)), rf.bounds((0, 0))) == ((32, 32), (96.0, 96.0), (0, 0, 223, 223))


def test_gate_by_pooling_over_the_whole_map_keeps_the_place_too() -> None:
    # The pooling is an ordinary 12x12 window; that its one output is spread over the map makes it a gate.
    model = Functional(gate, conv(3, 2, 3, padding=1), conv(2, 2, 1))
    rf = theoretical_receptive_field(model, input_size=12)
    assert (rf.status, rf.size, rf.local_size) == ("whole image", (12, 12), (3, 3))
    assert (rf.stride, rf.center((2, 9)), rf.bounds((2, 9))) == ((1, 1), (2.0, 9.0), (0, 0, 11, 11))


def test_vision_transformer() -> None:
    model = on_meta(zoo.vit_b_16)
    fields = receptive_fields(model)
    assert fields["conv_proj"].size == (16, 16)
    assert fields["conv_proj"].center((3, 4)) == (55.5, 71.5)
    assert (fields[""].status, fields[""].size) == ("whole image", (224, 224))
    assert "encoder.layers.encoder_layer_0" not in fields  # tokens


def test_windowed_attention_depends_on_the_position() -> None:
    rf = theoretical_receptive_field(on_meta(zoo.swin_t), "features.1.0")
    assert (rf.status, rf.output_size, rf.stride) == ("position-dependent", (56, 56), (4, 4))
    assert "(N, H, W, C)" in rf.note
    # The first block attends inside windows of 7 patches of 4 pixels; the patch itself is local.
    assert rf.bounds((0, 0)) == (0, 0, 27, 27)
    assert rf.bounds((6, 7)) == (0, 28, 27, 55)
    assert rf.center((6, 7)) == (25.5, 29.5)
    assert rf.local_size == (4, 4)
    shifted = theoretical_receptive_field(on_meta(zoo.swin_t), "features.1.1")
    # Shifted by 3 patches: patch 5 sees patches 3..9, in windows 0 and 1 (patches 0..13) of the block before;
    # patch 25 sees patches 24..30, in windows 3 and 4 (patches 21..34).
    assert shifted.bounds((5, 25)) == (0, 4 * 21, 4 * 14 - 1, 4 * 35 - 1)


def test_pooling_along_one_axis_only() -> None:
    model = Functional(lambda x: x * x.mean(2, keepdim=True))
    rf = theoretical_receptive_field(model, input_size=(12, 10))
    assert (rf.status, rf.size, rf.local_size) == ("whole image", (12, 1), (1, 1))
    assert "along rows only" in rf.note
    assert rf.touched((3, 4)) == (tuple(range(12)), (4,))


# -- independent oracle --


def conv(i: int, o: int, k: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, **options)


class UNet(nn.Module):
    def __init__(self, up: str) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [conv(3, 4, 3, padding=1), conv(4, 4, 3, padding=1), conv(4, 4, 3, padding=1)]
        )
        self.join = nn.ModuleList([conv(8, 4, 3, padding=1), conv(8, 4, 3, padding=1)])
        transposed = up == "transposed"
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(4, 4, 2, stride=2) if transposed else nn.Upsample(scale_factor=2, mode=up)
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down[0](x).relu_()
        middle = self.down[1](F.max_pool2d(fine, 2))
        coarse = self.down[2](F.max_pool2d(middle, 2))
        middle = self.join[0](torch.cat([middle, self.up[0](coarse)], 1))
        return self.join[1](torch.cat([fine, self.up[1](middle)], 1))


def write_into_views(x: Tensor, first: nn.Module, second: nn.Module, device: Any) -> Tensor:
    y = first(x)
    out = torch.zeros(len(x), 2, 2 * y.shape[2], y.shape[3], dtype=x.dtype, device=device)
    out[:, :, ::2] = y
    out[:, :, 1::2].add_(y.roll(1, 2).flip(3))
    return second(out)


def write_into_base(x: Tensor, first: nn.Module) -> Tensor:
    y = first(x).clone()
    flat = y.view(len(y), -1)
    y[:, :, 3:6] += y[:, :, 0:3]
    flat.mul_(2)
    return flat.view_as(y)


def non_local(x: Tensor, first: nn.Module) -> Tensor:
    y = first(x)
    tokens = y.flatten(2)
    weights = torch.softmax(tokens.transpose(1, 2) @ tokens, -1)
    return y + (weights @ tokens.transpose(1, 2)).transpose(1, 2).reshape(y.shape)


def attend(x: Tensor, first: nn.Module, *rest: nn.Module) -> Tensor:
    y = first(x)
    tokens = y.flatten(2).transpose(1, 2)
    if not rest:
        tokens = F.scaled_dot_product_attention(tokens[:, None], tokens[:, None], tokens[:, None]).squeeze(1)
    elif isinstance(rest[0], nn.MultiheadAttention):
        tokens = rest[0](tokens, tokens, tokens)[0]
    else:
        tokens = rest[0](tokens)
    return tokens.transpose(1, 2).reshape(y.shape)


def gate(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    y = first(x)
    return y * second(F.avg_pool2d(y, 12)).sigmoid()


def spatial_gate(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    y = first(x)
    return y * second(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)).sigmoid()


SMALL: dict[str, tuple[Callable[[], nn.Module], int | tuple[int, int]]] = {
    "dilated, padded": (
        lambda: nn.Sequential(conv(3, 2, 3, padding=1), conv(2, 2, 3, padding=4, dilation=4), conv(2, 2, 2)),
        19,
    ),
    "transposed, 3 by 2": (
        lambda: nn.Sequential(
            conv(3, 2, 3, stride=2, padding=1),
            nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1),
            conv(2, 2, 3, padding=1),
        ),
        17,
    ),
    "transposed, 4 by 2": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), conv(2, 2, 3, padding=1)),
        9,
    ),
    "transposed with gaps": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=3), conv(2, 2, 3, padding=1)),
        7,
    ),
    "transposed, dilated": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 2, 3, stride=2, dilation=2, padding=2), conv(2, 2, 3, stride=3, padding=1)
        ),
        9,
    ),
    "transposed with gaps, added": (
        lambda: Functional(lambda x, a: a(x)[:, :, :7, :7] + x[:, :2], nn.ConvTranspose2d(3, 2, 1, stride=2)),
        7,
    ),
    "U-Net, transposed": (lambda: UNet("transposed"), 24),
    "U-Net, nearest": (lambda: UNet("nearest"), 24),
    "U-Net, bilinear": (lambda: UNet("bilinear"), 24),
    "U-Net, bicubic": (lambda: UNet("bicubic"), 24),
    "reflection": (
        lambda: nn.Sequential(conv(3, 2, 5, padding=2, padding_mode="reflect"), conv(2, 2, 3, padding=1)),
        12,
    ),
    "replication": (
        lambda: nn.Sequential(conv(3, 2, 5, padding=2, padding_mode="replicate"), conv(2, 2, 3)),
        12,
    ),
    "circular": (
        lambda: nn.Sequential(
            conv(3, 2, 3, padding=1, padding_mode="circular"), conv(2, 2, 3, stride=2, padding=1)
        ),
        12,
    ),
    "strided slices": (
        lambda: Functional(
            lambda x, a, b: b(a(x)[:, :, ::2, 1::2]), conv(3, 2, 3, padding=1), conv(2, 2, 3, padding=1)
        ),
        12,
    ),
    "crop, turn and join": (
        lambda: Functional(
            lambda x, a: torch.cat([a(x)[:, :, :5], a(x)[:, :, 5:].flip(2)], 2), conv(3, 2, 3)
        ),
        12,
    ),
    "crop and join as channels": (
        lambda: Functional(
            lambda x, a, b: b(torch.cat([a(x)[:, :, :6], a(x)[:, :, 6:]], 1)),
            conv(3, 2, 3, padding=1),
            conv(4, 2, 3, groups=2),
        ),
        12,
    ),
    "crop and add": (
        lambda: Functional(lambda x, a: a(x)[:, :, 2:-2, 2:-2] + x[:, :2, :-4, 4:], conv(3, 2, 3, padding=1)),
        12,
    ),
    "pixel shuffle": (lambda: nn.Sequential(conv(3, 8, 3), nn.PixelShuffle(2), conv(2, 2, 3, padding=1)), 9),
    "pixel unshuffle": (
        lambda: nn.Sequential(conv(3, 2, 3, padding=1), nn.PixelUnshuffle(2), conv(8, 2, 3)),
        (12, 16),
    ),
    "channel shuffle": (
        lambda: nn.Sequential(conv(3, 4, 3, padding=1), nn.ChannelShuffle(2), conv(4, 4, 3, groups=4)),
        9,
    ),
    "in place, views": (
        lambda: Functional(
            lambda x, a, b: write_into_views(x, a, b, x.device), conv(3, 2, 3, padding=1), conv(2, 2, 3)
        ),
        10,
    ),
    "in place, views of a constant": (
        lambda: Functional(
            lambda x, a, b: write_into_views(x, a, b, None), conv(3, 2, 3, padding=1), conv(2, 2, 3)
        ),
        10,
    ),
    "in place, base": (lambda: Functional(write_into_base, conv(3, 2, 3, padding=1)), 10),
    "index": (
        lambda: Functional(
            lambda x, a: a(x)[:, :, torch.arange(9, -1, -2, device=x.device)], conv(3, 2, 3, padding=1)
        ),
        10,
    ),
    "index_select": (
        lambda: Functional(
            lambda x, a: a(x).index_select(3, torch.tensor([3, 4, 1])), conv(3, 2, 3, padding=1)
        ),
        10,
    ),
    "padding and negative padding": (
        lambda: Functional(lambda x, a: a(F.pad(x, (-2, 1, 3, -1))), conv(3, 2, 3, stride=2)),
        16,
    ),
    "padding of channels": (
        lambda: Functional(
            lambda x, a, b: b(F.pad(a(x), (0, 0, 0, 0, 1, 1)) + x.repeat(1, 2, 1, 1)[:, :4]),
            conv(3, 2, 3, padding=1),
            conv(4, 2, 3, groups=2),
        ),
        10,
    ),
    "groups": (
        lambda: Functional(
            lambda x, a, b, c: c(torch.cat([a(x), b(x)], 1)),
            conv(3, 2, 3, padding=1),
            conv(3, 2, 5, padding=2),
            conv(4, 4, 3, padding=1, groups=2),
        ),
        12,
    ),
    "ceil mode": (
        lambda: nn.Sequential(
            nn.MaxPool2d(3, 2, ceil_mode=True),
            conv(3, 2, 3, padding=1),
            nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        ),
        (16, 18),
    ),
    "adaptive": (
        lambda: nn.Sequential(
            conv(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d((5, 4)), conv(2, 2, 3, padding=1)
        ),
        13,
    ),
    "adaptive maximum": (lambda: nn.Sequential(nn.AdaptiveMaxPool2d((6, 1)), conv(3, 2, (3, 1))), 12),
    "asymmetric": (
        lambda: nn.Sequential(
            conv(3, 2, (1, 7), padding=(0, 3)), conv(2, 2, (5, 1), padding=(2, 0), stride=(1, 2))
        ),
        16,
    ),
    "instance norm": (
        lambda: nn.Sequential(conv(3, 4, 3, padding=1), nn.InstanceNorm2d(4), conv(4, 2, 3, stride=2)),
        12,
    ),
    "group norm": (
        lambda: Functional(
            lambda x, a, b, c: c(torch.cat([a(x)[:, :, :4], b(x)[:, :, 4:]], 1)),
            conv(3, 2, 1),
            conv(3, 2, 1),
            nn.GroupNorm(2, 4),
        ),
        8,
    ),
    "gate by average pooling": (lambda: Functional(gate, conv(3, 2, 3, padding=1), conv(2, 2, 1)), 12),
    "spatial gate": (
        lambda: Functional(spatial_gate, conv(3, 4, 3, padding=1), conv(2, 1, 7, padding=3)),
        12,
    ),
    "token mixer": (
        lambda: Functional(
            lambda x, a, b: b(a(x).flatten(2)).unflatten(2, (3, 3)), conv(3, 2, 4, stride=4), nn.Linear(9, 9)
        ),
        12,
    ),
    "channels last": (
        lambda: Functional(
            lambda x, a, b, c: c(b(a(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2),
            conv(3, 2, 3, stride=2),
            nn.LayerNorm(2),
            nn.Linear(2, 5),
        ),
        12,
    ),
    "patches by unfold": (
        lambda: Functional(
            lambda x, a: a(x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)).permute(
                0, 3, 1, 2
            ),
            nn.Linear(48, 5),
        ),
        12,
    ),
    "convolution by im2col": (
        lambda: Functional(
            lambda x, a: a(F.unfold(x, 3, padding=1).transpose(1, 2)).transpose(1, 2).unflatten(2, (10, 10)),
            nn.Linear(27, 2),
        ),
        10,
    ),
    "resize down": (
        lambda: Functional(lambda x, a: a(F.interpolate(x, size=(7, 5), mode="bilinear")), conv(3, 2, 3)),
        (14, 15),
    ),
    "resize, aligned corners": (
        lambda: Functional(
            lambda x, a: a(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)),
            conv(3, 2, 3),
        ),
        9,
    ),
    "resize, antialiased": (
        lambda: Functional(
            lambda x, a: a(F.interpolate(x, size=(8, 5), mode="bilinear", antialias=True)), conv(3, 2, 1)
        ),
        24,
    ),
    "resize by 1.5": (
        lambda: Functional(lambda x, a: a(F.interpolate(x, scale_factor=1.5)), conv(3, 2, 3)),
        10,
    ),
    "cumulative sum": (lambda: Functional(lambda x, a: a(x).cumsum(2), conv(3, 2, 3, padding=1)), 8),
    "non-local": (lambda: Functional(non_local, conv(3, 2, 3, stride=2, padding=1)), 12),
    "fused attention": (lambda: Functional(attend, conv(3, 2, 3, stride=2, padding=1)), 12),
    "multi-head attention": (
        lambda: Functional(attend, conv(3, 2, 3, stride=2), nn.MultiheadAttention(2, 1, batch_first=True)),
        12,
    ),
    "transformer layer": (
        lambda: Functional(
            attend, conv(3, 2, 3, stride=2), nn.TransformerEncoderLayer(2, 1, 4, batch_first=True)
        ),
        12,
    ),
    "activations": (
        lambda: nn.Sequential(
            conv(3, 4, 3, padding=1),
            nn.Hardswish(inplace=True),
            nn.PReLU(),
            nn.LeakyReLU(inplace=True),
            nn.Hardtanh(inplace=True),
            nn.Softplus(),
            nn.GLU(1),
            nn.Softmax(1),
            nn.SiLU(inplace=True),
            nn.Dropout(),
            nn.LocalResponseNorm(2),
            nn.LPPool2d(2, 2),
        ),
        8,
    ),
    "more padding than image": (
        lambda: nn.Sequential(
            *(conv(3, 3, 3, stride=2, padding=1) for _ in range(4)), conv(3, 3, 3, padding=1)
        ),
        (16, 33),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_operators_against_the_probe(name: str) -> None:
    build, size = SMALL[name]
    torch.manual_seed(0)
    assert_equals_probe(build().double(), None, size)


# Sizes are as small as five halvings allow, so that borders are everywhere.
NETWORKS = [
    ("resnet18", "layer2", (48, 32), {}),
    ("squeezenet1_1", "features", 50, {}),
    ("mobilenet_v2", "features", (32, 40), {}),
    pytest.param("vgg16", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param("mobilenet_v2", "features", 96, {}, marks=pytest.mark.slow),
    pytest.param("mnasnet0_5", "layers", 64, {}, marks=pytest.mark.slow),
    pytest.param("shufflenet_v2_x0_5", "conv5", 64, {}, marks=pytest.mark.slow),
    pytest.param("resnet18", "layer4", (64, 96), {}, marks=pytest.mark.slow),
    pytest.param(
        "resnet50",
        "layer3",
        64,
        {"replace_stride_with_dilation": [False, True, True]},
        marks=pytest.mark.slow,
    ),
    pytest.param("densenet121", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param(
        "googlenet", "inception5b", 96, {"aux_logits": False, "init_weights": False}, marks=pytest.mark.slow
    ),
    pytest.param(
        "inception_v3", "Mixed_6a", 107, {"aux_logits": False, "init_weights": False}, marks=pytest.mark.slow
    ),
    pytest.param("efficientnet_b0", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param("efficientnet_b0", "features.1.0.block.0", 64, {}, marks=pytest.mark.slow),
    pytest.param("convnext_tiny", "features.3", 64, {}, marks=pytest.mark.slow),
    pytest.param("convnext_tiny", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param("regnet_x_400mf", "trunk_output", 64, {}, marks=pytest.mark.slow),
    pytest.param("regnet_y_400mf", "trunk_output", 64, {}, marks=pytest.mark.slow),
    pytest.param("alexnet", "features", 100, {}, marks=pytest.mark.slow),
    pytest.param("swin_t", "features.1", 64, {}, marks=pytest.mark.slow),
    pytest.param("swin_t", "features.3", 112, {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "layer", "size", "options"), NETWORKS)
def test_networks_against_the_probe(name: str, layer: str, size: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    assert_equals_probe(getattr(zoo, name)(**options), layer, size, channels_last=name == "swin_t")


class Graph(nn.Module):
    """A random network: each step is drawn, a step that does not fit the map is left out."""

    def __init__(self, steps: list[tuple[Any, ...]]) -> None:
        super().__init__()
        self.steps, self.parts = steps, nn.ModuleList()
        for kind, *values in steps:
            part: nn.Module = nn.Identity()
            if kind == "conv":
                kernel, stride, padding, dilation, groups = values
                part = nn.Conv2d(2, 2, kernel, stride, padding, dilation, groups)
            elif kind == "transposed":
                kernel, stride, padding = values
                part = nn.ConvTranspose2d(2, 2, kernel, stride, min(padding, kernel - 1))
            elif kind in ("max", "average"):
                kernel, stride, padding, ceil = values
                pool = nn.MaxPool2d if kind == "max" else nn.AvgPool2d
                part = pool(kernel, stride, min(padding, kernel // 2), ceil_mode=ceil)
            elif kind == "cat":
                part = nn.Conv2d(4, 2, 1)
            self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        x = kept = x[:, :2]
        for (kind, *values), part in zip(self.steps, self.parts, strict=True):
            height, width = x.shape[-2:]
            if kind == "conv":
                kernel, _, padding, dilation, _ = values
                if min(height, width) + 2 * padding > dilation * (kernel - 1):
                    x = part(x)
            elif kind == "transposed":
                x = part(x) if max(height, width) < 40 and min(height, width) > 3 else x
            elif kind in ("max", "average"):
                x = part(x) if min(height, width) >= values[0] else x
            elif kind == "pad":
                x = F.pad(x, values)
            elif kind == "slice":
                x = x[:, :, values[0] :: values[1], values[2] :] if min(height, width) > 4 else x
            elif kind == "keep":
                kept = x
            else:
                height, width = min(height, kept.shape[2]), min(width, kept.shape[3])
                pair = x[:, :, :height, :width], kept[:, :, -height:, :width]
                x = pair[0] + pair[1] if kind == "add" else part(torch.cat(pair, 1))
        return x


small = st.integers(0, 2)
STEP = st.one_of(
    st.tuples(
        st.just("conv"),
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(0, 3),
        st.integers(1, 3),
        st.integers(1, 2),
    ),
    st.tuples(st.just("transposed"), st.integers(1, 4), st.integers(1, 3), small),
    st.tuples(st.just("max"), st.integers(1, 3), st.integers(1, 3), small, st.booleans()),
    st.tuples(st.just("average"), st.integers(1, 3), st.integers(1, 3), small, st.booleans()),
    st.tuples(st.just("pad"), small, small, small, small),
    st.tuples(st.just("slice"), small, st.integers(1, 2), small),
    st.tuples(st.sampled_from(["keep", "add", "cat"])),
)


@given(steps=st.lists(STEP, min_size=1, max_size=6), size=st.tuples(st.integers(7, 14), st.integers(7, 14)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_random_networks_against_the_probe(steps: list[tuple[Any, ...]], size: tuple[int, int]) -> None:
    assert_equals_probe(Graph(steps).double(), None, size)


@given(
    windows=st.lists(
        st.tuples(
            st.sampled_from(["conv", "max"]),
            st.integers(1, 4),
            st.integers(1, 2),
            st.integers(0, 2),
            st.integers(1, 2),
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=25)
def test_unclipped_boxes_are_those_of_a_larger_image(windows: list[tuple[str, int, int, int, int]]) -> None:
    steps = [
        ("conv", k, s, p, d, 1) if kind == "conv" else ("max", k, s, p, False) for kind, k, s, p, d in windows
    ]
    model = Graph(steps).double()
    rf = theoretical_receptive_field(model, input_size=(16, 20))
    probe = nan_probe(model, input_size=64, batch_size=64)
    # Only where every step ran in the small image as well is it the same network.
    assume(theoretical_receptive_field(model, input_size=64).size == rf.size)
    y0, x0, y1, x1 = probe.bounds("center")
    assume(min(y0, x0) > 0 and max(y1, x1) < 63)
    assert rf.size == (y1 - y0 + 1, x1 - x0 + 1)
    assert rf.stride == probe.stride


# -- invariance --


def test_same_answer_with_and_without_data_and_in_either_mode() -> None:
    real, empty = zoo.resnet18().train(), on_meta(zoo.resnet18)
    assert receptive_fields(real, 64) == receptive_fields(empty, 64)


def test_layer_by_module_or_name_and_size_by_one_number() -> None:
    model = on_meta(zoo.resnet18)
    by_name = theoretical_receptive_field(model, "layer3", (64, 64))
    assert by_name == theoretical_receptive_field(model, model.layer3, 64)
    assert by_name.layer == "layer3"


def test_a_layer_that_runs_twice_counts_as_of_its_last_run() -> None:
    model = nn.Sequential(layer := nn.Conv2d(3, 3, 3), layer)
    assert theoretical_receptive_field(model, layer, 12).size == (5, 5)


def test_other_numbers_of_channels() -> None:
    assert theoretical_receptive_field(nn.Conv2d(1, 1, 5), input_size=9, in_channels=1).size == (5, 5)


# -- what is not understood --


@torch.library.custom_op("erfattr_tests::shift_down", mutates_args=())
def shift_down(x: Tensor) -> Tensor:
    return x.roll(2, 2).clone()


@shift_down.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_unknown_operator_falls_back_to_the_probe_and_says_so() -> None:
    model = Functional(lambda x, a, b: b(shift_down(a(x))), conv(3, 2, 3, padding=1), conv(2, 2, 1))
    rf = theoretical_receptive_field(model, input_size=12)
    assert (rf.method, rf.unknown_operators) == ("nan probe", ("erfattr_tests::shift_down",))
    assert rf.touched((6, 6)) == ((3, 4, 5), (5, 6, 7))
    assert "clipped" in rf.note
    fields = receptive_fields(model, 12)
    assert (fields["parts.0"].method, fields["parts.1"].method) == ("operators", "nan probe")
    assert fields["parts.0"].size == (3, 3)
    assert list(receptive_fields(model, 12, probe=False)) == ["parts.0"]


def test_unknown_operator_without_data_gives_an_upper_bound() -> None:
    model = on_meta(lambda: Functional(lambda x, a: shift_down(a(x)), conv(3, 2, 3, padding=1)))
    rf = theoretical_receptive_field(model, input_size=12)
    assert (rf.status, rf.method) == ("upper bound", "operators")
    assert rf.unknown_operators == ("erfattr_tests::shift_down",)
    assert rf.bounds((3, 3)) == (0, 0, 11, 11)
    assert "not understood" in rf.note


def test_forward_that_looks_at_values_falls_back_to_the_probe() -> None:
    model = Functional(lambda x, a: a(x) if float(x.nan_to_num().sum()) > 0 else x, conv(3, 2, 3, padding=1))
    rf = theoretical_receptive_field(model, input_size=8)
    assert (rf.method, rf.size, rf.status, rf.stride) == ("nan probe", (3, 3), "exact", (1, 1))
    assert rf.unknown_operators == ("aten._local_scalar_dense.default",)
    assert rf.touched((0, 7)) == ((0, 1), (6, 7))
    assert receptive_fields(model, 8, probe=False) == {}


def test_forward_that_looks_at_values_without_data() -> None:
    model = on_meta(lambda: Functional(lambda x, a: a(x) if float(x.sum()) > 0 else x, conv(3, 2, 3)))
    with pytest.raises(
        ValueError, match=r"model: the forward pass of the Functional stopped at .*meta device"
    ):
        theoretical_receptive_field(model, input_size=8)


def test_probe_tells_whole_image_holes_and_too_small_images() -> None:
    whole = nan_probe(Functional(lambda x: x - x.mean((2, 3), keepdim=True)), input_size=6)
    assert (whole.status, whole.size) == ("whole image", (6, 6))
    holes = nan_probe(nn.Conv2d(3, 1, 3, dilation=2), input_size=12)
    assert (holes.status, holes.size, holes.touched((2, 2))[0]) == ("upper bound", (5, 5), (2, 4, 6))
    large = nan_probe(nn.Conv2d(3, 1, 9, padding=4), input_size=7)
    assert large.status == "position-dependent"


# -- bad input --


def test_unknown_layer() -> None:
    with pytest.raises(ValueError, match=r"has no layer 'layer5'; nearest: .*layer4"):
        theoretical_receptive_field(on_meta(zoo.resnet18), "layer5")


def test_layer_of_another_model() -> None:
    with pytest.raises(ValueError, match="layer: expected a submodule"):
        theoretical_receptive_field(on_meta(zoo.resnet18), nn.Conv2d(3, 3, 1))


def test_layer_of_another_type() -> None:
    with pytest.raises(TypeError, match="layer: expected a module or its dotted name, got 4"):
        theoretical_receptive_field(on_meta(zoo.resnet18), 4)  # type: ignore[arg-type]


def test_layer_that_never_runs() -> None:
    model = Functional(lambda x, a, b: a(x), conv(3, 2, 1), conv(3, 2, 3))
    for measure in (theoretical_receptive_field, nan_probe):
        with pytest.raises(ValueError, match=r"'parts.1' never ran in the forward pass of the Functional"):
            measure(model, "parts.1", 8)
    assert list(receptive_fields(model, 8)) == ["parts.0", ""]


def test_output_without_a_map() -> None:
    model = on_meta(
        zoo.VisionTransformer, image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    with pytest.raises(
        ValueError, match=r"'encoder' to give a spatial map \(N, C, H, W\), got shape \(1, 17, 8\)"
    ):
        theoretical_receptive_field(model, "encoder", 32)
    with pytest.raises(ValueError, match="an output that is not one tensor"):
        theoretical_receptive_field(Functional(lambda x: (x, x)), input_size=8)
    with pytest.raises(ValueError, match="does not depend on the image"):
        theoretical_receptive_field(Functional(lambda x, a: a.weight * 2, conv(3, 2, 3)), input_size=8)
    with pytest.raises(ValueError, match=r"got shape \(1, 17, 8\)"):
        nan_probe(model.to_empty(device="cpu").apply(_fill), "encoder", 32)


def _fill(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.constant_(parameter, 0.1)


@pytest.mark.parametrize("size", [0, (0, 5), (5,), (5, 5, 5), "224", (5.0, 5), (True, 5), None])
@pytest.mark.parametrize("measure", [theoretical_receptive_field, nan_probe])
def test_bad_input_size(measure: Any, size: Any) -> None:
    with pytest.raises(ValueError, match=r"input_size: expected \(H, W\), two positive integers, got"):
        measure(nn.Conv2d(3, 1, 1), None, size)
    with pytest.raises(ValueError, match="input_size: expected"):
        receptive_fields(nn.Conv2d(3, 1, 1), size)


def test_model_that_is_no_module() -> None:
    for measure in (theoretical_receptive_field, receptive_fields, nan_probe):
        with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got"):
            measure(lambda x: x)  # type: ignore[arg-type]


def test_bad_numbers_of_channels_and_images() -> None:
    with pytest.raises(ValueError, match="in_channels: expected a positive integer, got 0"):
        theoretical_receptive_field(nn.Conv2d(3, 1, 1), in_channels=0)
    with pytest.raises(TypeError, match="batch_size: expected a positive integer"):
        nan_probe(nn.Conv2d(3, 1, 1), batch_size=1.5)  # type: ignore[arg-type]


def test_unit_outside_the_map() -> None:
    rf = theoretical_receptive_field(nn.Conv2d(3, 1, 3), input_size=(8, 9))
    for ask in (rf.center, rf.bounds, rf.touched):
        with pytest.raises(ValueError, match=r"unit: expected a position in the 6 x 7 map, got \(6, 0\)"):
            ask((6, 0))
        with pytest.raises(ValueError, match=r"got \(0, -1\)"):
            ask((0, -1))
        with pytest.raises(TypeError, match=r'unit: expected \(row, column\) or "center", got 3'):
            ask(3)  # type: ignore[arg-type]


def test_image_too_small_for_the_network_raises_what_the_network_raises() -> None:
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        theoretical_receptive_field(nn.Conv2d(3, 1, 9), input_size=5)


def test_probe_of_a_model_that_gives_nan() -> None:
    with pytest.raises(ValueError, match="is NaN for an image without NaN"):
        nan_probe(Functional(lambda x: x * float("nan")), input_size=4)


def test_probe_of_a_model_without_data() -> None:
    with pytest.raises(ValueError, match="model: expected a model with data, got one on the meta device"):
        nan_probe(on_meta(lambda: nn.Conv2d(3, 1, 1)), input_size=4)


def test_probe_of_a_model_that_joins_images() -> None:
    with pytest.raises(ValueError, match="batch_size: 4 images gave 1 outputs at ''; use batch_size=1"):
        nan_probe(Functional(lambda x: x.sum(0, keepdim=True)), input_size=4, batch_size=4)


# -- the caller's model --


class Caching(nn.Module):
    """Keeps tensors of the pass, counts calls in a buffer, draws random numbers, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("calls", torch.zeros(1))
        self.cache: Tensor | None = None
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.cache = self.norm(self.conv(x)) + torch.rand(1)
        self.calls += 1
        if self.fail:
            raise RuntimeError("broken on purpose")
        return self.cache


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("measure", [theoretical_receptive_field, nan_probe])
def test_model_comes_back_as_it_was(measure: Any, fail: bool) -> None:
    model = Caching().train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.fail = fail
    before = {name: value.clone() for name, value in model.state_dict().items()}
    storages = [parameter.data_ptr() for parameter in model.parameters()]
    random = torch.get_rng_state()
    if fail:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            measure(model, "conv" if measure is nan_probe else None, 6)
    else:
        assert measure(model, None, 6).size == (3, 3)
    assert (model.training, model.norm.training, model.conv.training) == (True, False, True)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
    assert [parameter.data_ptr() for parameter in model.parameters()] == storages
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.cache is None
    assert list(model.state_dict()) == list(before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_stays_active() -> None:
    theoretical_receptive_field(nn.Conv2d(3, 1, 1), input_size=4)
    assert not any(
        isinstance(mode, Tracing) for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    )
    assert float(nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2)).isnan().sum()) == 0.0


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (nn.Sequential(nn.Conv2d(3, 1, 3, stride=(2, 1)), nn.MaxPool2d(3, stride=2)), 32, (4, 2)),
        (nn.Sequential(nn.Conv2d(3, 1, 4, stride=4), nn.AdaptiveAvgPool2d(1)), 32, (4, 4)),
        (nn.AdaptiveAvgPool2d(1), 32, None),  # no positions
        (nn.Sequential(nn.Conv2d(3, 1, 3, stride=3), nn.Upsample(scale_factor=2)), 9, None),  # 3 / 2
    ],
)
def test_total_stride_is_that_of_the_last_layer_with_positions(
    model: nn.Module, size: int, expected: tuple[int, int] | None
) -> None:
    assert total_stride(receptive_fields(model, size, probe=False)) == expected
