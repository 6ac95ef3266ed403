"""Batches that the device's memory does not hold; tests/test_cuda.py fills a GPU's for real."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from erfattr import ERF, DeadPixelMap, FeatureUnit, ModelOutput, SensitivityMaps

# How many images each call had; not of the model, since a copy of it runs.
SEEN: list[int] = []


class Narrow(nn.Module):
    """A network for which so many images are too many."""

    def __init__(self, holds: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
        self.holds = holds

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        SEEN.append(len(x))
        if len(x) > self.holds:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        y: Tensor = self.body(x)
        return y.flatten(1) if shift is None else y.flatten(1) + shift[:, None]


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(20, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_a_batch_is_run_in_parts_and_later_ones_in_parts_at_once(batch: Tensor) -> None:
    sources = [FeatureUnit("body.0"), ModelOutput("label")]
    labels = torch.arange(20) % 7
    expected = SensitivityMaps(Narrow(100), sources).attribute([(batch, labels), (batch, labels)])
    model = Narrow(6)
    SEEN.clear()
    with pytest.warns(UserWarning, match=r"does not hold 20 images; they are run 5 at a time"):
        found = SensitivityMaps(model, sources).attribute([(batch, labels), (batch, labels)])
    for mine, its in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.mean, its.mean)
        torch.testing.assert_close(mine.group_means, its.group_means)
        assert mine.group_sizes == its.group_sizes
    # One image shows the layers; then 20 and 10 fail.
    assert [count for count in SEEN if count > 1] == [20, 10] + 8 * [5]


def test_one_image_too_large_is_refused(batch: Tensor) -> None:
    model = Narrow(1)
    DeadPixelMap(model)
    model.holds = 0
    with pytest.raises((ValueError, torch.cuda.OutOfMemoryError)):
        ERF(model, "body.0").attribute(batch)

    class First(Narrow):
        def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
            if torch.is_grad_enabled():  # the look at the layers needs less
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x, shift)

    with pytest.raises(ValueError, match=r"does not hold one image of shape \(3, 12, 12\); give smaller"):
        DeadPixelMap(First(100)).attribute(batch)


def test_images_with_further_arguments_are_not_parted(batch: Tensor) -> None:
    with pytest.raises(ValueError, match=r"does not hold 20 images .* are not parted"):
        DeadPixelMap(Narrow(19)).attribute(batch, additional_forward_args=torch.zeros(20))
