"""Layouts of outputs: known ones, and random networks against where their units really lie."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def merged_by_slices(x: Tensor) -> Tensor:
    return torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], 3)


def merged_by_view(x: Tensor) -> Tensor:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)


def attend(x: Tensor, heads: int = 2) -> Tensor:
    """Attention of tokens, (N, L, C), written out."""
    n, length, c = x.shape
    q, k, v = torch.cat([x, x, x], 2).reshape(n, length, 3, heads, c // heads).permute(2, 0, 3, 1, 4).unbind(0)
    return ((q @ k.transpose(2, 3) / 2).softmax(3) @ v).transpose(1, 2).reshape(n, length, c)


def attend_fused(x: Tensor, heads: int = 2) -> Tensor:
    q = x.unflatten(2, (heads, -1)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)
