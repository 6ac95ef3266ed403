"""Values that choose: a probe with NaN sees a part, and says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erfattr import nan_probe, receptive_fields, theoretical_receptive_field


class Chosen(nn.Module):
    """A convolution, a function, a layer that hands on."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self.function = function
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.function(self.conv(x)))
        return result


def warped(y: Tensor) -> Tensor:
    grid = F.affine_grid(torch.eye(2, 3)[None].expand(len(y), -1, -1), list(y.shape), align_corners=False)
    return F.grid_sample(y, grid + 0.3 * y.permute(0, 2, 3, 1).tanh(), align_corners=False)


def in_order(y: Tensor) -> Tensor:
    indices = y.flatten(2).mean(1).topk(y[0, 0].numel(), 1).indices
    return y.flatten(2).gather(2, indices[:, None].expand(-1, y.shape[1], -1)).view_as(y)


def written(y: Tensor) -> Tensor:
    result = torch.zeros_like(y)
    result[:, :, ::2] = torch.where(y > 0, y, 0)[:, :, ::2]  # into a view
    return result


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (warped, "aten::grid_sampler_2d"),
        (in_order, "aten::topk"),
        (lambda y: torch.nan_to_num(torch.fft.fft2(y).abs()), "aten::nan_to_num"),
        (lambda y: y * 2 if y.sum() > 0 else y.roll(1, 2), "aten::_local_scalar_dense"),
        (lambda y: y.flatten(2).sort(2).values.view_as(y), "aten::sort"),
        (lambda y: torch.where(y > 0, y, 0), "aten::gt"),
        (lambda y: y * (y.flatten(2).argmax(2)[..., None, None] + 1), "aten::argmax"),
        (lambda y: y.masked_fill(y < 0, 0), "aten::lt"),
        (written, "aten::gt"),
    ],
)
def test_a_choice_makes_the_probe_a_lower_bound(function: Callable[[Tensor], Tensor], operator: str) -> None:
    model = Chosen(function)
    field = nan_probe(model, "last", (12, 12))
    assert field.status == "lower bound"
    assert field.note.startswith(f"values choose at {operator}, where NaN may end: more may be read")
    # What lies before the choice is not touched by it.
    assert nan_probe(model, "conv", (12, 12)).status == "exact"


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (lambda y: F.max_pool2d(y, 3, 1, 1), (5, 5)),
        (lambda y: y.clamp(0, 1).relu(), (3, 3)),
        (lambda y: F.unfold(y, 3, padding=1).view(1, 2, 9, 12, 12).median(2).values, (5, 5)),
        (lambda y: y * (torch.arange(12) > 3), (3, 3)),  # a choice, but not by the image
        (lambda y: F.hardswish(F.gelu(y)), (3, 3)),
    ],
)
def test_without_a_choice_it_stays_exact(function: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
    field = nan_probe(Chosen(function), "last", (12, 12))
    assert (field.status.replace("position-dependent", "exact"), field.size) == ("exact", size)


def test_a_branch_by_values_is_no_exact_field_in_the_trace_either() -> None:
    model = Chosen(lambda y: y * 2 if y.sum() > 0 else y.roll(1, 2))
    field = theoretical_receptive_field(model, "last", (12, 12))
    assert (field.status, field.method) == ("lower bound", "nan probe")
    fields = receptive_fields(model, (12, 12))
    assert fields["last"].status == "lower bound"
