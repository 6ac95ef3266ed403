"""Padded kernels: the outputs of the original at every input size, then trainable, and whole as a module."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from erfattr import ERF, Execution, pad_kernels, theoretical_receptive_field
from erfattr.execution import prepared
from erfattr.metrics.sizes import centroid
from erfattr.models.demo import DemoNet
from erfattr.receptive_field.trace import trace_layers
from erfattr.remedies.kernel_padding import PaddedConv2d

MODES = ("zeros", "reflect", "replicate", "circular")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def error(padded: nn.Module, model: nn.Module, image: Tensor) -> float:
    """Largest difference of the outputs over the largest output."""
    with torch.no_grad():
        found, expected = padded(image), model(image)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def strided(*options: Any, **more: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(*options, **more).double()


# --- closed form ---


@pytest.mark.parametrize(("kernel", "grown"), [(1, 2), (3, 4), (5, 6), (7, 8)])
def test_odd_kernel_grows_by_zeros_at_the_bottom_and_right(kernel: int, grown: int) -> None:
    model = strided(3, 4, kernel, stride=2)
    weight = pad_kernels(model).weight
    assert weight.shape == (4, 3, grown, grown)
    assert torch.equal(weight[..., :kernel, :kernel], model.weight)
    assert not weight[..., kernel:, :].any()
    assert not weight[..., :, kernel:].any()


def test_each_axis_grows_by_what_its_own_stride_lacks() -> None:
    def grown(kernel: tuple[int, int], stride: tuple[int, int], **options: bool) -> tuple[int, ...]:
        return tuple(pad_kernels(nn.Conv2d(1, 1, kernel, stride), **options).weight.shape[2:])

    assert grown((3, 5), (2, 1)) == (4, 5)
    assert grown((3, 4), (2, 2)) == (4, 4)
    assert grown((4, 7), (3, 2)) == (4, 8)
    assert grown((4, 7), (3, 2), any_stride=True) == (6, 8)
    assert grown((7, 11), (4, 4), any_stride=True) == (8, 12)
    assert grown((7, 11), (4, 4)) == (7, 11)


def test_padded_kernel_of_ones_reads_every_pixel_equally_often() -> None:
    def reads(model: nn.Conv2d) -> Tensor:
        nn.init.ones_(model.weight)
        image = torch.zeros(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(model(image).sum(), image)[0][0, 0]

    model = strided(1, 1, 3, stride=2, padding=1)
    assert reads(model)[4:6, 4:6].tolist() == [[1, 2], [2, 4]]
    assert reads(pad_kernels(model))[1:-1, 1:-1].unique().tolist() == [4]


# --- the original is the oracle: outputs are equal at every input size ---


@settings(max_examples=100)
@given(st.data())
def test_padded_convolution_has_the_outputs_of_the_original(data: st.DataObject) -> None:
    def two(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride, dilation, padding = two(1, 5), two(1, 4), two(1, 3), two(0, 3)
    groups = data.draw(st.sampled_from([1, 2, 4]))
    options = {
        "padding": data.draw(st.sampled_from([padding, "valid"])),
        "padding_mode": data.draw(st.sampled_from(MODES)),
        "bias": data.draw(st.booleans()),
    }
    model = strided(4, 8, kernel, stride, dilation=dilation, groups=groups, **options)
    image = noise(*data.draw(st.sampled_from([(4,), (2, 4)])), *two(1, 16))
    try:
        expected = model(image)
    except RuntimeError:  # the image is too small for the original
        assume(False)
    padded = pad_kernels(model, any_stride=True)
    assert all(k % s == 0 for k, s in zip(padded.weight.shape[2:], stride, strict=True))
    torch.testing.assert_close(padded(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_image_as_small_as_the_original_takes_it(mode: str) -> None:
    # One row of a reflection or a wrapping more than the padding has would not exist.
    model = strided(1, 1, 3, stride=2, padding=2, padding_mode=mode)
    image = noise(1, 1, 3, 2 if mode == "circular" else 3)
    torch.testing.assert_close(pad_kernels(model)(image), model(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dilation", [1, 2])
def test_new_weights_read_zeros_or_the_last_padded_row_and_column(mode: str, dilation: int) -> None:
    model = pad_kernels(
        strided(2, 3, 3, stride=2, padding=2, dilation=dilation, padding_mode=mode, bias=False)
    )
    nn.init.normal_(model.weight)
    image = noise(1, 2, 7, 9)
    extended = nn.functional.pad(image, (2, 2, 2, 2), mode="constant" if mode == "zeros" else mode)
    for _ in range(dilation):
        row = extended[:, :, -1:]
        extended = torch.cat([extended, torch.zeros_like(row) if mode == "zeros" else row], dim=2)
        column = extended[..., -1:]
        extended = torch.cat([extended, torch.zeros_like(column) if mode == "zeros" else column], dim=3)
    expected = nn.functional.conv2d(extended, model.weight, stride=2, dilation=dilation)
    torch.testing.assert_close(model(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_outputs_stay_finite_when_the_new_weights_are_trained(mode: str) -> None:
    model = pad_kernels(strided(2, 2, 3, stride=2, padding=1, padding_mode=mode))
    nn.init.ones_(model.weight)
    image = noise(1, 2, 7, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(model(image).square().sum(), image)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().min() > 0


def torchvision_model(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options)


SMALL_MODELS = {
    "resnet18": lambda: torchvision_model("resnet18"),
    "mobilenet_v3_small": lambda: torchvision_model("mobilenet_v3_small"),
    "timm's Conv2dSame": lambda: timm.create_model("tf_mobilenetv3_small_minimal_100"),
}
ZOO = (
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "mobilenet_v2",
    "mobilenet_v3_large", "efficientnet_b0", "regnet_y_400mf", "regnet_x_400mf", "googlenet", "convnext_tiny",
    "shufflenet_v2_x1_0", "squeezenet1_0", "mnasnet1_0", "alexnet", "vgg11",
)  # fmt: skip
TIMM_ZOO = (
    "tf_efficientnet_b0", "tf_mixnet_s", "resnet50d", "resnetblur50", "resnetaa50", "seresnet50",
    "res2net50_14w_8s", "dla34", "hrnet_w18_small", "repvgg_a0", "ghostnet_100", "xception41", "dpn68",
    "skresnet18", "mobilenetv4_conv_small", "convnextv2_atto", "vit_tiny_patch16_224", "efficientformerv2_s0",
)  # fmt: skip


def check_zoo(model: nn.Module, sizes: list[tuple[int, int]]) -> None:
    """Compare at all sizes in both precisions; batch normalisations as they are after a little training."""
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 3, *sizes[0]))
    model.eval()
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        model = model.to(dtype)
        padded = pad_kernels(model)
        assert list(padded.state_dict()) == list(model.state_dict())
        for height, width in sizes:
            image = torch.randn(1, 3, height, width, dtype=dtype)
            assert error(padded, model, image) <= limit, (dtype, height, width)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_small_networks_have_the_outputs_of_the_original(name: str) -> None:
    check_zoo(SMALL_MODELS[name](), [(63, 64), (65, 66)])


EVEN_ONLY = ("dla34", "hrnet_w18_small", "vit_tiny_patch16_224", "efficientformerv2_s0")  # as they are, too
SIZES = [*itertools.product((63, 64, 65, 66), repeat=2), (224, 224), (225, 225), (224, 225), (225, 192)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_torchvision_networks_have_the_outputs_of_the_original(name: str) -> None:
    check_zoo(torchvision_model(name), SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM_ZOO)
def test_timm_networks_have_the_outputs_of_the_original(name: str) -> None:
    check_zoo(timm.create_model(name), [(224, 224)] if name in EVEN_ONLY else SIZES)


# --- what a widened pool computes: a loop over windows ---


def windows(length: int, kernel: int, grown: int, options: dict[str, Any]) -> list[list[int]]:
    """Indices that each window of the widened pool reads, inside the image or not."""
    pool = nn.MaxPool2d(
        kernel, **{key: options[key] for key in ("stride", "padding", "dilation", "ceil_mode")}
    )
    count = pool(torch.zeros(1, 1, length, length)).shape[-1]  # as many as of the original
    start = range(-options["padding"], count * options["stride"], options["stride"])
    return [[first + tap * options["dilation"] for tap in range(grown)] for first in start[:count]]


@settings(max_examples=60)
@given(st.data())
def test_widened_pool_reads_one_row_and_column_more(data: st.DataObject) -> None:
    kernel, stride = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    kind = data.draw(st.sampled_from(["max", "mean", "mean with padding"]))
    options = {
        "stride": stride,
        "padding": data.draw(st.integers(0, kernel // 2)),
        "ceil_mode": data.draw(st.booleans()),
    }
    dilation = data.draw(st.integers(1, 2)) if kind == "max" else 1
    size = data.draw(st.integers(dilation * (kernel - 1) + 1, 12))
    image = noise(1, 1, size, size)
    if kind == "max":
        model: nn.Module = nn.MaxPool2d(kernel, dilation=dilation, **options)
    else:
        model = nn.AvgPool2d(kernel, count_include_pad=kind != "mean", **options)
    grown = kernel + -kernel % stride
    assume(grown > kernel)  # otherwise nothing is widened
    read = windows(size, kernel, grown, {**options, "dilation": dilation})
    found = pad_kernels(model, pool="widen", any_stride=True)(image)[0, 0]
    pixels = image[0, 0].numpy()
    expected = np.zeros((len(read), len(read)))
    for (i, rows), (j, columns) in itertools.product(enumerate(read), repeat=2):
        inside = pixels[np.ix_([y for y in rows if 0 <= y < size], [x for x in columns if 0 <= x < size])]
        if kind == "max":
            expected[i, j] = inside.max()
        else:
            expected[i, j] = inside.sum() / (inside.size if kind == "mean" else grown**2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_pool_is_left_by_default_and_said_to_be_another_function_when_widened() -> None:
    model = nn.Sequential(nn.MaxPool2d(3, 2, 1))
    _, kept = pad_kernels(model, return_changes=True)
    assert kept.describe() == (
        '0  3x3 max pool, stride 2, left: a wider pool is another function; pool="widen" widens it'
    )
    _, widened = pad_kernels(model, pool="widen", return_changes=True)
    assert widened.describe() == (
        "0  3x3 max pool, stride 2 -> 4x4 max pool, stride 2: another function than before"
    )


# --- state dict, idempotence, sharing ---


def test_state_dict_of_the_original_and_of_the_copy_can_be_loaded(resnet: DemoNet, images: Tensor) -> None:
    resnet.eval()
    padded = pad_kernels(DemoNet(10).double()).eval()
    state = resnet.state_dict()
    assert list(padded.state_dict()) == list(state)
    padded.load_state_dict(state)
    assert error(padded, resnet, images) <= 1e-12
    assert state["conv1.weight"].shape[2:] == (7, 7)
    with torch.no_grad():
        padded.conv1.weight.add_(1)
    again = pad_kernels(resnet)
    again.load_state_dict(padded.state_dict())
    assert torch.equal(again.conv1.weight, padded.conv1.weight)
    with pytest.raises(RuntimeError, match=r"size mismatch for weight: .*\[4, 3, 5, 5\]"):
        pad_kernels(nn.Conv2d(3, 4, 3, 2)).load_state_dict(nn.Conv2d(3, 4, 5, 2).state_dict())


def test_padding_twice_is_padding_once(resnet: DemoNet, images: Tensor) -> None:
    padded = pad_kernels(resnet.eval(), pool="widen")
    again, changes = pad_kernels(padded, pool="widen", return_changes=True)
    assert changes.changed == ()
    assert torch.equal(again(images), padded(images))
    assert str(again) == str(padded)


def test_axis_can_be_padded_later() -> None:
    model = strided(2, 2, 3, stride=(2, 4), padding=1)
    both = pad_kernels(pad_kernels(model), any_stride=True)
    assert both.weight.shape[2:] == (4, 4)
    image = noise(1, 2, 9, 10)
    torch.testing.assert_close(both(image), model(image), rtol=1e-12, atol=1e-12)
    both.load_state_dict(model.state_dict())


def test_layer_in_two_places_is_padded_once_and_stays_one_layer() -> None:
    layer = strided(2, 2, 3, stride=2, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    padded, changes = pad_kernels(model, return_changes=True)
    assert changes.changed == ("0",)
    assert padded[0] is padded[2]
    assert error(padded, model, noise(1, 2, 13, 14)) <= 1e-12


def test_shared_weight_stays_shared() -> None:
    model = nn.Sequential(strided(2, 2, 3, 2, bias=False), strided(2, 2, 3, 2, bias=False))
    model[1].weight = model[0].weight
    padded = pad_kernels(model)
    assert padded[0].weight is padded[1].weight
    assert error(padded, model, noise(1, 2, 13, 14)) <= 1e-12


def test_weight_shared_with_a_layer_that_is_not_padded_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3, 2), nn.Conv2d(2, 2, 3))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="'0': it shares its weight with '1', which is not padded alike"):
        pad_kernels(model)
    model[1] = nn.Conv2d(2, 2, 3, 2)
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="'1': it shares its weight with '0'"):
        pad_kernels(model, skip=["0"])


# --- everything else of the layer is kept ---


def test_settings_of_the_layer_are_kept() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, 2, dtype=torch.bfloat16)).to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    model[0].eval()
    padded = pad_kernels(model)[0]
    assert padded.weight.dtype == torch.bfloat16
    assert padded.weight.is_contiguous(memory_format=torch.channels_last)
    assert not padded.weight.requires_grad
    assert padded.bias.requires_grad
    assert not padded.training
    assert isinstance(padded, PaddedConv2d)
    assert pad_kernels(nn.Conv2d(2, 3, 3, 2, device="meta")).weight.is_meta


def test_hooks_see_what_they_saw() -> None:
    seen: list[tuple[int, ...]] = []
    model = strided(2, 3, 3, 2)
    model.register_forward_hook(lambda _, args, output: seen.append((*args[0].shape, *output.shape)))
    pad_kernels(model)(noise(1, 2, 8, 8))
    assert seen == [(1, 2, 8, 8, 1, 3, 3, 3)]


def test_new_weights_are_trained() -> None:
    model = pad_kernels(strided(2, 3, 3, 2))
    torch.optim.SGD(model.parameters(), lr=0.1).zero_grad()
    model(noise(1, 2, 8, 8)).square().sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad[..., 3, :].abs().min() > 0


def test_reset_parameters_draws_the_whole_kernel() -> None:
    model = pad_kernels(nn.Conv2d(2, 3, 3, 2))
    torch.manual_seed(3)
    model.reset_parameters()
    torch.manual_seed(3)
    assert torch.equal(model.weight, nn.Conv2d(2, 3, 4, 2).weight)


def test_layers_named_in_skip_are_left(resnet: DemoNet) -> None:
    padded, changes = pad_kernels(resnet, skip=("conv1",), return_changes=True)
    assert padded.conv1.kernel_size == (7, 7)
    assert changes.layers[0].note == "named in skip"
    assert len(changes.changed) == 6


def test_other_layers_are_left_and_the_record_says_why() -> None:
    model = nn.ModuleList(
        [
            nn.Conv1d(1, 1, 3, 2), nn.ConvTranspose2d(1, 1, 3, 2), nn.Conv3d(1, 1, 3, 2),
            nn.Conv2d(1, 1, 4, 4), nn.Conv2d(1, 1, 3, 1), nn.Conv2d(1, 1, 7, 4), nn.MaxPool2d(2),
        ]
    )  # fmt: skip
    _, changes = pad_kernels(model, return_changes=True)
    assert changes.left == ("0", "1", "2", "3", "5", "6")
    flat = "only two-dimensional convolutions and pools are padded"
    whole = "its kernel is a multiple of its stride"
    assert [layer.note for layer in changes.layers] == [flat, flat, flat, whole, "its stride is not 2", whole]
    assert pad_kernels(nn.ReLU(), return_changes=True)[1].describe() == (
        "no layer makes a map smaller: nothing to change"
    )


# --- the copy is a module like any other ---


class Strided(nn.Module):
    """Every padding mode, and a widened pool of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 3, 3, stride=(2, 1), padding=1, padding_mode=mode) for mode in MODES[:2]),
            *(nn.Conv2d(3, 3, 3, stride=(1, 2), padding=1, padding_mode=mode) for mode in MODES[2:]),
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


