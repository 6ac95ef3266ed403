"""ERF: closed forms, eq. 1 to 3 written literally, Captum, central differences, batches, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from captum.attr import NeuronGradient
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from erfattr import (
    ERF,
    DeadPixelMap,
    Execution,
    estimate_phase_profile,
    from_channels_last,
    from_tokens,
    sample_images,
)
from erfattr.metrics.sizes import centroid


def ones_convolution(kernel: int, stride: int, padding: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, 1, kernel, stride, padding, bias=False)).double()
    nn.init.ones_(model[0].weight)
    return model


class Reused(nn.Module):
    """One module that runs twice; the last run counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.unused = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.conv.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(images)).mean((1, 2, 3))


def literal_erf(model: nn.Module, layer: nn.Module, unit: tuple[int, int], images: Tensor) -> Tensor:
    """Eq. 1 to 3 as the paper writes them, one image at a time."""
    features: list[Tensor] = []
    handle = layer.register_forward_hook(lambda m, a, output: features.append(output))
    total = torch.zeros(images.shape[2:], dtype=images.dtype)
    for index in range(len(images)):
        image = images[index : index + 1].clone().requires_grad_(True)
        features.clear()
        model(image)
        channels = features[-1].shape[1]
        averaged = sum(features[-1][0, k, unit[0], unit[1]] for k in range(channels)) / channels
        gradient = torch.autograd.grad(averaged, image)[0][0]
        total += torch.relu((gradient[0] + gradient[1] + gradient[2]) / 3)
    handle.remove()
    return total / len(images)


# --- closed forms


def test_erf_of_one_convolution_is_its_kernel() -> None:
    model = ones_convolution(3, 2, 1)
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[3:6, 1:4] = 1  # unit (2, 1) is centred on (4, 2)
    result = ERF(model, layer="0", unit=(2, 1)).attribute(torch.zeros(2, 1, 7, 7))
    assert torch.equal(result, expected)


def test_two_convolutions_give_the_triangle() -> None:
    model = nn.Sequential(ones_convolution(3, 1, 1), ones_convolution(3, 1, 1))
    result = ERF(model).attribute(torch.zeros(1, 1, 7, 7))
    row = torch.tensor([0, 1, 2, 3, 2, 1, 0], dtype=torch.float64)
    assert torch.equal(result, row[:, None] * row[None])


