"""Small networks, and the comparison with the NaN probe, for the tests of receptive fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erfattr.receptive_field.field import ReceptiveField
from erfattr.receptive_field.nan_probe import nan_probe
from erfattr.receptive_field.trace import theoretical_receptive_field


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


def conv(i: int, o: int, k: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, **options)


def gate(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    y = first(x)
    return y * second(F.avg_pool2d(y, 12)).sigmoid()
