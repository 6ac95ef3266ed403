from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

from erfattr.attr.dead_pixel_map import DeadPixelMap
from erfattr.attr.erf import ERF
from erfattr.metrics.corrected_imbalance import corrected_imbalance
from erfattr.metrics.sizes import centroid
from erfattr.models.demo import DemoNet
from erfattr.training.pixel_use import PixelUse, measure_pixel_use


def ones(kernel: int, padding: int) -> nn.Sequential:
    """A convolution with stride 2 that sums its window, its mean over positions, and a batch of outputs."""
    layer = nn.Conv2d(3, 1, kernel, stride=2, padding=padding, bias=False, dtype=torch.float64)
    nn.init.ones_(layer.weight)
    return nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())


NOISE = torch.rand(16, 3, 12, 12, dtype=torch.float64)


def test_closed_form_of_an_odd_and_of_an_even_kernel() -> None:
    # Away from the border a 3x3 kernel's map repeats 1, 2, 2, 4: deviations from 9/4, relative to it.
    odd = measure_pixel_use(ones(3, 1), torch.rand(16, 3, 13, 13, dtype=torch.float64))
    assert odd.phase_contrast == pytest.approx(math.sqrt((25 + 1 + 1 + 49) / 4) / 9, rel=1e-9)
    assert odd.period == (2, 2)
    assert (odd.layer, odd.unit, odd.unit_center, odd.centroid) == ("0", (3, 3), (6.0, 6.0), (6.0, 6.0))
    assert odd.image_center == (6.0, 6.0)
    even = measure_pixel_use(ones(2, 0), NOISE)
    assert even.phase_contrast == pytest.approx(0, abs=1e-12)
    assert even.l1.value == pytest.approx(0, abs=1e-12)
    assert (even.unit, even.centroid, even.image_center) == ((3, 3), (6.5, 6.5), (5.5, 5.5))
    assert even.offset == (1.0, 1.0)


def test_numbers_are_the_ones_of_the_single_functions(resnet: DemoNet) -> None:
    images = torch.randn(16, 3, 96, 96, dtype=torch.float64)
    use = measure_pixel_use(resnet, images, batch_size=7)
    _, output = DeadPixelMap(resnet).attribute(images.split(7), "mean", return_statistics=True)
    unit = ERF(resnet, "layer4", (1, 1)).attribute(images.split(7))
    assert use.l1 == corrected_imbalance(output, 1)
    assert use.l2 == corrected_imbalance(output, 2)
    assert use.centroid == pytest.approx(centroid(unit), rel=1e-9)
    assert (use.layer, use.unit, use.unit_center) == ("layer4", (1, 1), (32.0, 32.0))
    assert (use.period, use.image_center, use.n_images) == ((32, 32), (47.5, 47.5), 16)


def test_it_goes_through_json(resnet: DemoNet) -> None:
    use = measure_pixel_use(ones(3, 1), NOISE)
    assert PixelUse.from_numbers(json.loads(json.dumps(asdict(use)))) == use


def test_images_of_fewer_than_three_strides_are_refused(resnet: DemoNet) -> None:
    with pytest.raises(ValueError, match="three strides of 32 x 32 pixels, got 64 x 64"):
        measure_pixel_use(resnet, torch.randn(16, 3, 64, 64, dtype=torch.float64))


def test_a_stride_between_pixels_is_refused() -> None:
    # Steps of two thirds of a pixel have no phases.
    enlarged = nn.Sequential(nn.Upsample(scale_factor=1.5), ones(3, 1))
    with pytest.raises(ValueError, match=r"model: expected a stride of whole pixels, got \(.*\) in 1\.0"):
        measure_pixel_use(enlarged, NOISE)


def test_bad_arguments(resnet: DemoNet) -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got"):
        measure_pixel_use(len, NOISE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"images: expected a tensor \(N, C, H, W\), got \[1\]"):
        measure_pixel_use(resnet, [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size: expected a positive integer, got 0"):
        measure_pixel_use(resnet, NOISE, batch_size=0)


def test_the_model_comes_back_as_it_was(
    resnet: DemoNet,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    images: Tensor = torch.randn(16, 3, 96, 96, dtype=torch.float64)
    before = snapshot(resnet)
    measure_pixel_use(resnet, images)
    assert_same(before, snapshot(resnet))