def test_channel_means_of_features_and_of_colours() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False)).double()
    weight = torch.tensor([[1.0, 2.0, 6.0], [3.0, 4.0, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        model[0].weight.copy_(weight[:, :, None, None])
    result = ERF(model, unit=(0, 1)).attribute(torch.zeros(1, 3, 2, 2))
    # F's gradient a colour is (2, 3, 2.5); their mean is 2.5.
    assert result.tolist() == [[0.0, 2.5], [0.0, 0.0]]


def test_rectify() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([2.0, -3.0, 1.0]))
    image = torch.zeros(1, 1, 1, 3)
    rows = {
        rectify: ERF(model, unit=(0, 1), rectify=rectify).attribute(image).tolist()[0]  # type: ignore[arg-type]
        for rectify in ("relu", "abs", "none")
    }
    assert rows == {"relu": [2.0, 0.0, 1.0], "abs": [2.0, 3.0, 1.0], "none": [2.0, -3.0, 1.0]}


# --- independent oracles


@pytest.mark.parametrize(("layer", "unit"), [("layer2", (3, 5)), ("layer3", (0, 2)), ("layer4", (1, 1))])
def test_equals_the_paper_written_literally(
    resnet: nn.Module, images: Tensor, layer: str, unit: tuple[int, int]
) -> None:
    expected = literal_erf(resnet.eval(), resnet.get_submodule(layer), unit, images)
    result = ERF(resnet, layer, unit).attribute(images)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


def test_raw_gradient_equals_captum(resnet: nn.Module, images: Tensor) -> None:
    resnet.eval()
    images = images[:2, :, :32, :32].clone().requires_grad_(True)  # Captum warns where it must set the flag
    captum = NeuronGradient(resnet, resnet.layer2)
    gradient = sum(captum.attribute(images, (k, 1, 2)) for k in range(32)) / 32
    expected = gradient.mean(1)
    result = ERF(resnet, resnet.layer2, (1, 2), rectify="none").attribute(images, reduction="none")
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_raw_gradient_equals_central_differences(images: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.Conv2d(4, 2, 3, 2, 1), nn.Sigmoid()
    ).double()
    image = images[:1, :, :8, :8]
    step = 1e-5
    expected = torch.zeros(8, 8, dtype=torch.float64)
    with torch.no_grad():
        for y in range(8):
            for x in range(8):
                for z in range(3):
                    offset = torch.zeros_like(image)
                    offset[0, z, y, x] = step
                    up, down = model(image + offset), model(image - offset)
                    expected[y, x] += (up - down)[0, :, 1, 0].mean() / (2 * step) / 3
    result = ERF(model, unit=(1, 0), rectify="none").attribute(image)
    # Central differences: error of order step^2 and of rounding / step, both about 1e-10 here.
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-9)


# --- invariance


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batch_size_does_not_matter(resnet: nn.Module, images: Tensor, batch: int) -> None:
    whole = ERF(resnet, "layer3").attribute(images)
    loader = DataLoader(TensorDataset(images), batch_size=batch)
    torch.testing.assert_close(ERF(resnet, "layer3").attribute(loader), whole, rtol=1e-12, atol=1e-18)


def test_kinds_of_batches_agree(resnet: nn.Module, images: Tensor) -> None:
    erf = ERF(resnet, "layer2")
    expected = erf.attribute(images)
    labels = torch.arange(5)
    for inputs in (
        [images],
        (images, labels),
        {"image": images, "label": labels},
        [{"pixel_values": images}],
        [(images, labels)],
        [[images, labels]],
        [images, labels],  # next(iter(DataLoader))
        images.split(5),
        iter([images]),
        DataLoader(TensorDataset(images, labels), batch_size=5),
    ):
        assert torch.equal(erf.attribute(inputs), expected)


def test_max_examples_cuts_a_batch(resnet: nn.Module, images: Tensor) -> None:
    erf = ERF(resnet, "layer2")
    result, statistics = erf.attribute([images[:2], images[2:]], max_examples=3, return_statistics=True)
    torch.testing.assert_close(result, erf.attribute(images[:3]), rtol=1e-12, atol=0)
    assert statistics.n_images == 3


def test_mean_of_single_maps(resnet: nn.Module, images: Tensor) -> None:
    erf = ERF(resnet, "layer2")
    single = erf.attribute([images[:3], images[3:]], reduction="none")
    result, statistics = erf.attribute(images, return_statistics=True)
    torch.testing.assert_close(single.mean(0), result, rtol=1e-12, atol=0)
    torch.testing.assert_close(statistics.standard_error, single.std(0) / 5**0.5, rtol=1e-9, atol=1e-18)


def test_works_in_the_models_dtype(images: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()).float()
    result = ERF(model).attribute(images, reduction="none")
    assert result.dtype == torch.float32
    assert ERF(model.double()).attribute(images.float(), reduction="none").dtype == torch.float64


def test_under_no_grad_and_inference_mode(resnet: nn.Module, images: Tensor) -> None:
    erf = ERF(resnet, "layer2")
    expected = erf.attribute(images)
    with torch.no_grad():
        assert torch.equal(erf.attribute(images), expected)
    with torch.inference_mode():
        assert torch.equal(erf.attribute(images.clone()), expected)


# --- which layer, which unit


def test_default_layer_is_the_last_map_before_pooling(resnet: nn.Module, images: Tensor) -> None:
    result, statistics = ERF(resnet).attribute(images, return_statistics=True)
    assert statistics.source is not None
    assert (statistics.source.layer, statistics.source.unit) == ("layer4", (1, 1))
    assert (statistics.source.feature_size, statistics.source.input_size) == ((2, 2), (64, 64))
    assert torch.equal(result, ERF(resnet, "layer4", (1, 1)).attribute(images))


def test_projected_center(resnet: nn.Module, images: Tensor) -> None:
    _, statistics = ERF(resnet, "layer3", (1, 3)).attribute(images, return_statistics=True)
    assert statistics.source is not None
    assert statistics.source.center == (16.0, 48.0)


def test_layer_before_an_in_place_relu_is_seen_before_it(resnet: nn.Module, images: Tensor) -> None:
    class OutOfPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = resnet.conv1, resnet.bn1

        def forward(self, value: Tensor) -> Tensor:
            return self.bn1(self.conv1(value))

    expected = ERF(OutOfPlace(), "bn1", (4, 4)).attribute(images)
    assert torch.equal(ERF(resnet, "bn1", (4, 4)).attribute(images), expected)


@pytest.mark.parametrize("count", [1, 4])
def test_last_map_that_is_written_to_is_read_before(images: Tensor, count: int) -> None:
    class Dense(nn.Module):
        """As torchvision's DenseNet: the last map is rectified in place, outside of any module."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.features = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, value: Tensor) -> Tensor:
            return nn.functional.relu(self.features(value), inplace=True).mean((2, 3))

    model = Dense().double()
    expected = torch.zeros(64, 64, dtype=torch.float64)
    expected[31:34, 31:34] = model.features.weight.mean((0, 1)).relu().detach()  # of unit (16, 16)
    torch.testing.assert_close(ERF(model).attribute(images[:count]), expected, rtol=1e-9, atol=1e-15)


def test_last_run_of_a_layer_counts() -> None:
    row = torch.tensor([0, 1, 2, 3, 2, 1, 0], dtype=torch.float64)
    result = ERF(Reused(), "conv").attribute(torch.zeros(1, 1, 7, 7))
    assert torch.equal(result, row[:, None] * row[None])


def test_forward_stops_behind_the_layer(resnet: nn.Module, images: Tensor) -> None:
    calls = []
    resnet.layer4.register_forward_hook(lambda m, a, o: calls.append(len(o)))
    ERF(resnet, "layer2", (4, 4)).attribute([images[:2], images[2:]])
    assert calls == [1]  # the one image that shows the sizes
    ERF(resnet, "layer2", (4, 4)).attribute([images[:2], images[2:]])
    assert calls == [1]  # remembered with the model


def test_to_spatial() -> None:
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 4, 4, 4)
            self.tokens, self.last = nn.Identity(), nn.Identity()

        def forward(self, value: Tensor) -> Tensor:
            patches = self.patch(value)
            self.last(patches.permute(0, 2, 3, 1))
            tokens = torch.cat([patches.new_zeros(len(value), 1, 4), patches.flatten(2).mT], 1)
            return self.tokens(tokens)[:, 0]

    model = Tokens().double()
    image = torch.rand(2, 3, 12, 16)
    expected = ERF(model, "patch", (2, 1)).attribute(image)
    assert expected[8:12, 4:8].min() >= 0
    assert expected.sum() > 0
    by_tokens = ERF(model, "tokens", (2, 1), to_spatial=from_tokens((3, 4))).attribute(image)
    by_channels_last = ERF(model, "last", (2, 1), to_spatial=from_channels_last).attribute(image)
    torch.testing.assert_close(by_tokens, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(by_channels_last, expected, rtol=1e-12, atol=0)


class Match(nn.Module):
    """Compares two images, as networks for optical flow and for change detection do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 4, 3, 2, 1)
        self.joined = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.joined(torch.tanh(torch.cat([self.features(first), self.features(second)], 1)))


