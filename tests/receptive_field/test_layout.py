"""Layouts of outputs: known ones, and random networks against where their units really lie."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from erfattr.receptive_field._place_tracking import PlaceTracker, PlaceTracking
from erfattr.receptive_field._places import of_images
from erfattr.receptive_field.layout import Layout, layout_of
from tests.receptive_field.conftest import Functional, conv

Function = Callable[..., Tensor]
SHAPE = (2, 4, 6, 8)


def follow(function: Function, images: Tensor) -> tuple[Tensor, Layout | None]:
    """Return what ``function`` makes of images, and its layout."""
    tracker = PlaceTracker()
    tracker[images] = of_images(images.shape)
    with torch.no_grad(), PlaceTracking(tracker):
        output = function(images)
    assert tracker.failures == []
    return output, layout_of(tracker[output], output.shape)


def found_in(function: Function, shape: tuple[int, ...] = SHAPE) -> Layout:
    layout = follow(function, torch.rand(shape))[1]
    assert layout is not None
    return layout


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def with_class_token(x: Tensor, count: int = 1) -> Tensor:
    return torch.cat([torch.zeros(1, count, x.shape[2], dtype=x.dtype).expand(len(x), -1, -1), x], 1)


def to_map(x: Tensor, height: int, width: int) -> Tensor:
    return x.transpose(1, 2).reshape(len(x), -1, height, width)


def windows(x: Tensor, size: int) -> Tensor:
    """Cut a map, (N, H, W, C), into windows, (N windows, size * size, C)."""
    n, h, w, c = x.shape
    x = x.view(n, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


def from_windows(x: Tensor, size: int, height: int, width: int) -> Tensor:
    x = x.view(-1, height // size, width // size, size, size, x.shape[2])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(len(x), height, width, -1)


def grids(x: Tensor) -> Tensor:
    """Cut a map, (N, H, W, C), into grids of four far pixels, (N grids, 4, C)."""
    x = x.unflatten(2, (2, -1)).unflatten(1, (2, -1))
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, 4, x.shape[5])


def from_grids(x: Tensor, height: int, width: int) -> Tensor:
    x = x.view(-1, height // 2, width // 2, 2, 2, x.shape[2]).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(len(x), height, width, -1)


def merged_by_slices(x: Tensor) -> Tensor:
    return torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], 3)


def merged_by_view(x: Tensor) -> Tensor:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)


def attend(x: Tensor, heads: int = 2) -> Tensor:
    """Attention of tokens, (N, L, C), written out."""
    n, length, c = x.shape
    q, k, v = (
        torch.cat([x, x, x], 2).reshape(n, length, 3, heads, c // heads).permute(2, 0, 3, 1, 4).unbind(0)
    )
    return ((q @ k.transpose(2, 3) / 2).softmax(3) @ v).transpose(1, 2).reshape(n, length, c)


def attend_fused(x: Tensor, heads: int = 2) -> Tensor:
    q = x.unflatten(2, (heads, -1)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


SHUFFLED = torch.randperm(48, generator=torch.Generator().manual_seed(3))


def through_windows(x: Tensor, size: int = 2, shift: int = 0) -> Tensor:
    """Cut a map, (N, H, W, C), into windows, rolled by ``shift``, and put it together again."""
    _, height, width, _ = x.shape
    x = from_windows(windows(x.roll((-shift, -shift), (1, 2)), size), size, height, width)
    return x.roll((shift, shift), (1, 2))


def padded_through_windows(x: Tensor, size: int = 4, shift: int = 1) -> Tensor:
    """The same with a map that is padded to whole windows, and cropped."""
    _, height, width, _ = x.shape
    x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    return through_windows(x, size, shift)[:, :height, :width].contiguous()


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


# What only moves elements: the layout's order of dims, its prefix, and the map that `to_spatial` gives back.
MOVED: dict[str, tuple[Function, tuple[int, int, int, int], int]] = {
    "map": (lambda x: x.clone(), (0, 1, 2, 3), 0),
    "(N, H, W, C)": (nhwc, (0, 3, 1, 2), 0),
    "(N, H, W, C) and back": (lambda x: nhwc(x).permute(0, 3, 1, 2), (0, 1, 2, 3), 0),
    "(N, C, W, H)": (lambda x: x.transpose(2, 3), (0, 1, 3, 2), 0),
    "(C, H, W, N)": (lambda x: x.permute(1, 2, 3, 0), (3, 0, 1, 2), 0),
    "channels last": (lambda x: x.contiguous(memory_format=torch.channels_last), (0, 1, 2, 3), 0),
    "tokens": (tokens, (0, 2, 1, 1), 0),
    "tokens from (N, H, W, C)": (lambda x: nhwc(x).flatten(1, 2), (0, 2, 1, 1), 0),
    "(N, C, L)": (lambda x: x.flatten(2), (0, 1, 2, 2), 0),
    "(L, N, C)": (lambda x: x.flatten(2).permute(2, 0, 1), (1, 2, 0, 0), 0),
    "column by column": (lambda x: x.transpose(2, 3).flatten(2), (0, 1, 2, 2), 0),
    "tokens and back": (lambda x: to_map(tokens(x), *x.shape[2:]), (0, 1, 2, 3), 0),
    "tokens, heads and back": (
        lambda x: (
            tokens(x)
            .unflatten(2, (2, 2))
            .transpose(1, 2)
            .flatten(0, 1)
            .view(len(x), 2, -1, 2)
            .transpose(1, 2)
            .flatten(2)
        ),
        (0, 2, 1, 1),
        0,
    ),
    "class token": (lambda x: with_class_token(tokens(x)), (0, 2, 1, 1), 1),
    "class token and a register": (lambda x: with_class_token(with_class_token(tokens(x))), (0, 2, 1, 1), 2),
    "class token that has read the image": (
        lambda x: torch.cat([tokens(x).mean(1, keepdim=True), tokens(x)], 1),
        (0, 2, 1, 1),
        1,
    ),
    "class token, through two dims": (
        lambda x: with_class_token(tokens(x)).flatten(0, 1).view(len(x), -1, x.shape[1]),
        (0, 2, 1, 1),
        1,
    ),
    "class token, heads": (
        lambda x: (
            with_class_token(tokens(x))
            .unflatten(2, (2, 2))
            .permute(0, 2, 1, 3)
            .flatten(0, 1)
            .unflatten(0, (-1, 2))
            .transpose(1, 2)
            .flatten(2)
        ),
        (0, 2, 1, 1),
        1,
    ),
    "class token, sequence first": (lambda x: with_class_token(tokens(x)).transpose(0, 1), (1, 2, 0, 0), 1),
    "class token last": (lambda x: torch.cat([tokens(x), torch.zeros(len(x), 1, 4)], 1), (0, 2, 1, 1), 0),
    "two tokens, dropped": (lambda x: with_class_token(tokens(x), 2)[:, 2:], (0, 2, 1, 1), 0),
    "two tokens, one dropped": (lambda x: with_class_token(tokens(x), 2)[:, 1:], (0, 2, 1, 1), 1),
    "two tokens, split off, back": (
        lambda x: to_map(with_class_token(tokens(x), 2).split([2, x[0, 0].numel()], 1)[1], *x.shape[2:]),
        (0, 1, 2, 3),
        0,
    ),
    "windows and back": (lambda x: through_windows(nhwc(x)), (0, 3, 1, 2), 0),
    "shifted windows and back": (lambda x: through_windows(nhwc(x), 2, 1), (0, 3, 1, 2), 0),
    "shifted windows, padded": (lambda x: padded_through_windows(nhwc(x)), (0, 3, 1, 2), 0),
    "shifted windows twice": (
        lambda x: through_windows(through_windows(nhwc(x), 2, 1), 2, 1),
        (0, 3, 1, 2),
        0,
    ),
    "grids and back": (lambda x: from_grids(grids(nhwc(x)), *x.shape[2:]), (0, 3, 1, 2), 0),
    "padded and cropped": (lambda x: F.pad(nhwc(x), (0, 0, 2, 1, 1, 0))[:, 1:, 2:-1], (0, 3, 1, 2), 0),
    "F.unfold and F.fold": (
        lambda x: F.fold(F.unfold(x, 2, stride=2), x.shape[2:], 2, stride=2),
        (0, 1, 2, 3),
        0,
    ),
    "unshuffled and shuffled": (lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), (0, 1, 2, 3), 0),
    "taken apart and stacked": (lambda x: torch.stack(list(x.unbind(1)), 1), (0, 1, 2, 3), 0),
    "image by image": (lambda x: torch.cat([each[None] for each in x.unbind(0)]), (0, 1, 2, 3), 0),
}
SHAPES = [(1, 4, 6, 8), (3, 4, 6, 8), (2, 4, 8, 2)]


def assert_comes_back(name: str, shape: tuple[int, ...]) -> None:
    function, order, prefix = MOVED[name]
    images = torch.rand(shape)
    output, layout = follow(function, images)
    assert layout is not None
    assert (layout.order, layout.grid, layout.prefix) == (order, shape[2:], prefix)
    assert layout.centers == ((0.0, 1.0), (0.0, 1.0))
    assert layout.fits(output.shape)
    assert torch.equal(layout.to_spatial(output), images)


@pytest.mark.parametrize("shape", [(1, 4, 6, 8), (3, 4, 6, 8), (2, 4, 8, 4)], ids=str)
@pytest.mark.parametrize("name", MOVED)
def test_the_map_comes_back_from_what_moves_it(name: str, shape: tuple[int, ...]) -> None:
    assert_comes_back(name, shape)


@pytest.mark.parametrize("shape", [(2, 4, 1, 6), (2, 4, 6, 1), (1, 4, 1, 6), (1, 4, 6, 1)], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        *(
            "map",
            "(N, H, W, C)",
            "(N, H, W, C) and back",
            "tokens",
            "(N, C, L)",
            "(L, N, C)",
            "tokens and back",
        ),
        *("tokens, heads and back", "class token", "two tokens, split off, back", "taken apart and stacked"),
    ],
)
def test_maps_of_one_row_or_column(name: str, shape: tuple[int, ...]) -> None:
    assert_comes_back(name, shape)


# Tokens in an order of their own.
REORDERED: dict[str, Function] = {
    "by a constant index": lambda x: tokens(x).index_select(1, SHUFFLED),
    "by a constant index, behind a class token": lambda x: with_class_token(tokens(x)[:, SHUFFLED]),
    "by two": lambda x: tokens(x)[:, SHUFFLED][:, SHUFFLED],
    "column by column": lambda x: tokens(x.transpose(2, 3)),
    "mirrored": lambda x: tokens(x.flip(3)),
    "turned upside down": lambda x: tokens(x).flip(1),
    "rolled as tokens": lambda x: tokens(x).roll(5, 1),
    "window by window": lambda x: windows(nhwc(x), 2).reshape(len(x), -1, x.shape[1]),
    "right half first": lambda x: torch.cat([tokens(x[..., 4:]), tokens(x[..., :4])], 1),
    "another between": lambda x: torch.cat([tokens(x)[:, :9], torch.ones(len(x), 1, 4), tokens(x)[:, 9:]], 1),
    "sequence first": lambda x: x.flatten(2).permute(2, 0, 1)[SHUFFLED],
}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", REORDERED)
def test_tokens_in_another_order_come_back_row_by_row(name: str, count: int) -> None:
    images = torch.rand(count, 4, 6, 8)
    output, layout = follow(REORDERED[name], images)
    assert layout is not None
    assert layout.tokens is not None
    assert layout.prefix == 0
    assert layout.grid == (6, 8)
    assert layout.centers == ((0.0, 1.0), (0.0, 1.0))
    assert torch.equal(layout.to_spatial(output), images)


def attend_by_einsum(x: Tensor) -> Tensor:
    weights = torch.einsum("nic,njc->nij", x, x).softmax(2)
    return torch.einsum("nij,njc->nic", weights, x)


def attend_with_bias(x: Tensor) -> Tensor:
    weights = torch.baddbmm(torch.ones(1, 48, 48), x, x.transpose(1, 2)).softmax(2)
    return weights @ x


def attend_from_the_left(x: Tensor) -> Tensor:
    weights = (x @ x.transpose(1, 2)).softmax(2)
    return (x.transpose(1, 2) @ weights.transpose(1, 2)).transpose(1, 2)


def attend_with_channels(x: Tensor) -> Tensor:
    weights = (x.transpose(1, 2) @ x).softmax(2)
    return (weights @ x.transpose(1, 2)).transpose(1, 2)


def attend_with_talking_heads(x: Tensor) -> Tensor:
    heads = x.unflatten(2, (2, 2)).transpose(1, 2)
    weights = F.linear((heads @ heads.transpose(2, 3)).permute(0, 2, 3, 1), torch.rand(2, 2))
    return (weights.permute(0, 3, 1, 2).softmax(3) @ heads).transpose(1, 2).flatten(2)


def attend_by_hand(x: Tensor) -> Tensor:
    weights = (x @ x.transpose(1, 2)).exp()
    return weights / weights.sum(2, keepdim=True) @ x


def gated_by_a_mean(x: Tensor) -> Tensor:
    """Patches of 2 x 2, each pixel gated by the mean over all patches of what lies at its place there."""
    y = to_map(x, 6, 8).unflatten(3, (4, 2)).unflatten(2, (3, 2)).transpose(3, 4).flatten(4).flatten(2, 3)
    y = y.mean(2, keepdim=True).expand_as(y) * y
    y = y.unflatten(2, (3, 4)).unflatten(4, (2, 2)).transpose(3, 4).flatten(4).flatten(2, 3)
    return tokens(y)


def multihead(x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    return nn.MultiheadAttention(4, 2).train()(x, x, x)[0].transpose(0, 1)


# Each makes tokens, (N, 48, 4), from tokens.
MIXING: dict[str, Function] = {
    "attention written out": attend,
    "attention fused": attend_fused,
    "attention by einsum": attend_by_einsum,
    "attention with a bias": attend_with_bias,
    "attention with talking heads": attend_with_talking_heads,
    "attention of channels": attend_with_channels,
    "attention, values from the left": attend_from_the_left,
    "attention, divided by hand": attend_by_hand,
    "attention without softmax": lambda x: x.softmax(2) @ (x.softmax(1).transpose(1, 2) @ x),
    "attention to every third": lambda x: (x @ x[:, ::3].transpose(1, 2)).softmax(2) @ x[:, ::3],
    "attention, keys in another order": lambda x: (x @ x.flip(1).transpose(1, 2)).softmax(2) @ x.flip(1),
    "nn.MultiheadAttention": lambda x: nn.MultiheadAttention(4, 2, batch_first=True).eval()(x, x, x)[0],
    "nn.MultiheadAttention, sequence first": multihead,
    "nn.TransformerEncoderLayer": lambda x: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()(x),
    "nn.TransformerEncoderLayer, training": lambda x: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)(
        x
    ),
    "channels": nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)),
    "neighbours": lambda x: F.conv1d(x.transpose(1, 2), torch.ones(4, 4, 3), padding=1).transpose(1, 2),
    "on the map": lambda x: tokens(conv(4, 4, 3, padding=1)(to_map(x, 6, 8))),
    "gate": gated_by_a_mean,
}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", MIXING)
def test_tokens_stay_where_they_are_whatever_they_read(name: str, count: int, residual: bool) -> None:
    patches, mix = conv(3, 4, 4, stride=4), MIXING[name]

    def forward(x: Tensor) -> Tensor:
        y = tokens(patches(x))
        return y + mix(y) if residual else mix(y)

    layout = found_in(forward, (count, 3, 24, 32))
    assert (layout.order, layout.grid, layout.prefix, layout.tokens) == ((0, 2, 1, 1), (6, 8), 0, None)
    assert layout.centers == ((1.5, 4.0), (1.5, 4.0))


@pytest.mark.parametrize("name", ["nn.MultiheadAttention", "nn.TransformerEncoderLayer"])
def test_modules_of_pytorch_run_in_one_operator(name: str) -> None:
    names = []

    class Names(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    with Names(), torch.no_grad():
        MIXING[name](torch.rand(2, 48, 4))
    assert {"aten::_native_multi_head_attention", "aten::_transformer_encoder_layer_fwd"} & set(names)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: F.linear(x.transpose(1, 2), torch.ones(48, 48)).transpose(1, 2),
        lambda x: F.conv1d(x, torch.ones(48, 48, 1)),
        lambda x: torch.ones(48, 48) @ x,
        lambda x: torch.fft.fft2(x).real,
        lambda x: x.sort(1)[0],
    ],
)
def test_mixed_tokens_have_their_places_from_the_sum(mix: Function) -> None:
    assert follow(lambda x: mix(tokens(x)), torch.rand(SHAPE))[1] is None
    layout = found_in(lambda x: tokens(x) + mix(tokens(x)))
    assert layout == found_in(tokens)


def swin_block(x: Tensor, shift: int) -> Tensor:
    """Attention in windows of 4 of a map, (N, H, W, C), padded to whole windows."""
    _, height, width, channels = x.shape
    y = F.pad(F.layer_norm(x, (channels,)), (0, 0, 0, -width % 4, 0, -height % 4))
    cut = attend(windows(y.roll((-shift, -shift), (1, 2)), 4))
    y = from_windows(cut, 4, *y.shape[1:3]).roll((shift, shift), (1, 2))
    return y[:, :height, :width].contiguous()


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (3, 3, 16, 24), (3, 3, 14, 10), (1, 3, 8, 8)], ids=str)
def test_windows_with_attention_and_merged_patches(shape: tuple[int, ...], shift: int) -> None:
    patches, reduction = conv(3, 4, 2, stride=2), nn.Linear(16, 8)

    def stage(x: Tensor) -> Tensor:
        y = nhwc(patches(x))
        return y + swin_block(y, shift)

    height, width = shape[2:]
    for function in (stage, lambda x: swin_block(nhwc(patches(x)), shift)):
        layout = found_in(function, shape)
        assert layout.order == (0, 3, 1, 2)
        assert layout.grid == (height // 2, width // 2)
        assert layout.centers == ((0.5, 2.0), (0.5, 2.0))
    if (height // 2) % 2 or (width // 2) % 2:
        return
    merged = [
        found_in(lambda x: merged_by_slices(stage(x)), shape),
        found_in(lambda x: reduction(merged_by_slices(stage(x))), shape),
        found_in(lambda x: reduction(F.layer_norm(merged_by_view(stage(x)), (16,))), shape),
    ]
    for layout in merged:
        assert layout.order == (0, 3, 1, 2)
        assert layout.grid == (height // 4, width // 4)
        assert layout.center((0, 0)) == (1.5, 1.5)
        assert layout.steps == (4.0, 4.0)


def attention_weights(x: Tensor) -> Tensor:
    heads = tokens(x).unflatten(2, (2, 2)).transpose(1, 2)
    return (heads @ heads.transpose(2, 3)).softmax(3)


def windows_read_by_the_whole(x: Tensor) -> Tensor:
    cut = windows(nhwc(x), 2)[None]
    whole = tokens(F.adaptive_avg_pool2d(x, 2)).repeat_interleave(12, 0)[None]
    return F.scaled_dot_product_attention(whole, cut, cut)[0]


def read_by_learned_queries(x: Tensor, count: int) -> Tensor:
    return (torch.rand(count, 4) @ x.flatten(2)).softmax(2) @ tokens(x)


def halo_attention(x: Tensor) -> Tensor:
    """Queries in windows of 4, keys and values in wider ones around them, of a map, (N, C, H, W)."""
    n, _, height, width = x.shape
    queries = windows(nhwc(x), 4).unflatten(0, (n, -1))
    around = F.pad(x, (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)
    around = around.permute(0, 2, 3, 4, 5, 1).flatten(3, 4).flatten(1, 2)
    found = F.scaled_dot_product_attention(queries, around, around)
    return from_windows(found.flatten(0, 1), 4, height, width)


@pytest.mark.parametrize("count", [1, 3])
def test_queries_stay_in_their_windows_whatever_those_of_the_keys(count: int) -> None:
    layout = found_in(lambda x: halo_attention(F.avg_pool2d(x, 2)), (count, 4, 16, 24))
    assert (layout.order, layout.grid) == ((0, 3, 1, 2), (8, 12))
    assert layout.centers == ((0.5, 2.0), (0.5, 2.0))


# What is no map, or none any more.
NO_MAP: dict[str, Function] = {
    "windows": lambda x: windows(nhwc(x), 2),
    "windows as maps": lambda x: windows(nhwc(x), 2).unflatten(1, (2, 2)),
    "windows, shifted": lambda x: windows(nhwc(x).roll(1, 1), 2),
    "windows after attention": lambda x: attend(windows(nhwc(x), 2)),
    "windows read by the whole": windows_read_by_the_whole,
    "grids": lambda x: grids(nhwc(x)),
    "stripes": lambda x: nhwc(x).unflatten(2, (4, 2)).transpose(1, 2).flatten(0, 1),
    "windows, class tokens of": lambda x: with_class_token(windows(nhwc(x), 2))[:, :1],
    "attention weights": lambda x: tokens(x) @ x.flatten(2),
    "attention weights of heads": attention_weights,
    "heads": lambda x: tokens(x).unflatten(2, (2, 2)).transpose(1, 2),
    "heads as images": lambda x: tokens(x).unflatten(2, (2, 2)).transpose(1, 2).flatten(0, 1),
    "channels as images": lambda x: x.reshape(-1, 1, *x.shape[2:]),
    "patches with their pixels as channels": lambda x: merged_by_view(nhwc(x)),
    "a row": lambda x: x[:, :, 2],
    "mean of rows": lambda x: x.mean(2),
    "class token": lambda x: with_class_token(tokens(x))[:, 0],
    "class token in its dim": lambda x: with_class_token(tokens(x))[:, :1],
    "pooled": lambda x: F.adaptive_avg_pool2d(x, 1),
    "pooled and spread again": lambda x: F.adaptive_avg_pool2d(x, 1).expand(-1, -1, 6, 8),
    "flat": lambda x: x.flatten(1),
    "some tokens": lambda x: tokens(x)[:, :20],
    "most tokens": lambda x: torch.cat([tokens(x)[:, :20], tokens(x)[:, 21:]], 1),
    "tokens twice": lambda x: tokens(x).repeat(1, 2, 1),
    "tokens of two scales": lambda x: torch.cat([tokens(x), tokens(F.avg_pool2d(x, 2))], 1),
    "by their values": lambda x: tokens(x)[:, tokens(x).sum((0, 2)).argsort()],
    "by their values, all dims": lambda x: tokens(x).gather(1, tokens(x).argsort(1)),
    "the best": lambda x: tokens(x)[:, tokens(x)[0, :, 0].topk(48)[1]],
    "read by learned queries": lambda x: read_by_learned_queries(x, 5),
    "read by as many learned queries": lambda x: read_by_learned_queries(x, 48),
    "images twice": lambda x: torch.cat([x, x]),
    "images in another order": lambda x: x.flip(0),
    "a film": lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1),
    "a constant": lambda x: torch.rand(x.shape),
    "zeros like it": lambda x: torch.zeros_like(x),
}


# Of one image, nothing speaks against these.
OF_SEVERAL = {"channels as images", "images twice", "images in another order"}


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, count) for name in NO_MAP for count in (1, 3) if count > 1 or name not in OF_SEVERAL],
)
def test_no_map(name: str, count: int) -> None:
    assert follow(NO_MAP[name], torch.rand(count, 4, 6, 8))[1] is None


def unet(x: Tensor) -> Tensor:
    y = conv(4, 4, 3, padding=1)(F.max_pool2d(x, 2))
    return torch.cat([x, F.interpolate(y, size=x.shape[2:], mode="bilinear")], 1)


def pyramid(x: Tensor) -> Tensor:
    pools = [F.adaptive_avg_pool2d(x, count) for count in (1, 2, 4)]
    return torch.cat([x, *(F.interpolate(pool, x.shape[2:], mode="bilinear") for pool in pools)], 1)


def excited_by_coordinates(x: Tensor) -> Tensor:
    rows, columns = torch.cat([x.mean(3), x.mean(2)], 2).sigmoid().split(x.shape[2:], 2)
    return x * rows[:, :, :, None] * columns[:, :, None]


def two_convolutions(x: Tensor) -> Tensor:
    y = tokens(conv(4, 4, 4, stride=4)(x))
    return tokens(conv(4, 4, 3, stride=2, padding=1)(to_map(y, 8, 12)))


def patches_by_unfolding(x: Tensor) -> Tensor:
    y = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
    return nn.Linear(64, 5)(y)


def patches_by_views(x: Tensor) -> Tensor:
    y = x.view(2, 4, 8, 4, 12, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 96, 64)
    return nn.Linear(64, 5)(y)


STEM = nn.Sequential(conv(4, 4, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))

# Networks, the size of the image, and the grid and the centres worked out by hand.
CENTRED: dict[str, tuple[Function, tuple[int, int], tuple[int, int], Any]] = {
    "stem": (STEM, (32, 48), (8, 12), ((0.0, 4.0), (0.0, 4.0))),
    "stem, not padded": (
        nn.Sequential(conv(4, 4, 3, stride=2), conv(4, 4, (3, 5), stride=(2, 1))),
        (31, 47),
        (7, 19),
        ((3.0, 4.0), (5.0, 2.0)),
    ),
    "dilated": (nn.Sequential(STEM, conv(4, 4, 3, dilation=2)), (32, 48), (4, 8), ((8.0, 4.0), (8.0, 4.0))),
    "patches": (
        nn.Sequential(conv(4, 4, (4, 8), stride=(4, 8)), nn.BatchNorm2d(4)),
        (32, 48),
        (8, 6),
        ((1.5, 4.0), (3.5, 8.0)),
    ),
    "down and up again": (
        nn.Sequential(nn.AvgPool2d(2), conv(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, stride=2)),
        (32, 48),
        (32, 48),
        ((0.0, 1.0), (0.0, 1.0)),
    ),
    "U-Net": (unet, (32, 48), (32, 48), ((0.0, 1.0), (0.0, 1.0))),
    "pyramid of pools": (lambda x: pyramid(STEM(x)), (32, 48), (8, 12), ((0.0, 4.0), (0.0, 4.0))),
    "squeezed and excited": (
        Functional(lambda x, a: (y := STEM(x)) * a(y.mean((2, 3), keepdim=True)).sigmoid(), conv(4, 4, 1)),
        (32, 48),
        (8, 12),
        ((0.0, 4.0), (0.0, 4.0)),
    ),
    "excited by coordinates": (
        lambda x: excited_by_coordinates(STEM(x)),
        (32, 48),
        (8, 12),
        ((0.0, 4.0), (0.0, 4.0)),
    ),
    "two convolutions of tokens": (two_convolutions, (32, 48), (4, 6), ((1.5, 8.0), (1.5, 8.0))),
    "patches by unfolding": (patches_by_unfolding, (32, 48), (8, 12), ((1.5, 4.0), (1.5, 4.0))),
    "patches by views": (patches_by_views, (32, 48), (8, 12), ((1.5, 4.0), (1.5, 4.0))),
    "F.unfold": (lambda x: F.unfold(x, 5, padding=2, stride=4), (32, 48), (8, 12), ((0.0, 4.0), (0.0, 4.0))),
    "pixels as channels": (
        lambda x: F.pixel_unshuffle(conv(4, 4, 3, padding=1)(x), 4),
        (32, 48),
        (8, 12),
        ((1.5, 4.0), (1.5, 4.0)),
    ),
    "channels as pixels": (
        lambda x: F.pixel_shuffle(STEM(x), 2),
        (32, 48),
        (16, 24),
        ((-1.0, 2.0), (-1.0, 2.0)),
    ),
    "mirrored": (lambda x: STEM(x).flip(3), (32, 48), (8, 12), ((0.0, 4.0), (44.0, -4.0))),
}


@pytest.mark.parametrize("name", CENTRED)
def test_centres_by_hand(name: str) -> None:
    function, size, grid, centers = CENTRED[name]
    layout = found_in(function, (2, 4, *size))
    assert layout.grid == grid
    assert layout.centers is not None
    for found, wanted in zip(layout.centers, centers, strict=True):
        assert found == pytest.approx(wanted)
    (y, down), (x, right) = centers
    assert layout.center((2, 3)) == pytest.approx((y + 2 * down, x + 3 * right))


def test_rows_in_no_regular_order_are_rows_without_centres() -> None:
    images = torch.rand(SHAPE)
    for function in (
        lambda x: nhwc(x)[:, [0, 1, 3, 2, 4, 5]],
        lambda x: nhwc(x.roll(1, 2)),
        lambda x: torch.cat([torch.zeros(2, 1, 8, 4), nhwc(x)], 1),
    ):
        output, layout = follow(function, images)
        assert layout is not None
        assert (layout.order, layout.grid, layout.centers) == ((0, 3, 1, 2), tuple(output.shape[1:3]), None)
        assert layout.center((0, 0)) is None
        assert torch.equal(layout.to_spatial(output), output.permute(0, 3, 1, 2))


def test_rolled_tokens_lie_where_they_came_from() -> None:
    images = torch.rand(SHAPE)
    output, layout = follow(lambda x: tokens(x.roll((1, -3), (2, 3))), images)
    assert layout is not None
    assert layout.centers == ((0.0, 1.0), (0.0, 1.0))
    assert torch.equal(layout.to_spatial(output), images)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout((0, 1, 2, 3), (6, 8)), "(N, C, H, W), traced"),
        (Layout((0, 3, 1, 2), (6, 8), found="declared"), "(N, H, W, C), declared"),
        (Layout((0, 2, 1, 1), (6, 8), prefix=2), "(N, L, C) tokens, 2 prefix + 6 x 8 grid, traced"),
        (Layout((1, 2, 0, 0), (6, 8)), "(L, N, C) tokens, 6 x 8 grid, traced"),
    ],
)
def test_layout_in_words(layout: Layout, words: str) -> None:
    assert str(layout) == words
    assert layout.is_plain == (words == "(N, C, H, W), traced")
    assert layout.is_tokens == ("tokens" in words)
    assert layout.center((1, 1)) is None
    assert layout.steps == (None, None)


def test_shapes_that_fit() -> None:
    assert Layout((0, 1, 2, 3), (6, 8)).fits((2, 4, 7, 9))
    assert not Layout((0, 1, 2, 3), (6, 8)).fits((2, 4, 48))
    behind = Layout((0, 2, 1, 1), (6, 8), prefix=1)
    assert [behind.fits(shape) for shape in [(2, 49, 4), (2, 50, 4), (2, 48, 4), (2, 4, 6, 8)]] == [
        True, True, False, False,
    ]  # fmt: skip


def test_values_of_patches() -> None:
    values = torch.arange(10.0).numpy()
    assert Layout((0, 2, 1, 1), (2, 4), prefix=2).patches(values).tolist() == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert Layout((0, 2, 1, 1), (2, 2), tokens=(9, 1, 0, 4)).patches(values).tolist() == [[9, 1], [0, 4]]


def averaging(size: int, groups: int = 1) -> Tensor:
    return torch.full((4, 4 // groups, size, size), groups / (4 * size * size), dtype=torch.float64)


def interpolating() -> Tensor:
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    return (weights[:, None] * weights).expand(4, 4, 4, 4)


def mixed_channels(x: Tensor) -> Tensor:
    """Four channels, alike, of any number in the last dim."""
    return F.linear(x, torch.full((4, x.shape[-1]), 1 / x.shape[-1], dtype=x.dtype))


def attend_to_itself(x: Tensor, order: Tensor) -> Tensor:
    """Attention with keys in another order in which each query finds itself, so that nothing is mixed."""
    code = torch.eye(x.shape[1], dtype=x.dtype) * 1000
    queries = code + 0 * x.mean(2, keepdim=True)
    found = F.scaled_dot_product_attention(queries[:, None], queries[:, None, order], x[:, None, order])
    return found.squeeze(1)


def reordered(x: Tensor, first: int = 0) -> Tensor:
    order = torch.randperm(x.shape[1] - first, generator=torch.Generator().manual_seed(1)) + first
    return torch.cat([x[:, :first], x[:, order]], 1)


def attend_in_any_order(x: Tensor) -> Tensor:
    return attend_to_itself(x, torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(2)))


def through_attention(x: Tensor, shift: int) -> Tensor:
    cut = attend_in_any_order(windows(x.roll((-shift, -shift), (1, 2)), 4))
    return from_windows(cut, 4, *x.shape[1:3]).roll((shift, shift), (1, 2))


@dataclass(frozen=True)
class Step:
    """A piece of a random network: it moves elements or averages neighbours, alike in all four channels.

    Attributes:
        run: Gets the tensor, and the (H, W) of its map.
        form: What it makes.
        factor: How many times as many rows there are then.
        reach: How many rows beyond the middle an output reads.
        cut: Rows and columns that are lost.
        multiple: What the number of rows and of columns must be a multiple of.
        most: The largest map that it is quick for.
    """

    run: Callable[[Tensor, tuple[int, int]], Tensor]
    form: str
    factor: float = 1.0
    reach: float = 0.0
    cut: int = 0
    multiple: int = 1
    most: int = 4000


def on_map(run: Function, factor: float = 1.0, reach: float = 0.0, cut: int = 0, multiple: int = 1) -> Step:
    return Step(lambda x, size: run(x), "map", factor, reach, cut, multiple)


def smooth(x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, averaging(3), padding=1, **options)


STEPS: dict[str, list[Step]] = {
    "map": [
        on_map(smooth, reach=1),
        on_map(lambda x: F.conv2d(x, averaging(5)), reach=2, cut=4),
        on_map(lambda x: F.conv2d(x, averaging(3), padding=2, dilation=2), reach=2),
        on_map(lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), "circular"), averaging(3, 4), groups=4), reach=1),
        on_map(lambda x: smooth(x, stride=2), 0.5, reach=1, multiple=4),
        on_map(lambda x: F.conv2d(x, averaging(2), stride=2), 0.5, reach=0.5, multiple=4),
        on_map(lambda x: F.avg_pool2d(x, 3, 2, 1), 0.5, reach=1, multiple=4),
        on_map(lambda x: F.adaptive_avg_pool2d(x, (x.shape[2] // 2, x.shape[3] // 2)), 0.5, 0.5, multiple=4),
        on_map(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), 2, reach=1),
        on_map(lambda x: F.conv_transpose2d(x, interpolating(), stride=2, padding=1), 2, reach=1),
        on_map(
            lambda x: F.conv2d(F.pixel_unshuffle(x, 2), averaging(1).repeat(1, 4, 1, 1)), 0.5, 0.5, multiple=4
        ),
        on_map(lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), multiple=2),
        on_map(lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1), reach=1),
        on_map(lambda x: x + smooth(smooth(x)), reach=2),
        on_map(lambda x: (x[..., 1:] + x[..., :-1])[:, :, 1:], reach=0.5, cut=1),
        on_map(lambda x: F.pad(x, (2, 1, 1, 3))[:, :, 1:-3, 2:-1]),
        on_map(lambda x: F.pad(x, (-1, -3, -4, 0)), cut=4),
        on_map(lambda x: x.flip(2)),
        on_map(lambda x: torch.zeros_like(x).copy_(x).mul_(2)),
        *[Step(lambda x, size: nhwc(x), "rows last")] * 6,
        *[Step(lambda x, size: tokens(x), "tokens")] * 4,
        Step(lambda x, size: x.flatten(2).permute(2, 0, 1), "sequence first"),
    ],
    "rows last": [
        Step(lambda x, size: mixed_channels(x), "rows last"),
        Step(lambda x, size: mixed_channels(merged_by_slices(x)), "rows last", 0.5, 0.5, multiple=4),
        Step(lambda x, size: mixed_channels(merged_by_view(x)), "rows last", 0.5, 0.5, multiple=4),
        Step(lambda x, size: through_attention(x, 0), "rows last", multiple=4),
        Step(lambda x, size: through_attention(x, 2), "rows last", multiple=4),
        Step(lambda x, size: padded_through_windows(x, 4, 1), "rows last"),
        Step(
            lambda x, size: from_grids(attend_in_any_order(grids(x)), *x.shape[1:3]), "rows last", multiple=2
        ),
        Step(lambda x, size: x.permute(0, 3, 1, 2), "map"),
        Step(lambda x, size: x.flatten(1, 2), "tokens"),
    ],
    "tokens": [
        Step(lambda x, size: mixed_channels(x), "tokens"),
        Step(lambda x, size: attend_in_any_order(x), "tokens", most=200),
        Step(lambda x, size: x.unflatten(2, (2, 2)).transpose(1, 2).transpose(1, 2).flatten(2), "tokens"),
        Step(lambda x, size: with_class_token(x, 2), "behind"),
        Step(lambda x, size: to_map(x, *size), "map"),
        Step(lambda x, size: x.unflatten(1, size), "rows last"),
        Step(lambda x, size: x.transpose(0, 1), "sequence first"),
        Step(lambda x, size: reordered(x), "end"),
    ],
    "behind": [
        Step(lambda x, size: mixed_channels(x), "behind"),
        Step(lambda x, size: attend_in_any_order(x), "behind", most=200),
        Step(lambda x, size: x[:, 2:], "tokens"),
        Step(lambda x, size: x[:, 1:], "end"),
        Step(lambda x, size: reordered(x, 2), "end"),
    ],
    "sequence first": [
        Step(lambda x, size: mixed_channels(x), "sequence first"),
        Step(lambda x, size: x.transpose(0, 1), "tokens"),
    ],
    "end": [],
}
IMAGE = (48, 64)
FARTHEST = 17


def drawn(seed: int) -> tuple[Function, tuple[int, int]]:
    """Draw a network; return also the (H, W) of its map."""
    choice = random.Random(seed)
    size, form, pixels, reach = IMAGE, "map", 1.0, 0.0
    runs: list[Function] = []
    for _ in range(choice.randint(8, 24)):
        if not STEPS[form]:
            break
        step = choice.choice(STEPS[form])
        farther = reach + (step.reach + step.cut) * pixels
        if (
            farther > FARTHEST
            or not 1 <= pixels / step.factor <= 4
            or any(length % step.multiple for length in size)
            or size[0] * size[1] > step.most
        ):
            continue
        runs.append(partial(step.run, size=size))
        reach = farther
        pixels /= step.factor
        height, width = (int(length * step.factor) - step.cut for length in size)
        size, form = (height, width), step.form

    def network(x: Tensor) -> Tensor:
        for run in runs:
            x = run(x)
        return x

    return network, size


@pytest.mark.parametrize("seed", range(32))
def test_units_of_random_networks_lie_where_the_layout_says(seed: int) -> None:
    network, size = drawn(seed)
    count = 1 + seed % 3
    ones = torch.ones(count, 4, *IMAGE, dtype=torch.float64)
    _, layout = follow(network, ones.clone())
    assert layout is not None
    assert layout.grid == size
    assert layout.centers is not None

    # What a unit makes of the numbers of the rows, by what it makes of ones, is the middle of what it reads.
    weight = layout.to_spatial(network(ones))
    assert weight.shape[2:] == size
    planes = (torch.arange(length, dtype=torch.float64) for length in (count, *IMAGE))
    images, rows, columns = (
        layout.to_spatial(network(ones * plane.reshape(shape))) / weight
        for plane, shape in zip(planes, [(-1, 1, 1, 1), (-1, 1), (-1,)], strict=True)
    )
    numbers = torch.arange(count, dtype=torch.float64).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(images, numbers.expand_as(images))
    ys = torch.tensor([layout.center((i, 0)) for i in range(size[0])], dtype=torch.float64)[:, 0]
    xs = torch.tensor([layout.center((0, j)) for j in range(size[1])], dtype=torch.float64)[:, 1]
    within = (abs(ys - 23.5) <= 23.5 - FARTHEST)[:, None] & (abs(xs - 31.5) <= 31.5 - FARTHEST)
    assert within.sum() >= 6
    for found, expected in ((rows, ys[:, None]), (columns, xs)):
        inner = found[:, :, within]
        torch.testing.assert_close(inner, expected.expand(size)[within].expand_as(inner))
