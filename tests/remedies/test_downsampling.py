"""Blurred steps and averaged shortcuts against timm's and PyTorch's layers and composites written by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from erfattr import Execution, average_shortcuts, blur_downsampling, theoretical_receptive_field
from erfattr.execution import prepared
from erfattr.models.demo import DemoNet
from erfattr.receptive_field.trace import trace_layers
from erfattr.remedies.downsampling import binomial
from erfattr.remedies.downsampling import blurred as blurred_by


def blurred(maps: Tensor, size: int, stride: tuple[int, int]) -> Tensor:
    return blurred_by(maps, binomial(size, stride), stride)


REMEDIES = (blur_downsampling, average_shortcuts)


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


def test_average_shortcut_is_the_1x1_convolution_of_the_mean() -> None:
    model = nn.Conv2d(3, 5, 1, stride=2).double()
    image = noise(2, 3, 6, 8)
    means = image.reshape(2, 3, 3, 2, 4, 2).mean(dim=(3, 5))
    expected = torch.einsum("nchw,kc->nkhw", means, model.weight[..., 0, 0]) + model.bias[:, None, None]
    torch.testing.assert_close(average_shortcuts(model)(image), expected, rtol=1e-12, atol=1e-12)


# --- independent oracle: timm's layers ---


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


@pytest.mark.parametrize("size", [(12, 12), (13, 12), (7, 9), (1, 1)])
def test_averaged_shortcut_is_timms(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    peer = timm.models.resnet.downsample_avg(4, 6, 1, stride=2).double().eval()
    model = nn.Conv2d(4, 6, 1, stride=2, bias=False).double()
    model.load_state_dict({"weight": peer[1].weight})
    image = noise(2, 4, *size)
    torch.testing.assert_close(peer[2](average_shortcuts(model)(image)), peer(image), rtol=1e-12, atol=1e-12)


# --- invariance ---


@pytest.mark.parametrize("remedy", REMEDIES)
def test_constant_images_give_the_original_outputs_away_from_the_padding(
    remedy: Callable[..., nn.Module],
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 1, stride=2)).double()
    image = torch.ones(1, 3, 21, 21, dtype=torch.float64)
    torch.testing.assert_close(remedy(model)(image), model(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("size", [(1, 1), (33, 64), (63, 65), (64, 66)])
def test_feature_maps_keep_their_size_and_weights_their_names(
    remedy: Callable[..., nn.Module], size: tuple[int, int], resnet: DemoNet
) -> None:
    features = nn.Sequential(*list(resnet.eval().children())[:-2])
    changed = remedy(features)
    image = noise(1, 3, *size)
    assert changed(image).shape == features(image).shape
    changed.load_state_dict(features.state_dict())
    assert list(changed.state_dict()) == list(features.state_dict())


def test_filter_of_even_size_centres_units_as_an_even_kernel_does() -> None:
    model = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    centers = [
        theoretical_receptive_field(blur_downsampling(model, filter_size=size), input_size=16).center((3, 3))
        for size in (2, 3, 4, 5)
    ]
    assert centers == [(6.5, 6.5), (6.0, 6.0), (6.5, 6.5), (6.0, 6.0)]


@pytest.mark.parametrize("remedy", REMEDIES)
def test_changed_model_is_copied_saved_and_folded(
    remedy: Callable[..., nn.Module], resnet: DemoNet, images: Tensor
) -> None:
    changed = remedy(resnet).eval()
    expected = changed(images)
    torch.testing.assert_close(copy.deepcopy(changed)(images), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(changed)(images), expected)
    folds = trace_layers(changed, {}, (64, 64), 3).folds
    folded, done = prepared(changed, Execution(channels_last=False, crop=False), folds=folds)
    assert done == ("20 batch normalisations folded",)
    torch.testing.assert_close(folded(images), expected, rtol=1e-9, atol=1e-9)


# --- what is changed and what is left ---


def test_record_of_a_resnet(resnet: DemoNet) -> None:
    _, blur = blur_downsampling(resnet, filter_size=4, return_changes=True)
    assert len(blur.changed) == 8
    assert blur.left == ()
    assert blur.layers[1].after == "3x3 max pool, stride 1, then a blur of 4 taps"
    _, average = average_shortcuts(resnet, return_changes=True)
    assert average.changed == tuple(f"layer{stage}.0.downsample.0" for stage in (2, 3, 4))
    assert average.layers[3].after == "1x1 convolution, stride 1, of 2x2 means"
    assert average.layers[0].note == "not a 1x1 convolution"


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


def test_average_shortcuts_leaves_a_padded_1x1_convolution() -> None:
    _, record = average_shortcuts(nn.Sequential(nn.Conv2d(1, 1, 1, 2, padding=1)), return_changes=True)
    assert record.layers[0].note == "it pads"


# --- errors ---


class OwnConvolution(nn.Conv2d):
    pass


@pytest.mark.parametrize("remedy", REMEDIES)
def test_convolution_of_another_class_is_refused_by_name(remedy: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(nn.Identity(), OwnConvolution(1, 1, 1, stride=2))
    with pytest.raises(ValueError, match="'1': a OwnConvolution, a convolution of its own kind"):
        remedy(model)
    assert remedy(model, skip=["1"])[1].stride == (2, 2)


def test_pool_that_returns_indices_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'0': a MaxPool2d of its own kind or with indices"):
        blur_downsampling(nn.Sequential(nn.MaxPool2d(3, 2, return_indices=True)))


@pytest.mark.parametrize(("size", "error"), [(1, ValueError), (0, ValueError), (3.0, TypeError)])
def test_filter_size_is_checked(size: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="filter_size: expected"):
        blur_downsampling(nn.Conv2d(1, 1, 3), filter_size=size)  # type: ignore[call-overload]


@pytest.mark.parametrize("remedy", REMEDIES)
def test_arguments_are_checked(remedy: Callable[..., nn.Module]) -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got 1"):
        remedy(1)
    with pytest.raises(TypeError, match="return_changes: expected True or False, got 1"):
        remedy(nn.Identity(), return_changes=1)


# --- caller untouched ---


@pytest.mark.parametrize("remedy", REMEDIES)
def test_caller_keeps_the_model(
    remedy: Callable[..., nn.Module],
    resnet: DemoNet,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    before, lines = snapshot(resnet), str(resnet)
    changed = remedy(resnet)
    with torch.no_grad():
        changed.conv1.weight.zero_()
    assert_same(before, snapshot(resnet))
    assert str(resnet) == lines
