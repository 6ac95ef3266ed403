"""Rules for the places of elements: operators that move elements against themselves, others by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erfattr.receptive_field._place_rules import Placing, places_after
from erfattr.receptive_field._place_rules.registry import elements, place_rule
from erfattr.receptive_field._place_tracking import PlaceTracker, PlaceTracking
from erfattr.receptive_field._places import (
    Line,
    Places,
    agreed,
    folded,
    nowhere,
    of_images,
    resampled,
    step_of,
    view_runs,
    viewed,
)

SHAPE = (2, 4, 4, 6)
Function = Callable[[Tensor], Tensor]


def places_of(function: Function, shape: tuple[int, ...] = SHAPE) -> Places | None:
    """Return the places of what ``function`` makes of images."""
    images = torch.rand(shape)
    tracker = PlaceTracker()
    tracker[images] = of_images(shape)
    with PlaceTracking(tracker):
        output = function(images)
    assert tracker.failures == []
    found = tracker[output]
    assert found is None or found.fit(output.shape)
    return found


def said(line: Line) -> dict[int, list[float | None]]:
    """Return what a line says of every dim, ``None`` for no place."""
    return {
        dim: [None if np.isnan(value) else round(float(value), 9) for value in vector]
        for dim, vector in enumerate(line)
        if vector is not None
    }


def added_up(line: Line, shape: tuple[int, ...]) -> Tensor:
    """Return the sums that a line stands for, of all elements."""
    total = torch.zeros(shape, dtype=torch.float64)
    for dim, vector in enumerate(line):
        if vector is not None:
            total += torch.from_numpy(vector.copy()).reshape(
                [-1 if d == dim else 1 for d in range(len(shape))]
            )
    return total


def windows(x: Tensor, size: int = 2) -> Tensor:
    """Cut a map, (N, C, H, W), into windows, (N windows, size * size, C)."""
    n, c, h, w = x.shape
    cut = x.view(n, c, h // size, size, w // size, size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, c)


def in_place(x: Tensor) -> Tensor:
    buffer = torch.zeros(x.shape, dtype=x.dtype)
    buffer.copy_(x)
    return buffer.transpose_(2, 3)


# What only moves elements moves their places just so.
MOVES: dict[str, Function] = {
    "nothing": lambda x: x.clone().detach().reshape(SHAPE),
    "another dtype": lambda x: x.half().float(),
    "transpose": lambda x: x.transpose(1, 3),
    "transpose of a matrix": lambda x: x[0, 0].t(),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "permute, counted from the end": lambda x: x.permute(-1, -4, -2, -3),
    "flatten": lambda x: x.flatten(2),
    "flatten all": lambda x: x.flatten(),
    "flatten by columns": lambda x: x.transpose(2, 3).flatten(2),
    "unflatten": lambda x: x.flatten(2).unflatten(2, (2, 2, 3, 2)),
    "rows and columns cut and joined": lambda x: x.reshape(2, 4, 2, 2, 6).transpose(2, 3).reshape(2, 4, 4, 6),
    "images into rows": lambda x: x.transpose(0, 1).reshape(4, 8, 6),
    "images into rows and back": lambda x: (
        x.transpose(0, 1).reshape(4, 8, 6).view(4, 2, 4, 6).transpose(0, 1)
    ),
    "windows": windows,
    "windows of three": lambda x: windows(x[:, :, 1:, :], 3),
    "heads": lambda x: x.flatten(2).view(2, 2, 2, 24).flatten(0, 1).transpose(1, 2),
    "squeeze": lambda x: x[:, :, None, :, None].squeeze(2).squeeze(),
    "squeeze of a row": lambda x: x[:, :, 1:2].squeeze(2),
    "squeeze of a column": lambda x: x[..., 3:4].squeeze(3).permute(0, 2, 1),
    "squeeze of an image": lambda x: x[1:].squeeze(0),
    "squeeze of a window": lambda x: x.view(2, 4, 2, 2, 6)[:, :, 1:].squeeze(2),
    "unsqueeze": lambda x: x.unsqueeze(1).unsqueeze(-1),
    "expand": lambda x: x[:, :, None].expand(-1, -1, 3, -1, -1),
    "slice": lambda x: x[1:, :, 1::2, -3:-1],
    "split": lambda x: x.split(4, 3)[1],
    "split into sizes": lambda x: x.split([1, 3, 2], 3)[1],
    "chunk": lambda x: x.chunk(2, 2)[1],
    "select": lambda x: x[:, 2],
    "select of a window": lambda x: x.view(2, 4, 2, 2, 3, 2)[:, :, 1, :, -1],
    "unbind": lambda x: x.unbind(1)[1],
    "cat along rows": lambda x: torch.cat([x[:, :, 3:], x[:, :, :2]], 2),
    "cat along channels": lambda x: torch.cat([x, x[:, :1]], 1),
    "cat along images": lambda x: torch.cat([x, x[1:], x]),
    "stack": lambda x: torch.stack([x, x], 1),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "roll, and windows of it": lambda x: windows(x.roll((1, -1), (2, 3))),
    "roll twice": lambda x: x.roll(3, 2).roll(2, 2),
    "roll and part of it back": lambda x: x.roll(3, 3).roll(-2, 3),
    "roll in windows": lambda x: x.view(2, 4, 2, 2, 6).roll(1, 3),
    "roll of a part": lambda x: x.roll(2, 3)[..., :4].roll(1, 3),
    "roll of a mirror image": lambda x: x.flip(3).roll(-2, 3),
    "roll of images": lambda x: x.roll(1, 0),
    "flip": lambda x: x.flip(2, 3),
    "index": lambda x: x[:, :, [2, 0, 3]],
    "index by a mask": lambda x: x[..., torch.tensor([True, False, True, True, False, False])],
    "index_select": lambda x: x.index_select(3, torch.tensor([5, 0, 1])),
    "repeat": lambda x: x.repeat(3, 1, 1, 2, 1),
    "repeat of each": lambda x: x.repeat_interleave(2, 3),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
    "Tensor.unfold": lambda x: x.unfold(2, 3, 1).unfold(3, 2, 2),
    "diagonal of windows": lambda x: windows(x).view(-1, 2, 2, 4)[:, 1],
    "written into a buffer": in_place,
    "written into views": lambda x: torch.zeros(2, 4, 4, 6, dtype=x.dtype).copy_(x)[:, :, 1:],
}


@pytest.mark.parametrize("name", MOVES)
def test_places_move_as_the_elements(name: str) -> None:
    found = places_of(MOVES[name])
    assert found is not None
    planes = of_images(SHAPE)
    for line, around, plane in zip(found.lines, (*found.rounds, None), planes.lines, strict=True):
        moved = MOVES[name](added_up(plane, SHAPE)).double()
        own = added_up(line, tuple(moved.shape))
        assert torch.equal(torch.from_numpy(folded(own.numpy(), around)), moved), line


HALVES = {2: [0.5, 2.5]}, {3: [0.5, 2.5, 4.5]}
DOUBLED = {2: [0.5 * i - 0.25 for i in range(8)]}, {3: [0.5 * i - 0.25 for i in range(12)]}
BORDERED = {2: [float(i) for i in range(-1, 5)]}, {3: [float(i) for i in range(-1, 7)]}
KEPT = {2: [0.0, 1.0, 2.0, 3.0]}, {3: [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}
TURNED = [5, 0, 1, 2, 3, 4]
LOST: tuple[dict[int, list[float]], dict[int, list[float]]] = ({}, {})
TOKENS = (
    {1: [float(i) for i in range(4) for _ in range(6)]},
    {1: [float(j) for _ in range(4) for j in range(6)]},
)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def kernel(*shape: int) -> Tensor:
    return torch.rand(shape)


def gated_by_half(x: Tensor) -> Tensor:
    return F.glu(torch.cat([x, x], 1), 1)


# Rows and columns after operators that compute, worked out by hand.
COMPUTED: dict[str, tuple[Function, Any]] = {
    "element by element": (lambda x: ((x * 2 + 1).sigmoid_() > 0.7) * F.gelu(x), KEPT),
    "spread over the map": (lambda x: x * x.mean((2, 3), keepdim=True) + x.amax(1, keepdim=True), KEPT),
    "rows and columns apart": (lambda x: x.mean(3, keepdim=True) * x.mean(2, keepdim=True), KEPT),
    "a row spread over rows": (lambda x: x[:, :, 1:2].expand(-1, -1, 4, -1), ({}, KEPT[1])),
    "a row repeated": (lambda x: x[:, :, 1:2].repeat(1, 1, 4, 1), ({}, KEPT[1])),
    "condition": (lambda x: torch.where(x > 0.5, x, torch.zeros(())), KEPT),
    "minimum of two": (lambda x: torch.minimum(x, x.max(3, keepdim=True)[0]), KEPT),
    "maximum of two": (lambda x: torch.max(torch.zeros(6), x), KEPT),
    "softmax": (lambda x: x.softmax(2).log_softmax(3), KEPT),
    "running sum": (lambda x: x.cumsum(3), KEPT),
    "batch normalisation": (nn.BatchNorm2d(4), KEPT),
    "batch normalisation, evaluation": (nn.BatchNorm2d(4).eval(), KEPT),
    "group normalisation": (nn.GroupNorm(2, 4), KEPT),
    "instance normalisation": (nn.InstanceNorm2d(4), KEPT),
    "layer normalisation": (nn.LayerNorm([4, 6]), KEPT),
    "dropout": (nn.Dropout(), KEPT),
    "convolution": (nn.Conv2d(4, 2, 3, stride=2, padding=1), ({2: [0.0, 2.0]}, {3: [0.0, 2.0, 4.0]})),
    "convolution, even": (nn.Conv2d(4, 2, 2, stride=2), HALVES),
    "convolution, dilated": (
        nn.Conv2d(4, 2, 3, dilation=2, padding=1),
        ({2: [1.0, 2.0]}, {3: [1.0, 2.0, 3.0, 4.0]}),
    ),
    "convolution, of one side": (nn.Conv2d(4, 2, (3, 1), padding=(1, 0)), KEPT),
    "convolution, same": (nn.Conv2d(4, 2, (3, 5), padding="same"), KEPT),
    "convolution, depthwise": (
        nn.Conv2d(4, 4, 3, groups=4, stride=(1, 2)),
        ({2: [1.0, 2.0]}, {3: [1.0, 3.0]}),
    ),
    "convolution, circular": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), KEPT),
    "convolution, reflection": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), KEPT),
    "convolution of one image": (lambda x: F.conv2d(x[0], kernel(2, 4, 1, 1))[None], KEPT),
    "kernels by image": (
        lambda x: F.conv2d(x.reshape(1, 8, 4, 6), kernel(4, 4, 3, 3), padding=1, groups=2).view(2, 2, 4, 6),
        KEPT,
    ),
    "transposed": (nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1), DOUBLED),
    "transposed, longer": (
        nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1),
        ({2: [0.5 * i for i in range(8)]}, {3: [0.5 * i for i in range(12)]}),
    ),
    "transposed, dilated": (
        nn.ConvTranspose2d(4, 2, 2, dilation=2),
        ({2: [float(i) for i in range(-1, 5)]}, {3: [float(i) for i in range(-1, 7)]}),
    ),
    "maximum": (nn.MaxPool2d(3, 2, 1), ({2: [0.0, 2.0]}, {3: [0.0, 2.0, 4.0]})),
    "maximum, rounded up": (nn.MaxPool2d(3, 2, ceil_mode=True), ({2: [1.0, 3.0]}, {3: [1.0, 3.0, 5.0]})),
    "maximum, dilated": (nn.MaxPool2d(2, 1, dilation=2), ({2: [1.0, 2.0]}, {3: [1.0, 2.0, 3.0, 4.0]})),
    "maximum, indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1], HALVES),
    "average": (nn.AvgPool2d(2), HALVES),
    "average along columns": (lambda x: F.avg_pool1d(x[:, :, 0], 2), ({}, {2: [0.5, 2.5, 4.5]})),
    "adaptive average": (nn.AdaptiveAvgPool2d((2, 3)), HALVES),
    "adaptive maximum of all rows": (nn.AdaptiveMaxPool2d((1, 3)), ({}, HALVES[1])),
    "average of all": (nn.AdaptiveAvgPool2d(1), LOST),
    "nearest": (nn.Upsample(scale_factor=2), DOUBLED),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), DOUBLED),
    "bicubic, to a size": (lambda x: F.interpolate(x, size=(8, 12), mode="bicubic"), DOUBLED),
    "bilinear, smaller": (lambda x: F.interpolate(x, (2, 3), mode="bilinear", antialias=True), HALVES),
    "bilinear, corners": (
        nn.Upsample((7, 11), mode="bilinear", align_corners=True),
        ({2: [0.5 * i for i in range(7)]}, {3: [0.5 * i for i in range(11)]}),
    ),
    "bilinear, by a scale": (
        lambda x: F.interpolate(x, scale_factor=1.6, mode="bilinear"),
        ({2: [0.625 * i - 0.1875 for i in range(6)]}, {3: [0.625 * i - 0.1875 for i in range(9)]}),
    ),
    "padded": (
        lambda x: F.pad(x, (1, 2, 0, 1)),
        ({2: [float(i) for i in range(5)]}, {3: [float(i) for i in range(-1, 8)]}),
    ),
    "cropped by padding": (
        lambda x: F.pad(x, (-1, 1, -2, -1)),
        ({2: [2.0]}, {3: [float(i) for i in range(1, 7)]}),
    ),
    "reflected": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), BORDERED),
    "repeated at the border": (nn.ReplicationPad2d(1), BORDERED),
    "around the other side": (nn.CircularPad2d(1), BORDERED),
    "padded as (N, H, W, C) and cropped": (
        lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 2, 1, 0))[:, 1:, :6],
        ({1: KEPT[0][2]}, {2: KEPT[1][3]}),
    ),
    "padded with channels": (
        lambda x: F.pad(x.permute(0, 2, 3, 1), (1, 2)),
        ({1: KEPT[0][2]}, {2: KEPT[1][3]}),
    ),
    "a map in another order, padded": (
        lambda x: F.pad(x[..., TURNED], (1, 0)),
        (KEPT[0], {3: [None, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0]}),
    ),
    "tokens padded": (
        lambda x: F.pad(tokens(x), (0, 0, 2, -20)),
        ({1: [None, None, 0.0, 0.0, 0.0, 0.0]}, {1: [None, None, 0.0, 1.0, 2.0, 3.0]}),
    ),
    "tokens of the only row padded": (
        lambda x: F.pad(x[:, :, 1:2].flatten(2), (1, 0)),
        ({2: [None, *[1.0] * 6]}, {2: [None, *KEPT[1][3]]}),
    ),
    "F.unfold": (
        nn.Unfold(2, stride=2),
        ({2: [0.5, 0.5, 0.5, 2.5, 2.5, 2.5]}, {2: [0.5, 2.5, 4.5, 0.5, 2.5, 4.5]}),
    ),
    "F.unfold, dilated": (
        nn.Unfold((1, 3), dilation=2, padding=(0, 1), stride=(3, 1)),
        ({2: [0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0]}, {2: [1.0, 2.0, 3.0, 4.0] * 2}),
    ),
    "F.fold": (lambda x: F.fold(F.unfold(x, 2, stride=2), (4, 6), 2, stride=2), KEPT),
    "F.fold, overlapping": (lambda x: F.fold(F.unfold(x, 3, padding=1), (4, 6), 3, padding=1), KEPT),
    "pixel_unshuffle": (nn.PixelUnshuffle(2), HALVES),
    "pixel_shuffle": (nn.PixelShuffle(2), DOUBLED),
    "pixel_shuffle and back": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), KEPT),
    "neighbours side by side": (lambda x: torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]], 1), HALVES),
    "four neighbours": (
        lambda x: torch.cat([x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)], 1),
        HALVES,
    ),
    "two maps and their neighbour": (
        lambda x: torch.cat([x[..., :5], x[..., 1:], x[..., :5]], 1)[..., ::2],
        (KEPT[0], {3: [0.5, 2.5, 4.5]}),
    ),
    "neighbours among tokens": (
        lambda x: tokens(x)[:, ::2] + tokens(x)[:, 1::2],
        ({1: TOKENS[0][1][::2]}, {1: [0.5, 2.5, 4.5] * 4}),
    ),
    "stacked with nothing": (lambda x: torch.stack([x, torch.zeros_like(x)], 4), KEPT),
    "behind constants": (
        lambda x: torch.cat([torch.zeros(2, 4, 4, 2), x], 3),
        (KEPT[0], {3: [None, None, *KEPT[1][3]]}),
    ),
    "before another map's mean": (
        lambda x: torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1),
        KEPT,
    ),
    "maps of two steps": (lambda x: x[:, :, ::2] + x[:, :, :2], ({}, KEPT[1])),
    "maps of two steps and a third": (
        lambda x: torch.cat([x[:, :, ::2], x[:, :, :2], x[:, :, ::2]], 1),
        ({}, KEPT[1]),
    ),
    "a map and its mirror image": (lambda x: x + x.flip(3), (KEPT[0], {})),
    "a map and the same in another order": (lambda x: x[..., TURNED] + x, KEPT),
    "a map and the same rolled": (lambda x: x.roll(1, 3) + x, (KEPT[0], {3: [i - 0.5 for i in range(6)]})),
    "a map and its transpose": (
        lambda x: x[..., :4] + x[..., :4].transpose(2, 3),
        ({2: KEPT[0][2], 3: KEPT[0][2]}, {2: KEPT[0][2], 3: KEPT[0][2]}),
    ),
    "windows and others": (lambda x: windows(x) + windows(x).flip(0), LOST),
    "windows cut along rows behind each other": (
        lambda x: torch.cat([x.view(2, 4, 2, 2, 6), x.view(2, 4, 2, 2, 6).flip(3)], 2),
        ({}, None),
    ),
    "a window, and its corner far away": (
        lambda x: x.view(2, 4, 2, 2, 6)[:, :, 1:].permute(2, 1, 4, 0, 3).squeeze(0),
        ({3: [2.0, 3.0]}, {1: KEPT[1][3]}),
    ),
    "windows by weights that lie nowhere": (
        lambda x: (windows(x) @ windows(x).transpose(1, 2)).sort(2)[0] @ windows(x),
        LOST,
    ),
    "a strided convolution along the only row": (
        lambda x: F.conv1d(x[:, :, 1], kernel(4, 4, 2), stride=2),
        ({}, {2: [0.5, 2.5, 4.5]}),
    ),
    "mean along windows": (lambda x: x.view(2, 4, 2, 2, 6).mean(3), ({2: [0.5, 2.5]}, KEPT[1])),
    "mean of a window": (
        lambda x: x.view(2, 4, 2, 2, 6).sum(2, keepdim=True),
        ({3: [1.0, 2.0]}, {4: KEPT[1][3]}),
    ),
    "largest of a row": (lambda x: x.max(3)[1], ({2: KEPT[0][2]}, {})),
    "deviation": (lambda x: torch.var_mean(x, 1)[1], ({1: KEPT[0][2]}, {2: KEPT[1][3]})),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True) + x.norm(dim=1, keepdim=True), KEPT),
    "sum of all": (lambda x: x.sum(), LOST),
    "tokens with others, averaged": (
        lambda x: torch.cat([torch.zeros(4, 1, 4), windows(x[:1, :, :, :4])], 1).mean(1),
        ({0: [0.5, 0.5, 2.5, 2.5]}, {0: [0.5, 2.5, 0.5, 2.5]}),
    ),
    "others of windows": (lambda x: torch.cat([torch.zeros(12, 1, 4), windows(x)], 1)[:, 0], LOST),
    "linear": (nn.Sequential(nn.Flatten(2), nn.Linear(24, 5)), LOST),
    "linear over channels": (lambda x: F.linear(tokens(x), kernel(5, 4), kernel(5)), TOKENS),
    "linear over channels, no bias": (
        lambda x: F.linear(x.permute(0, 2, 3, 1), kernel(5, 4)),
        ({1: KEPT[0][2]}, {2: KEPT[1][3]}),
    ),
    "linear over columns": (lambda x: F.linear(x, kernel(6, 6)), (KEPT[0], {})),
    "linear over tokens": (lambda x: F.linear(x.flatten(2), kernel(24, 24)), LOST),
    "linear over tokens, added": (
        lambda x: tokens(x) + F.linear(x.flatten(2), kernel(24, 24)).transpose(1, 2),
        TOKENS,
    ),
    "linear over a window": (
        lambda x: F.linear(x.view(2, 4, 2, 2, 6).transpose(3, 4), kernel(7, 2)),
        ({2: [0.5, 2.5]}, {3: KEPT[1][3]}),
    ),
    "matrix from the left": (lambda x: kernel(5, 4) @ x.flatten(2), ({2: TOKENS[0][1]}, {2: TOKENS[1][1]})),
    "times a vector": (lambda x: x @ kernel(6), ({2: KEPT[0][2]}, {})),
    "einsum": (lambda x: torch.einsum("nchw,kc->nhwk", x, kernel(3, 4)), ({1: KEPT[0][2]}, {2: KEPT[1][3]})),
    "attention weights": (
        lambda x: tokens(x) @ x.flatten(2),
        (dict.fromkeys((1, 2), TOKENS[0][1]), dict.fromkeys((1, 2), TOKENS[1][1])),
    ),
    "channels by channels": (lambda x: x.flatten(2) @ tokens(x), LOST),
    "channels by channels by tokens": (
        lambda x: (x.flatten(2) @ tokens(x)) @ x.flatten(2),
        ({2: TOKENS[0][1]}, {2: TOKENS[1][1]}),
    ),
    "queries of rows, keys of columns": (
        lambda x: x[:, :, :, 0].transpose(1, 2) @ x[:, :, 0],
        ({1: KEPT[0][2]}, {2: KEPT[1][3]}),
    ),
    "gate": (gated_by_half, KEPT),
    "gate along columns": (lambda x: F.glu(x, 3), (KEPT[0], {})),
    "shuffled columns": (lambda x: F.channel_shuffle(x.permute(0, 3, 2, 1), 2), ({2: KEPT[0][2]}, {})),
    "windows of a map in another order": (lambda x: x[..., TURNED].unfold(3, 2, 2), (KEPT[0], {})),
    "a convolution along tokens": (
        lambda x: F.conv1d(x.flatten(2), kernel(4, 4, 3), padding=1).transpose(1, 2),
        TOKENS,
    ),
    "a strided convolution along tokens": (lambda x: F.conv1d(x.flatten(2), kernel(4, 4, 2), stride=2), LOST),
    "one row made many": (lambda x: F.interpolate(x[:, :, :1], (4, 6)), ({}, KEPT[1])),
    "rolled as if flattened": (lambda x: x.roll(1), LOST),
    "no rule": (lambda x: F.grid_sample(x, torch.zeros(2, 4, 6, 2), align_corners=False), LOST),
    "no rule, added": (lambda x: x + x.sort(3)[0], KEPT),
    "tokens of a table": (lambda x: torch.rand(10, 4)[(x[0, 0, 0] * 10).long()], LOST),
    "by order of their values": (lambda x: x.index_select(3, x.sum((0, 1, 2)).argsort()), (KEPT[0], {})),
    "the largest few": (lambda x: x[:, :, x[0, 0, :, 0].topk(2)[1]], ({}, KEPT[1])),
    "a window by its values": (lambda x: windows(x[:1, :, :, :4])[:, x[0, 0, 0, :4].argsort()], LOST),
    "two indices": (lambda x: x[:, :, [0, 1], [1, 2]], LOST),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_places_by_hand(name: str) -> None:
    function, expected = COMPUTED[name]
    found = places_of(function)
    assert found is not None
    for line, wanted in zip((found.rows, found.columns), expected, strict=True):
        assert wanted is None or said(line) == {d: pytest.approx(v, nan_ok=True) for d, v in wanted.items()}


def test_every_image_keeps_its_number() -> None:
    found = places_of(
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
    )
    assert found is not None
    assert [said(line) for line in found.lines] == [{}, {}, {0: [0.0, 1.0]}]
    by_image = COMPUTED["kernels by image"][0]
    in_channels = places_of(lambda x: F.conv2d(x.reshape(1, 8, 4, 6), kernel(4, 4, 1, 1), groups=2))
    for own, numbers in (
        (places_of(by_image), {0: [0.0, 1.0]}),
        (in_channels, {1: [0.0, 0.0, 1.0, 1.0]}),
    ):
        assert own is not None
        assert said(own.images) == numbers
    gathered = places_of(lambda x: torch.cat([x, torch.zeros(1, 4, 4, 6), x[:1]]).mean((1, 2)))
    assert gathered is not None
    assert said(gathered.images) == {0: [0.0, 1.0, None, 0.0]}


@pytest.mark.parametrize(
    ("function", "depends"),
    [
        (lambda x: x.sort(3)[1], True),
        (lambda x: torch.fft.fft2(x).abs(), True),
        (lambda x: x.nonzero(), True),
        (lambda x: x.mean() > 1, True),
        (lambda x: torch.zeros_like(x), False),
        (lambda x: x.new_ones(2, 4), False),
        (lambda x: torch.rand_like(x) + x.new_zeros(()), False),
        (lambda x: torch.ones(3), False),
    ],
)
def test_what_lies_nowhere_still_depends_on_the_image(function: Function, depends: bool) -> None:
    found = places_of(function)
    assert (found is not None) == depends
    assert found is None or not found.known or found.images[0] is not None


def test_a_map_that_is_rolled_back_is_as_before() -> None:
    for function in (
        lambda x: x.roll((1, -2), (2, 3)).roll((-1, 2), (2, 3)),
        lambda x: x.roll(3, 3).roll(3, 3),
        lambda x: F.pad(x.roll(1, 2), (0, 0, 0, 2))[:, :, :4].roll(-1, 2),
    ):
        found = places_of(function)
        assert found is not None
        assert (said(found.rows), said(found.columns)) == KEPT
        assert found.rounds == (None, None)
    rolled = places_of(lambda x: x.roll(1, 2) * 2)
    assert rolled is not None
    assert rolled.rounds == ((-0.5, 4.0), None)
    mixed = places_of(lambda x: x.roll(1, 2) + F.pad(x, (0, 0, 1, -1)).roll(1, 2))
    assert mixed is not None
    assert (said(mixed.rows), said(mixed.columns)) == ({}, KEPT[1])


def test_what_is_written_into_a_map_lies_there() -> None:
    found = places_of(lambda x: x.clone().index_copy_(3, torch.tensor([1]), x.sort(3)[0][..., :1]))
    assert found is not None
    assert (said(found.rows), said(found.columns)) == KEPT


def test_known_names_in_other_libraries_say_nothing() -> None:
    library = torch.library.Library("places_tests", "DEF")
    library.define("flip(Tensor x, int[] dims) -> Tensor")
    library.impl("flip", lambda x, dims: x.sort(dim=dims[0])[0], "CompositeExplicitAutograd")
    assert places_of(lambda x: torch.ops.places_tests.flip(x, [3])) == nowhere(4)


@pytest.mark.parametrize(
    ("bound", "error"),
    [({}, "KeyError: 'dims'"), ({"dims": [0]}, "ValueError: the places found do not fit an output of shape")],
)
def test_a_rule_that_fails_is_noted_and_loses_the_places_alone(bound: dict[str, Any], error: str) -> None:
    images, output = torch.rand(SHAPE), torch.rand(SHAPE)
    tracker = PlaceTracker()
    tracker[images] = of_images(SHAPE)
    tracker.after(torch.ops.aten.permute.default, "permute", bound, [images], [output], [])
    assert len(tracker.failures) == 1
    assert tracker.failures[0].startswith(f"permute: {error}")
    lost = tracker[output]
    assert lost is None or not lost.known
    with PlaceTracking(tracker):
        again = images.mul(2)
        total = output + again
    assert tracker[again] == tracker[images] or tracker[again].fit(SHAPE)
    assert said(tracker[total].rows) == KEPT[0]
    assert len(tracker.failures) == 1


def test_an_operator_of_constants_is_no_failure() -> None:
    images = torch.rand(SHAPE)
    known = {id(images): of_images(SHAPE)}
    constants, output = torch.rand(10, 4), torch.rand(2, 4)
    call = Placing(
        torch.ops.aten.index_select.default,
        "index_select",
        {"self": constants, "dim": 0, "index": images},
        [constants, images],
        [output],
        lambda tensor: known.get(id(tensor)),
    )
    assert places_after(call) == [nowhere(2)]


def test_one_rule_for_each_name() -> None:
    with pytest.raises(ValueError, match="a rule for view already"):
        place_rule("view")(elements)


ATTENTION: dict[str, tuple[Function, bool]] = {
    "none": (nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(2), nn.Linear(8, 3)), False),
    "explicit": (lambda x: (tokens(x) @ x.flatten(2)).softmax(-1) @ tokens(x), True),
    "fused": (lambda x: F.scaled_dot_product_attention(tokens(x), tokens(x), tokens(x)), True),
    "of what lies nowhere": (lambda x: x[:, 0] @ x[:, 0].sort(2)[0].transpose(1, 2), True),
    "with a constant table": (lambda x: tokens(x) @ torch.rand(4, 4), False),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_products_of_features_are_called_attention(name: str) -> None:
    function, expected = ATTENTION[name]
    images, called = torch.rand(SHAPE), []
    tracker = PlaceTracker(lambda: called.append(1))
    tracker[images] = of_images(SHAPE)
    with PlaceTracking(tracker), torch.no_grad():
        function(images)
    assert bool(called) == expected


def vector(*values: float) -> Any:
    return np.array(values, dtype=np.float64)


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ((0, 2, 4), 2),
        ((3, 1, -1), -2),
        ((5,), 1),
        ((NAN,), None),
        ((), None),
        ((0, 1, 3), None),
        ((0, 1, 0), None),
        ((2, 2), None),
        ((NAN, 1, 2), None),
        ((0, 1, NAN), None),
    ],
)
def test_step(values: tuple[float, ...], step: float | None) -> None:
    assert step_of(vector(*values)) == step


def test_resampled() -> None:
    assert resampled(None, 0, 1, 3) is None
    assert resampled(vector(0, 0, 1), 0, 2, 2) is None
    np.testing.assert_array_equal(resampled(vector(0, 0, 1), 0, 1, 3), [0, 0, 1])
    np.testing.assert_array_equal(resampled(vector(4, 4), 0.5, 3, 3), [4, 4, 4])
    np.testing.assert_array_equal(resampled(vector(10, 8, 6), -0.5, 1.5, 4), [11, 8, 5, 2])


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([(0, 1)], (0, 1)),
        ([(NAN, 1, 2), (NAN, 1, 2)], (NAN, 1, 2)),
        ([(0, 2), (1, 3)], (0.5, 2.5)),
        ([(0, 2), (1, 3), (0, 2), (1, 3), (1, 3)], (0.5, 2.5)),
        ([(0, 2), (0, 1)], None),
        ([(0, 2), (0, 1), (0, 2)], None),
        ([(0, 1, 2), (2, 0, 1), (0, 1, 2)], (0, 1, 2)),
        ([(2, 0, 1), (0, 1, 2)], (0, 1, 2)),
        ([(2, 0, 1), (0, 1, 2), (2, 3, 4)], (1, 2, 3)),
        ([(0, 0, 1), (1, 1, 2)], (0.5, 0.5, 1.5)),
        ([(0, 0, 1), (0, 1, 1)], None),
        ([(NAN, 0, 0), (0, 0, NAN)], None),
        ([(NAN, NAN), (0, 0)], None),
    ],
)
def test_agreed(vectors: list[tuple[float, ...]], expected: tuple[float, ...] | None) -> None:
    found = agreed([vector(*each) for each in vectors])
    assert (found is None) == (expected is None)
    if found is not None:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("old", "new", "near", "expected"),
    [
        ((2, 3, 4), (2, 12), (0, 0, 0), [((0,), (0,)), ((1, 2), (1,))]),
        ((6, 4), (2, 3, 4), (0, 0), [((0,), (0, 1)), ((1,), (2,))]),
        ((4, 6), (6, 4), (0, 0), [((0, 1), (0, 1))]),
        ((1, 5, 1), (1, 5, 1), (0, 0, 0), [((0,), (0,)), ((1,), (1,)), ((2,), (2,))]),
        ((1, 5), (5,), (0, 0), [((0, 1), (0,))]),
        ((5, 1, 1), (5,), (0, 0, 0), [((0, 1, 2), (0,))]),
        # A dim of one entry goes to the map, or else to what is behind it.
        ((3, 1, 4), (3, 4), (0, 0, 0), [((0,), (0,)), ((1, 2), (1,))]),
        ((3, 1, 4), (3, 4), (1, 0, 0), [((0, 1), (0,)), ((2,), (1,))]),
        ((3, 4), (3, 1, 4), (0, 0), [((0,), (0,)), ((1,), (1, 2))]),
        ((3, 4), (3, 1, 4), (1, 0), [((0,), (0, 1)), ((1,), (2,))]),
        ((1, 1), (1,), (0, 0), [((0, 1), (0,))]),
        ((), (1, 1), (), [((), (0, 1))]),
    ],
)
def test_view_runs(old: Any, new: Any, near: Any, expected: Any) -> None:
    assert [(tuple(a), tuple(b)) for a, b in view_runs(old, new, near)] == expected


@pytest.mark.parametrize("seed", range(20))
def test_views_of_sums_are_sums_where_they_can_be(seed: int) -> None:
    random = np.random.default_rng(seed)
    known = 0
    for _ in range(20):
        factors = random.choice([1, 2, 3], size=5)
        old, new = (
            tuple(np.multiply.reduceat(factors, np.unique([0, *random.integers(0, 5, 3)])).tolist())
            for _ in range(2)
        )
        line = tuple(
            None if random.random() < 0.4 else random.integers(0, 2, n) + float(random.integers(3))
            for n in old
        )
        places = Places(line, (None,) * len(old), (None,) * len(old))
        found = viewed(places, old, new).rows
        wanted = added_up(line, old).reshape(new).numpy()
        if any(own is not None for own in found):
            known += 1
            np.testing.assert_array_equal(added_up(found, new).numpy(), wanted)
        else:
            mixed = [np.diff(np.diff(wanted, axis=a), axis=b) for a in range(len(new)) for b in range(a)]
            assert all(own is None for own in line) or any(each.any() for each in mixed)
    assert known > 5
