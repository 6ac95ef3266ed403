"""What a receptive field tells of its units, and the stride as a period."""

from __future__ import annotations

import itertools

import pytest
import torchvision
from torch import nn

from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields, theoretical_receptive_field


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


def test_one_padded_position() -> None:
    rf = theoretical_receptive_field(nn.Sequential(nn.Conv2d(3, 1, 1, padding=1)), input_size=2)
    assert rf.touched((0, 0)) == ((), ())
    assert rf.bounds((0, 0)) == (-1, -1, -1, -1)
    assert rf.bounds((0, 0), clipped=True) == (0, 0, -1, -1)


def test_unit_outside_the_map() -> None:
    rf = theoretical_receptive_field(nn.Conv2d(3, 1, 3), input_size=(8, 9))
    for ask in (rf.center, rf.bounds, rf.touched):
        with pytest.raises(ValueError, match=r"unit: expected a position in the 6 x 7 map, got \(6, 0\)"):
            ask((6, 0))
        with pytest.raises(ValueError, match=r"got \(0, -1\)"):
            ask((0, -1))
        with pytest.raises(TypeError, match=r'unit: expected \(row, column\) or "center", got 3'):
            ask(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (nn.Sequential(nn.Conv2d(3, 1, 3, stride=(2, 1)), nn.MaxPool2d(3, stride=2)), 32, (4, 2)),
        (nn.Sequential(nn.Conv2d(3, 1, 4, stride=4), nn.AdaptiveAvgPool2d(1)), 32, (4, 4)),
        (nn.AdaptiveAvgPool2d(1), 32, None),  # no positions
        (nn.Sequential(nn.Conv2d(3, 1, 3, stride=3), nn.Upsample(scale_factor=2)), 9, (3, 3)),  # 3 and 3 / 2
        (nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(4, 1, 3, stride=3)), 30, (6, 6)),
        (nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ConvTranspose2d(4, 1, 4, stride=4)), 32, (4, 4)),
        (nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.AdaptiveAvgPool2d(6)), 24, (4, 4)),
        (nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.AdaptiveAvgPool2d(8)), 24, (6, 6)),  # 2 and 3
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(7)), 32, None),  # 1 and 32 / 7
        (torchvision.models.get_model("lraspp_mobilenet_v3_large", weights_backbone=None), 64, (16, 16)),
    ],
)
def test_total_stride_is_the_least_common_multiple_on_the_way(
    model: nn.Module, size: int, expected: tuple[int, int] | None
) -> None:
    assert total_stride(receptive_fields(model, size, probe=False)) == expected


@pytest.mark.parametrize(
    ("model", "period"),
    [
        (nn.Conv2d(3, 1, 3, stride=(2, 3)), (2, 3)),
        (nn.AdaptiveAvgPool2d(1), (12, 10)),  # no positions: the step is the whole image
        (nn.AdaptiveAvgPool2d((8, 5)), None),  # 12 / 8 rows
        (nn.Upsample(scale_factor=2), None),  # half a pixel
    ],
)
def test_period_is_the_stride_in_whole_pixels(model: nn.Module, period: tuple[int, int] | None) -> None:
    field = theoretical_receptive_field(model, input_size=(12, 10))
    assert field.period == period
    assert period is None or all(type(step) is int for step in field.period)
