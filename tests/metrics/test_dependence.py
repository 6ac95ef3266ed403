from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from erfattr import DeadPixelMap
from erfattr.metrics.dependence import DependentImagesWarning, dependence
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics


def statistics(maps: Tensor, groups: int = 16) -> MapStatistics:
    streaming = StreamingStatistics(groups)
    streaming.update(maps)
    return streaming.result()


def independent(images: int, seed: int, side: int = 24) -> Tensor:
    """Skewed maps whose neighbouring pixels are alike."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, 1, side + 2, side + 2, generator=generator, dtype=torch.float64)
    return (3 * nn.functional.avg_pool2d(noise, 3, 1)[:, 0]).exp()


@pytest.mark.parametrize("side", [2, 24])
def test_independent_images_give_no_warning(side: int) -> None:
    found = [dependence(statistics(independent(64, seed, side))) for seed in range(60)]
    warned = sum(bool(one.warning) for one in found if one is not None)
    # Of four pixels few numbers are left to tell by: one map in some hundreds is taken for dependent.
    assert warned <= (2 if side == 2 else 0)
    if side == 24:
        assert all(one.correlation < 0.1 and 0.9 < one.spread < 1.1 for one in found if one is not None)


@pytest.mark.parametrize("copies", [2, 4])
def test_images_that_come_several_times_in_a_row_show(copies: int) -> None:
    found = dependence(statistics(independent(32, 0).repeat_interleave(copies, 0)))
    assert found is not None
    assert found.correlation > 0.3
    assert found.chance < 0.002
    assert "images that follow each other are alike" in found.warning


def test_copies_that_lie_apart_show() -> None:
    """Image k is a copy of image k modulo 8: groups k and k + 8 of 16 have the same."""
    maps = independent(8, 0).repeat(8, 1, 1)
    found = dependence(statistics(maps * (1 + 0.2 * torch.rand_like(maps))))
    assert found is not None
    assert found.apart == 8
    assert "images 8 apart in their order are alike" in found.warning


def test_frames_that_change_slowly_show() -> None:
    maps = independent(24, 0).repeat_interleave(4, 0)
    found = dependence(statistics(maps * (1 + 0.3 * torch.rand_like(maps))))
    assert found is not None
    assert found.warning


def test_groups_of_the_same_images_show() -> None:
    within = dependence(statistics(independent(16, 0).repeat(8, 1, 1), groups=8))
    assert within is not None
    assert within.spread > 4
    assert "images of a group are alike" in within.warning
    repeated = dependence(statistics(independent(25, 0).repeat(16, 1, 1)))
    assert repeated is not None
    assert repeated.spread < 1e-9
    assert "groups of images are nearly equal" in repeated.warning


def test_nothing_is_said_where_nothing_scatters_or_groups_are_few() -> None:
    assert dependence(statistics(torch.ones(64, 4, 4))) is None
    assert dependence(statistics(independent(64, 0), groups=4)) is None
    assert dependence(statistics(independent(16, 0))) is None


def test_a_map_of_dependent_images_warns_and_group_mends_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    scenes = torch.randn(40, 3, 16, 16)
    frames = scenes.repeat_interleave(8, 0)
    labels = torch.arange(40).repeat_interleave(8)
    with pytest.warns(DependentImagesWarning, match="standard errors are too small; name what belongs"):
        _, alone = DeadPixelMap(model).attribute(frames.split(32), return_statistics=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, grouped = DeadPixelMap(model).attribute(frames.split(32), return_statistics=True, group=labels)
        _, single = DeadPixelMap(model).attribute(scenes.split(32), return_statistics=True)
    torch.testing.assert_close(grouped.mean, single.mean)
    wanted = float(single.standard_error.mean())
    # Eight copies tell nothing that one does not tell.
    assert float(alone.standard_error.mean()) < 0.5 * wanted
    assert float(grouped.standard_error.mean()) == pytest.approx(wanted, rel=0.3)
    assert sum(grouped.group_sizes) == 320