@pytest.mark.parametrize("max_examples", [None, 3])
def test_further_arguments_of_each_image(images: Tensor, max_examples: int | None) -> None:
    model, second = Match().double(), images.flip(0)
    count = max_examples or len(images)
    expected = torch.stack(
        [
            ERF(model, "joined").attribute(images[n : n + 1], additional_forward_args=second[n : n + 1])
            for n in range(count)
        ]
    )
    found = ERF(model, "joined").attribute(images, additional_forward_args=second, max_examples=max_examples)
    torch.testing.assert_close(found, expected.mean(0), rtol=1e-9, atol=1e-15)
    single = DeadPixelMap(model).attribute(
        (images, torch.arange(5)),
        additional_forward_args=(second,),
        max_examples=max_examples,
        reduction="none",
    )
    assert single.shape == (count, 64, 64)


def test_additional_forward_args(images: Tensor) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = ones_convolution(3, 1, 1)

        def forward(self, value: Tensor, scale: float) -> Tensor:
            return self.conv(scale * value)

    model = Scaled()
    gray = images[:, :1, :4, :4]
    torch.testing.assert_close(
        ERF(model, "conv").attribute(gray, None, 3.0),
        3 * ERF(model, "conv").attribute(gray, additional_forward_args=(1.0,)),
        rtol=1e-12,
        atol=0,
    )


