"""Blurred steps against timm's blur and composites written by hand."""

from __future__ import annotations

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from erfattr import blur_downsampling, theoretical_receptive_field
from erfattr.models.demo import DemoNet
from erfattr.remedies.blur import binomial
from erfattr.remedies.blur import blurred as blurred_by


def blurred(maps: Tensor, size: int, stride: tuple[int, int]) -> Tensor:
    return blurred_by(maps, binomial(size, stride), stride)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- closed form ---


@pytest.mark.parametrize(("size", "taps"), [(2, [1, 1]), (3, [1, 2, 1]), (4, [1, 3, 3, 1])])
def test_blur_of_an_impulse_is_the_binomial_filter(size: int, taps: list[int]) -> None:
    impulse = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    impulse[0, 0, 4, 4] = 1
    line = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    # An output at i reads inputs from i - (size - 1) // 2 on, so input 4 is read by outputs up to 4 + that.
    first = 4 + (size - 1) // 2 - (size - 1)
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[first : first + size, first : first + size] = torch.outer(line, line)
    # Steps of 2 from 0 and from 1 together give all outputs.
    for start in (0, 1):
        found = blurred(impulse[..., start:, start:], size, (2, 2))[0, 0]
        torch.testing.assert_close(found, expected[start::2, start::2], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_blur_reads_every_pixel_of_the_interior_alike(size: int) -> None:
    image = torch.zeros(1, 1, 20, 20, dtype=torch.float64, requires_grad=True)
    (used,) = torch.autograd.grad(blurred(image, size, (2, 2)).sum(), image)
    torch.testing.assert_close(used[..., 6:-6, 6:-6], torch.full((1, 1, 8, 8), 0.25, dtype=torch.float64))


def test_blur_keeps_an_axis_without_a_step() -> None:
    image = noise(2, 3, 8, 9)
    rows = blurred(image, 3, (2, 1))
    padded = torch.cat([image[:, :, :1], image], dim=2)  # 8 rows: the one below the last is not read
    expected = (padded[:, :, 0:-1:2] + 2 * padded[:, :, 1::2] + image[:, :, 1::2]) / 4
    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-12)


# --- independent oracle ---


@pytest.mark.parametrize("size", [(12, 12), (13, 12), (7, 9), (2, 3)])
def test_blur_is_timms(size: tuple[int, int]) -> None:
    peer = timm.layers.BlurPool2d(4, filt_size=3, stride=2, pad_mode="replicate").double()
    image = noise(2, 4, *size)
    torch.testing.assert_close(blurred(image, 3, (2, 2)), peer(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"padding": 1, "groups": 3}, {"dilation": 2}])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("size", [(12, 12), (13, 14)])
def test_blurred_convolution_is_a_dense_one_and_then_timms_blur(
    kernel: int, options: dict[str, int], size: tuple[int, int]
) -> None:
    model = nn.Conv2d(3, 6, kernel, stride=2, **options).double()
    dense = nn.Conv2d(3, 6, kernel, **options).double()
    dense.load_state_dict(model.state_dict())
    blur = timm.layers.BlurPool2d(6, filt_size=3, stride=2, pad_mode="replicate").double()
    image = noise(2, 3, *size)
    torch.testing.assert_close(blur_downsampling(model)(image), blur(dense(image)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [(12, 12), (13, 14), (3, 4)])
def test_blurred_maximum_is_a_dense_one_and_then_timms_blur(
    ceil_mode: bool, padding: int, size: tuple[int, int]
) -> None:
    model = nn.MaxPool2d(3, stride=2, padding=padding, ceil_mode=ceil_mode)
    image = noise(2, 4, *size)
    found = blur_downsampling(model)(image)
    below = int(ceil_mode)  # rounding up: one row more of windows, which reach out of the image
    dense = nn.MaxPool2d(3, stride=1)(
        nn.functional.pad(image, (padding, padding + below) * 2, value=float("-inf"))
    )
    blur = timm.layers.BlurPool2d(4, filt_size=3, stride=2, pad_mode="replicate").double()
    torch.testing.assert_close(found, blur(dense), rtol=1e-12, atol=1e-12)
    assert found.shape == model(image).shape


# --- invariance ---


def test_filter_of_even_size_centres_units_as_an_even_kernel_does() -> None:
    model = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    centers = [
        theoretical_receptive_field(blur_downsampling(model, filter_size=size), input_size=16).center((3, 3))
        for size in (2, 3, 4, 5)
    ]
    assert centers == [(6.5, 6.5), (6.0, 6.0), (6.5, 6.5), (6.0, 6.0)]


# --- what is changed and what is left ---


def test_record_of_a_resnet(resnet: DemoNet) -> None:
    _, blur = blur_downsampling(resnet, filter_size=4, return_changes=True)
    assert len(blur.changed) == 8
    assert blur.left == ()
    assert blur.layers[1].after == "3x3 max pool, stride 1, then a blur of 4 taps"


def test_axes_and_layers_that_are_even_already_are_left() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, (3, 4), stride=2),
        nn.Conv2d(3, 3, 2, stride=2),
        nn.AvgPool2d(3, 2),
        nn.Conv1d(3, 3, 3, 2),
    )
    changed, record = blur_downsampling(model, return_changes=True)
    assert record.changed == ("0",)
    assert changed[0].stride == (1, 2)
    assert changed[0].blur_stride == (2, 1)
    assert [layer.note for layer in record.layers[1:]] == [
        "no axis has stride 2 and an odd kernel",
        "only two-dimensional convolutions and maxima are blurred",
        "only two-dimensional convolutions and maxima are blurred",
    ]


# --- errors ---


def test_pool_that_returns_indices_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'0': a MaxPool2d of its own kind or with indices"):
        blur_downsampling(nn.Sequential(nn.MaxPool2d(3, 2, return_indices=True)))


@pytest.mark.parametrize(("size", "error"), [(1, ValueError), (0, ValueError), (3.0, TypeError)])
def test_filter_size_is_checked(size: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="filter_size: expected"):
        blur_downsampling(nn.Conv2d(1, 1, 3), filter_size=size)  # type: ignore[call-overload]