@pytest.fixture
def trained() -> nn.Module:
    """A padded network whose new weights are not zero."""
    torch.manual_seed(0)
    model = pad_kernels(Strided().double(), pool="widen")
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def test_copied_saved_and_traced(trained: nn.Module) -> None:
    file = io.BytesIO()
    torch.save(trained, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    traced = torch.fx.symbolic_trace(trained)
    for size in ((33, 34), (36, 35)):
        image = noise(2, 3, *size)
        expected = trained(image)
        for other in (copy.deepcopy(trained), loaded, traced):
            torch.testing.assert_close(other(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_compiled(trained: nn.Module) -> None:
    compiled = torch.compile(trained, fullgraph=True, backend="aot_eager")
    for size in ((33, 34), (36, 35), (41, 41)):
        image = noise(2, 3, *size)
        torch.testing.assert_close(compiled(image), trained(image), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_padding_a_compiled_model() -> None:
    model = nn.Sequential(strided(3, 2, 3, 2))
    compiled = torch.compile(model, backend="eager")
    image = noise(2, 3, 9, 9)
    expected = compiled(image)
    torch.testing.assert_close(pad_kernels(compiled)(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_exported_to_onnx(trained: nn.Module, tmp_path: Any) -> None:
    import onnxruntime

    trained = trained.float()
    image = torch.randn(2, 3, 41, 42)
    sizes = {"x": {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}}
    path = str(tmp_path / "model.onnx")
    torch.onnx.export(trained, (image,), path, dynamo=True, dynamic_shapes=sizes, verbose=False)
    session = onnxruntime.InferenceSession(path)
    for size in ((41, 42), (36, 35)):
        image = torch.randn(2, 3, *size)
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), trained(image), rtol=1e-4, atol=1e-5)


def test_maps_of_the_copy_are_the_same_however_it_is_run(resnet: DemoNet) -> None:
    padded = pad_kernels(resnet, pool="widen")
    for name in ("conv1", "layer2.0.conv1", "layer2.0.downsample.0"):
        nn.init.normal_(padded.get_submodule(name).weight, std=0.05)
    images = noise(2, 3, 160, 160)
    quick = ERF(padded, "layer2").attribute([images])
    plain = ERF(padded, "layer2", execution=Execution.plain()).attribute(images)
    torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-12)
    _, done = prepared(
        padded, Execution(channels_last=False), folds=trace_layers(padded, {}, (160, 160), 3).folds
    )
    assert done == ("20 batch normalisations folded",)


# --- alignment ---


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """Draw every convolution anew, new taps and all."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_units_of_a_resnet_are_centred_on_the_image_once_all_kernels_are_even(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None)
    padded = pad_kernels(model)
    widened = pad_kernels(model, pool="widen")
    centers = [
        theoretical_receptive_field(each, "layer4").center((3, 3)) for each in (model, padded, widened)
    ]
    # Half a pixel for each even kernel, times the stride before it: 0.5 + 1 (the pool) + 2 + 4 + 8.
    assert centers == [(96.0, 96.0), (110.5, 110.5), (111.5, 111.5)]
    symmetric = theoretical_receptive_field(widened, "layer4")
    assert symmetric.center((0, 0)) == (15.5, 15.5)
    assert symmetric.center((6, 6)) == (207.5, 207.5)  # as far from the other border


def test_zeros_alone_move_no_effective_receptive_field(resnet: DemoNet) -> None:
    images = noise(1, 3, 128, 128)
    plain = ERF(resnet, "layer4").attribute(images)
    padded = ERF(pad_kernels(resnet), "layer4").attribute(images)
    torch.testing.assert_close(padded, plain, rtol=1e-9, atol=1e-15)


def test_strided_layers_of_a_resnet_have_their_centroid_on_pixel_96_and_padded_ones_on_the_image_centre() -> (
    None
):
    # With kernels of ones a map is symmetric about the centre of its unit; alone, these layers see 67 pixels.
    layers = [nn.Conv2d(1, 1, 3, 2, 1, bias=False) for _ in range(3)]
    model = nn.Sequential(nn.Conv2d(1, 1, 7, 2, 3, bias=False), nn.AvgPool2d(3, 2, 1), *layers).double()
    images = noise(1, 1, 224, 224)
    for each, expected in ((model, 96), (pad_kernels(model, pool="widen"), 111.5)):
        for parameter in each.parameters():
            nn.init.ones_(parameter)
        found = centroid(ERF(each, each[-1], unit=(3, 3)).attribute(images))
        np.testing.assert_allclose(found, (expected, expected), rtol=1e-9)


@pytest.mark.slow
def test_fresh_padded_network_is_centred_on_the_image() -> None:
    images = noise(3, 3, 224, 224).float()
    before, after = [], []
    for seed in range(4):
        model = fresh(DemoNet(10), seed)
        padded = fresh(pad_kernels(model, pool="widen"), seed)
        before.append(centroid(ERF(model, "layer4").attribute(images)))
        after.append(centroid(ERF(padded, "layer4").attribute(images)))
    # From seed to seed a centroid moves by 1.2 pixels along each axis, so the mean of these 8 by 0.4.
    assert np.mean(after) == pytest.approx(111.5, abs=1.5)
    # The border cuts the original's envelope, which pulls its centroid from 96 to 100.
    assert np.mean(before) < 103


# --- errors ---


class OwnConvolution(nn.Conv2d):
    """With a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


def pruned() -> nn.Module:
    layer = nn.Conv2d(2, 2, 3, 2)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: OwnConvolution(2, 2, 3, 2), "a OwnConvolution, a convolution of its own kind"),
        (lambda: timm.layers.StdConv2d(2, 2, 3, 2), "a StdConv2d, a convolution of its own kind"),
        (lambda: parametrizations.weight_norm(nn.Conv2d(2, 2, 3, 2)), "its weight is computed from others"),
        (lambda: nn.utils.weight_norm(nn.Conv2d(2, 2, 3, 2)), "its weight is computed from others"),
        (lambda: nn.utils.spectral_norm(nn.Conv2d(2, 2, 3, 2)), "its weight is computed from others"),
        (lambda: parametrizations.spectral_norm(nn.Conv2d(2, 2, 3, 2)), "its weight is computed from others"),
        (pruned, "its weight is computed from others"),
        (lambda: nn.LazyConv2d(2, 3, 2), "it has no weights yet; run the model once"),
    ],
)
def test_layer_that_cannot_be_padded_is_refused_by_name(build: Callable[[], nn.Module], reason: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3, 2), build())
    with pytest.raises(ValueError, match=f"model: '1': {reason}"):
        pad_kernels(model)