# --- errors


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "layr4"}, ValueError, r"layer: the DemoNet has no layer 'layr4'; nearest: layer4"),
        ({"layer": 4}, TypeError, r"layer: expected a module, its dotted name or None, got 4 \(int\)"),
        ({"layer": nn.ReLU()}, ValueError, "layer: expected a submodule of the DemoNet, got a ReLU"),
        ({"unit": "middle"}, ValueError, 'unit: expected "center" or a pair of integers'),
        ({"unit": (1.0, 2)}, ValueError, 'unit: expected "center" or a pair of integers'),
        ({"rectify": "gelu"}, ValueError, "rectify: expected one of 'relu', 'abs', 'none', got 'gelu'"),
        ({"to_spatial": 3}, TypeError, "to_spatial: expected a callable or None"),
    ],
)
def test_bad_settings(
    resnet: nn.Module, options: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        ERF(resnet, **options)  # type: ignore[arg-type]


def test_model_must_be_a_module() -> None:
    with pytest.raises(TypeError, match=r"model: a layer's unit needs a torch.nn.Module, got <function"):
        ERF(lambda images: images)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module or another callable, got 3"):
        ERF(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"layer": "fc"},
            r"layer: expected 'fc' to give a feature map, got shape \(1, 10\): no dims are left for rows",
        ),
        (
            {"layer": "layer4", "unit": (2, 0)},
            r"unit: expected a position inside the 2 x 2 map of layer 'layer4'",
        ),
        ({"layer": "layer4", "unit": (-1, 0)}, r"unit: expected a position inside the 2 x 2 map"),
        (
            {"layer": "layer4", "to_spatial": from_tokens((2, 2))},
            r"tokens: expected a tensor of shape \(N, 5, C\)",
        ),
        (
            {"layer": "fc", "to_spatial": from_channels_last},
            r"features: expected a tensor of shape \(N, H, W, C\)",
        ),
    ],
)
def test_layers_that_do_not_serve(
    resnet: nn.Module, images: Tensor, options: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        ERF(resnet, **options).attribute(images)  # type: ignore[arg-type]


def test_layer_that_never_runs() -> None:
    with pytest.raises(ValueError, match="layer: 'unused' never ran in the model's forward pass"):
        ERF(Reused(), "unused").attribute(torch.zeros(1, 1, 7, 7))


def test_no_spatial_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(ValueError, match="layer: no module of the Sequential gives a feature map"):
        ERF(model).attribute(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), TypeError, "inputs: expected floating-point images"),
        (torch.zeros(3, 64, 64), ValueError, r"inputs: expected images of shape \(N, C, H, W\)"),
        (torch.zeros(0, 3, 64, 64), ValueError, "inputs: expected at least one image and pixel a batch"),
        ([], ValueError, "inputs: expected at least one image, got none"),
        (5, TypeError, r"inputs: expected a tensor \(N, C, H, W\) or an iterable of batches, got 5"),
        (
            (torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)),
            ValueError,
            "inputs: a tuple of 2 image tensors may be one batch or several; give several batches as a list",
        ),
        ([{"a": 1}], TypeError, "inputs: expected a dict with one tensor of images under one of image"),
        (["cat.png"], TypeError, "inputs: expected batches to be a tensor, "),
        (
            [torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 32, 64)],
            ValueError,
            r"expected images of one size, \(3, 64, 64\) as the first, got \(3, 32, 64\) from image 1 on",
        ),
        (
            DataLoader([torch.zeros(3, 64, 64), torch.zeros(3, 32, 64)], batch_size=2),  # type: ignore[arg-type]
            ValueError,
            "inputs: expected the images of a batch to share one size",
        ),
    ],
)
def test_bad_images(resnet: nn.Module, inputs: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ERF(resnet).attribute(inputs)


def test_nan_image_is_named(resnet: nn.Module, images: Tensor) -> None:
    images[4, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="got NaN or infinity in image 4"):
        ERF(resnet).attribute([images[:2], images[2:]])


def test_non_finite_gradient_names_the_image() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = ones_convolution(1, 1)

        def forward(self, value: Tensor) -> Tensor:
            return self.conv(value.sqrt())

    batches = torch.ones(6, 1, 2, 2, dtype=torch.float64)
    batches[5, 0, 1, 1] = 0  # the slope of the square root is infinite there
    with pytest.raises(ValueError, match="the gradient of image 5 is not finite"):
        ERF(Root(), "conv").attribute(batches.split(2))


def test_zero_map_is_refused() -> None:
    model = ones_convolution(1, 1)
    nn.init.zeros_(model[0].weight)
    with pytest.raises(ValueError, match=r"the map of '0' is zero everywhere.*\(rectify=\"relu\"\)"):
        ERF(model).attribute(torch.zeros(1, 1, 2, 2))


def test_output_cut_from_the_graph() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = ones_convolution(1, 1)

        def forward(self, value: Tensor) -> Tensor:
            return self.conv(value.detach()) * self.conv[0].weight

    with pytest.raises(ValueError, match="layer 'conv' does not depend on the images"):
        ERF(Cut(), "conv").attribute(torch.zeros(1, 1, 2, 2))


def test_batch_statistics_need_batches_of_one(images: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).double()
    with pytest.raises(ValueError, match="model: layer '1' normalises with the statistics of the batch"):
        ERF(model).attribute(images)
    assert ERF(model, rectify="abs").attribute(images.split(1)).sum() > 0


def test_bad_options(resnet: nn.Module, images: Tensor) -> None:
    erf = ERF(resnet)
    with pytest.raises(ValueError, match="reduction: expected one of 'mean', 'none', got 'sum'"):
        erf.attribute(images, reduction="sum")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="max_examples: expected a positive integer, got 0"):
        erf.attribute(images, max_examples=0)
    with pytest.raises(ValueError, match='return_statistics: reduction="none" averages nothing'):
        erf.attribute(images, reduction="none", return_statistics=True)


