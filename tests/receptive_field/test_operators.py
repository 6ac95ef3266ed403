"""Rules of operators: small networks, each operator in one of them, against the NaN probe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from erfattr.receptive_field.nan_probe import nan_probe
from erfattr.receptive_field.trace import theoretical_receptive_field
from tests.receptive_field.conftest import Functional, assert_equals_probe, conv, gate


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


def fold_back(x: Tensor, first: nn.Module, *, kernel: Any, **how: int) -> Tensor:
    y = first(x)
    return F.fold(2 * F.unfold(y, kernel, **how), y.shape[2:], kernel, **how)


def recur(x: Tensor, first: nn.Module, recurrent: nn.RNNBase) -> Tensor:
    """Along each row, as Sequencer does."""
    y = first(x)
    n, c, h, w = y.shape
    rows = y.permute(0, 2, 3, 1).reshape(n * h, w, c)
    steps = recurrent(rows if recurrent.batch_first else rows.transpose(0, 1))[0]
    steps = steps if recurrent.batch_first else steps.transpose(0, 1)
    return y.mean(1, keepdim=True) + steps.reshape(n, h, w, -1).permute(0, 3, 1, 2)


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
    **{
        f"fold, kernel {kernel}, {how}": (
            lambda kernel=kernel, how=how: Functional(
                partial(fold_back, kernel=kernel, **how), conv(3, 2, 3, padding=1)
            ),
            10,
        )
        for kernel, how in (
            (2, {"stride": 2}),
            (3, {"padding": 1}),
            (3, {"stride": 2, "padding": 1}),
            ((3, 2), {"stride": 3, "dilation": 2}),
        )
    },
    **{
        f"recurrent, {kind.__name__} {how}": (
            lambda kind=kind, how=how: Functional(recur, nn.Conv2d(3, 4, 3, 2, 1), kind(4, 5, **how)),
            10,
        )
        for kind, how in (
            (nn.LSTM, {"bidirectional": True, "batch_first": True}),
            (nn.LSTM, {"num_layers": 2}),
            (nn.GRU, {"batch_first": True}),
            (nn.RNN, {"bidirectional": True}),
        )
    },
    "convolution by im2col": (
        lambda: Functional(
            lambda x, a: a(F.unfold(x, 3, padding=1).transpose(1, 2)).transpose(1, 2).unflatten(2, (10, 10)),
            nn.Linear(27, 2),
        ),
        10,
    ),
    "maximum along an axis": (
        lambda: Functional(lambda x, a: a(x) + a(x).max(2, keepdim=True).values, conv(3, 2, 3, padding=1)),
        (10, 8),
    ),
    "minimum of channels": (
        lambda: Functional(
            lambda x, a, b: b(a(x).min(1)[0].unsqueeze(1)), conv(3, 2, 3, padding=1), conv(1, 2, 3)
        ),
        (10, 8),
    ),
    "maximum of two": (
        lambda: Functional(lambda x, a: torch.max(a(x), x.roll(1, 2)[:, :2]), conv(3, 2, 3, padding=1)),
        (10, 8),
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
            elif kind in ("cat", "unshuffle"):
                part = nn.Conv2d(4 if kind == "cat" else 8, 2, 1)
            elif kind == "patches":
                part = nn.ModuleList([nn.Conv2d(2, 2, 2, 2), nn.Linear(2, 2)])
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
            elif kind == "resize":
                mode, factor = values
                x = F.interpolate(x, scale_factor=float(factor), mode=mode) if height * width < 200 else x
            elif kind == "roll":
                x = x.roll(values, (2, 3))
            elif kind == "attention":
                tokens = x.flatten(2).transpose(1, 2)[:, None]
                seen = F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0].transpose(1, 2)
                x = x + seen.reshape(x.shape) if height * width < 200 else x
            elif kind in ("unshuffle", "windows", "patches"):
                x = self.in_pairs(x, kind, part) if height % 2 == 0 and width % 2 == 0 else x
            else:
                height, width = min(height, kept.shape[2]), min(width, kept.shape[3])
                pair = [x[:, :, :height, :width], kept[:, :, -height:, :width]][:: -1 if values[0] else 1]
                x = pair[0] + pair[1] if kind == "add" else part(torch.cat(pair, 1))
        return x

    @staticmethod
    def in_pairs(x: Tensor, kind: str, part: Any) -> Tensor:
        """Steps that take rows and columns two by two."""
        if kind == "unshuffle":
            return part(F.pixel_unshuffle(x, 2))
        if kind == "windows":  # each position and the sum of its window, as window attention mixes them
            n, c, h, w = x.shape
            windows = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
            windows = windows + windows.sum(1, keepdim=True)
            return windows.view(n, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)
        patches = part[0](x)
        tokens = part[1](patches.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(patches.shape)


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
    st.tuples(st.sampled_from(["keep", "unshuffle", "windows", "patches", "attention"])),
    st.tuples(st.sampled_from(["add", "cat"]), st.booleans()),
    st.tuples(st.just("resize"), st.sampled_from(["nearest", "bilinear"]), st.integers(2, 3)),
    st.tuples(st.just("roll"), small, small),
)


@given(steps=st.lists(STEP, min_size=1, max_size=6), size=st.tuples(st.integers(7, 14), st.integers(7, 14)))
@example([("conv", 1, 3, 0, 1, 1), ("max", 1, 3, 0, False), ("cat", False), ("conv", 1, 1, 1, 1, 1)], (7, 7))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_random_networks_against_the_probe(steps: list[tuple[Any, ...]], size: tuple[int, int]) -> None:
    model = Graph(steps).double()
    assert_equals_probe(model, None, size)
    assert_holds_gradients(model, size)


def assert_holds_gradients(model: nn.Module, size: tuple[int, int]) -> None:
    """No unit has a gradient at a pixel outside of its field, and its field lies at its layout's place."""
    field = theoretical_receptive_field(model, input_size=size)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, *size, generator=generator, dtype=torch.float64).requires_grad_(True)
    output = model(image)
    assert output.shape[2:] == field.output_size
    for unit in {
        (0, 0),
        (field.output_size[0] - 1, 0),
        (field.output_size[0] // 2, field.output_size[1] // 2),
    }:
        (gradient,) = torch.autograd.grad(output[0, :, unit[0], unit[1]].sum(), image, retain_graph=True)
        rows, columns = field.touched(unit)
        seen = gradient[0].abs().sum(0)
        assert set(seen.sum(1).nonzero().flatten().tolist()) <= set(rows)
        assert set(seen.sum(0).nonzero().flatten().tolist()) <= set(columns)


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


class TopDown(nn.Module):
    """Three strided convolutions and a way back up that joins each map, as YOLO's and U-Net's do."""

    def __init__(self, upsampled_first: bool) -> None:
        super().__init__()
        self.upsampled_first = upsampled_first
        self.down = nn.ModuleList(nn.Conv2d(3 if i == 0 else 2, 2, 3, 2, 1) for i in range(3))
        self.up = nn.ModuleList(nn.Conv2d(4, 2, 3, padding=1) for _ in range(2))

    def forward(self, value: Tensor) -> Tensor:
        maps = []
        for convolution in self.down:
            value = convolution(value)
            maps.append(value)
        for convolution, skip in zip(self.up, maps[1::-1], strict=True):
            parts = [F.interpolate(value, scale_factor=2.0), skip]
            value = convolution(torch.cat(parts if self.upsampled_first else parts[::-1], 1))
        return value


@pytest.mark.parametrize("size", [48, 64, 96])
def test_order_of_a_join_behind_two_upsamplings_does_not_matter(size: int) -> None:
    fields = [theoretical_receptive_field(TopDown(first), input_size=size) for first in (True, False)]
    for rf in fields:
        # Through the deepest map unit 0 reads pixels -13 to 7.
        assert (rf.stride, rf.bounds((0, 0)), rf.center((0, 0))) == ((2, 2), (-13, -13, 7, 7), (-3.0, -3.0))
    probe = nan_probe(TopDown(True), input_size=size, batch_size=16)
    for unit in ((0, 0), (3, 6), (size // 4, size // 4)):
        assert fields[0].touched(unit) == fields[1].touched(unit) == probe.touched(unit)