def test_layer_whose_forward_was_replaced_is_refused() -> None:
    layer = nn.Conv2d(2, 2, 3, 2)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="model: '0': a Conv2d, a convolution of its own kind"):
        pad_kernels(nn.Sequential(layer))


def test_layer_that_cannot_be_padded_can_be_skipped() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3, 2), OwnConvolution(2, 2, 3, 2))
    assert pad_kernels(model, skip=["1"])[0].kernel_size == (4, 4)
    assert pad_kernels(model, skip=["1"])[1].kernel_size == (3, 3)


def test_all_refused_layers_are_named() -> None:
    model = nn.Sequential(OwnConvolution(2, 2, 3, 2), nn.ReLU(), OwnConvolution(2, 2, 3, 2))
    with pytest.raises(ValueError, match=r"'0': .*; '2': .*\. Layers named in skip are left"):
        pad_kernels(model)


def test_weight_norm_can_be_put_on_again_afterwards() -> None:
    model = parametrizations.weight_norm(strided(2, 3, 3, 2))
    image = noise(1, 2, 9, 9)
    expected = model(image)
    bare = nn.utils.parametrize.remove_parametrizations(model, "weight")
    padded = parametrizations.weight_norm(pad_kernels(bare))
    torch.testing.assert_close(padded(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (nn.MaxPool2d(3, 2, return_indices=True), "returns indices"),
        (nn.AvgPool2d(3, 2, divisor_override=2), "a divisor of its own"),
        (timm.layers.create_pool2d("max", 3, 2, padding="same"), "a MaxPool2dSame, a pool of its own kind"),
    ],
)
def test_pool_that_cannot_be_widened_is_refused_by_name(pool: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=f"'0': .*{reason}"):
        pad_kernels(nn.Sequential(pool), pool="widen")
    kept = pad_kernels(nn.Sequential(pool))[0]
    assert (type(kept), str(kept)) == (type(pool), str(pool))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pool": "wide"}, ValueError, "pool: expected one of 'keep', 'widen', got 'wide'"),
        ({"any_stride": 1}, TypeError, "any_stride: expected True or False, got 1"),
        ({"return_changes": None}, TypeError, "return_changes: expected True or False, got None"),
        ({"skip": "conv1"}, TypeError, "skip: expected a collection of layer names, got 'conv1'"),
        ({"skip": ["conv2"]}, ValueError, "skip: the DemoNet has no layer 'conv2'; nearest: 'conv1'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.replace("'conv1'", "'?conv1'?")):
        pad_kernels(DemoNet(), **arguments)


def test_model_is_checked() -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got 'resnet18'"):
        pad_kernels("resnet18")  # type: ignore[type-var]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_model_is_refused() -> None:
    with pytest.raises(ValueError, match="model: expected Python modules, got a scripted one"):
        pad_kernels(nn.Sequential(torch.jit.script(nn.Conv2d(1, 1, 3, 2))))


def test_model_that_cannot_be_copied_is_refused() -> None:
    model = nn.Conv2d(1, 1, 3, 2)
    model.cache = model.weight * 2  # no leaf, so it has no copy
    with pytest.raises(ValueError, match="model: expected a model that can be copied, but"):
        pad_kernels(model)


# --- caller untouched ---


def test_caller_keeps_the_model(
    resnet: DemoNet,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    before, lines = snapshot(resnet), str(resnet)
    padded = pad_kernels(resnet, pool="widen")
    with torch.no_grad():
        for parameter in padded.parameters():
            parameter.zero_()
    assert_same(before, snapshot(resnet))
    assert str(resnet) == lines