# --- the caller's things come back as they were


@pytest.mark.parametrize("fails", [False, True])
def test_caller_untouched(resnet, images, snapshot, assert_same, fails: bool) -> None:  # type: ignore[no-untyped-def]
    resnet.train()
    resnet.layer1.eval()
    resnet.conv1.weight.requires_grad_(False)
    if fails:
        images[3, 0, 0, 0] = torch.nan
    before, image_before, version = snapshot(resnet), images.clone(), images._version
    erf = ERF(resnet, "layer3")
    loader = DataLoader(TensorDataset(images), batch_size=2, shuffle=True)
    if fails:
        with pytest.raises(ValueError, match="NaN"):
            erf.attribute(loader)
    else:
        erf.attribute(loader)
    assert_same(before, snapshot(resnet))
    assert torch.equal(images.nan_to_num(), image_before.nan_to_num())
    assert images._version == version
    assert not images.requires_grad
    assert images.grad is None


def test_caller_untouched_when_forward_raises(resnet, images, snapshot, assert_same) -> None:  # type: ignore[no-untyped-def]
    handle = resnet.layer2.register_forward_hook(lambda m, a, o: 1 / 0)
    before = snapshot(resnet)
    with pytest.raises(ZeroDivisionError):
        ERF(resnet, "layer3").attribute(images)
    assert_same(before, snapshot(resnet))
    handle.remove()


def test_model_that_works_in_place_on_its_input(images: Tensor) -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), ones_convolution(1, 1))
    gray = images[:, :1].clone()
    before = gray.clone()
    result = ERF(model, "1", (3, 4)).attribute(gray)
    assert torch.equal(gray, before)
    expected = torch.zeros(64, 64, dtype=torch.float64)
    expected[3, 4] = (gray[:, 0, 3, 4] > 0).double().mean()
    assert torch.equal(result, expected)


# --- what the paper does not mention: where a ResNet's units look


def test_unit_of_a_fresh_resnet_looks_at_96_not_at_112() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    result, statistics = ERF(model).attribute(sample_images(8), return_statistics=True)
    assert statistics.source is not None
    assert (statistics.source.layer, statistics.source.unit) == ("layer4", (3, 3))
    assert statistics.source.center == (96.0, 96.0)
    y, x = centroid(result)
    assert (y - 96) ** 2 + (x - 96) ** 2 < (y - 112) ** 2 + (x - 112) ** 2


@pytest.mark.pretrained
def test_batch_size_does_not_matter_to_mobilenet() -> None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / "mobilenet_v2-b0353104.pth"
    if not path.is_file():
        pytest.skip(f"no weights at {path}; TORCH_HOME says where to look")
    model = torchvision.models.mobilenet_v2(weights="IMAGENET1K_V1").double()
    images = sample_images(8)
    whole = ERF(model).attribute(images)
    single = ERF(model).attribute(images.split(1))
    assert float((whole - single).abs().max() / whole.max()) <= 1e-14
    # In float32 another memory format is another order of summation, which flips ReLU decisions. One thread
    # alone sums both formats in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        single_precision = [
            ERF(model.float(), execution=Execution(fold=False, channels_last=layout, crop=False)).attribute(
                images
            )
            for layout in (False, True)
        ]
    finally:
        torch.set_num_threads(threads)
    difference = float((single_precision[0] - single_precision[1]).abs().max() / whole.max())
    assert 1e-6 < difference < 0.02


@pytest.mark.pretrained
def test_mobilenet_shows_its_strides() -> None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / "mobilenet_v2-b0353104.pth"
    if not path.is_file():
        pytest.skip(f"no weights at {path}; TORCH_HOME says where to look")
    model = torchvision.models.mobilenet_v2(weights="IMAGENET1K_V1")
    _, statistics = ERF(model).attribute(sample_images().split(8), return_statistics=True)
    phase = estimate_phase_profile(statistics, 32)
    assert phase.corrected_contrast > 5 * phase.contrast_standard_error
    assert 0.05 < phase.corrected_contrast < 0.15  # 0.077 over 200 photographs of Caltech-101
