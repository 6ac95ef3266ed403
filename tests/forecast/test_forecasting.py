"""Forecast maps: closed forms, an exhaustive mean over signs, Jacobians, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from erfattr import forecast_map, phase_contrast, phase_profile


class Functional(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def ones(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


@pytest.mark.parametrize(
    ("kernel", "padding", "counts"),
    [
        (1, 0, [[1, 0], [0, 0]]),
        (3, 1, [[1, 2], [2, 4]]),
        (4, 1, [[4, 4], [4, 4]]),
    ],
)
def test_closed_forms_of_a_strided_kernel_of_ones(
    kernel: int, padding: int, counts: list[list[float]]
) -> None:
    conv = ones(nn.Conv2d(1, 1, kernel, stride=2, padding=padding, bias=False))
    found = forecast_map(conv, "output", input_size=12, in_channels=1).square()
    expected = torch.tensor(counts, dtype=torch.float64).repeat(6, 6)
    torch.testing.assert_close(found[2:-2, 2:-2], expected[2:-2, 2:-2], rtol=1e-6, atol=0)


def test_expected_weights_give_the_mean_over_all_signs_of_a_linear_network() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, (3, 1), stride=(2, 1), padding=(1, 0), bias=False),
        nn.Conv2d(2, 1, (2, 1), stride=(2, 1), bias=False),
    ).double()
    sizes = [0.7, 1.3]
    for layer, size in zip(model, sizes, strict=True):
        nn.init.constant_(layer.weight, size)
    found = forecast_map(model, "1", (1, 0), "expected", input_size=(12, 3), in_channels=2)
    image = torch.zeros(1, 2, 12, 3, dtype=torch.float64, requires_grad=True)
    total, count = torch.zeros(12, 3, dtype=torch.float64), 0
    shapes = [layer.weight.shape for layer in model]
    second = (1.0, 1.0, 1.0, 1.0)
    for first in itertools.product((-1.0, 1.0), repeat=12):
        # g is linear in the first layer's weights, and no two paths to one pixel share one of them: whatever
        # the signs of the second layer, cross terms vanish in the mean over all signs of the first.
        weights = [
            size * torch.tensor(signs, dtype=torch.float64).reshape(shape)
            for size, signs, shape in zip(sizes, (first, second), shapes, strict=True)
        ]
        y = F.conv2d(F.conv2d(image, weights[0], stride=(2, 1), padding=(1, 0)), weights[1], stride=(2, 1))
        (g,) = torch.autograd.grad(y[0, 0, 1, 0], image)
        total += g[0].mean(0).square()
        count += 1
    torch.testing.assert_close(found.square(), total / count, rtol=1e-6, atol=1e-12)


LINEAR = {
    "average pool": nn.AvgPool2d(3, 2, 1),
    "average pool without padding": nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
    "adaptive pool": nn.AdaptiveAvgPool2d((3, 5)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bicubic": nn.Upsample(size=(7, 13), mode="bicubic", align_corners=True),
    "nearest": nn.Upsample(scale_factor=3),
    "transposed": nn.ConvTranspose2d(1, 2, 3, stride=2, padding=1, output_padding=1),
    "dilated": nn.Conv2d(1, 2, 3, padding=2, dilation=2),
    "shuffle": nn.PixelUnshuffle(2),
    "reflection": nn.ReflectionPad2d(2),
    "mean": Functional(lambda x: x.mean((2, 3))),
    "roll": Functional(lambda x: torch.roll(x, (3, 1), (2, 3))),
    "slices": Functional(lambda x: torch.cat([x[:, :, ::2], 3 * x[:, :, 1::2]], 3)),
    "written": Functional(lambda x: _written(x)),
    "windows": Functional(lambda x: x.unfold(2, 3, 2).unfold(3, 3, 2).contiguous()),
    "patches": Functional(lambda x: F.unfold(x, 2, stride=2)),
    "tokens": nn.Sequential(Functional(lambda x: x.flatten(2)), nn.Linear(100, 3)),
    "functional": Functional(
        lambda x: x.permute(0, 2, 3, 1).reshape(1, 50, 2) @ torch.tensor([[1.0], [2.0]])
    ),
    "difference": Functional(lambda x: torch.sub(x, x[:, :, :, :1].clone(), alpha=2)),
    "doubled": Functional(lambda x: x + x),
}


def _written(x: Tensor) -> Tensor:
    result = torch.zeros(1, 1, 10, 10)
    result[:, :, 2:8] = x[:, :, :6]
    result[:, :, 5].mul_(4)
    result[:, :, 7] = 0
    return result


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_operator_hands_back_its_squared_jacobian(name: str) -> None:
    torch.manual_seed(0)
    model = LINEAR[name]
    jacobian = torch.autograd.functional.jacobian(model, torch.randn(1, 1, 10, 10))
    expected = jacobian.flatten(0, -5).square().sum(0)[0, 0]
    if (
        name == "difference"
    ):  # the terms of one sum are taken as uncorrelated: where they meet, 1 - 2 is 1 + 4
        expected[:, 0] = 1 + 4 * 10
    found = forecast_map(model, "output", input_size=10, in_channels=1).square()
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-7)


def test_slopes_of_activations_and_maxima() -> None:
    def at(model: nn.Module) -> Tensor:
        return forecast_map(model, "output", input_size=6, in_channels=1).square()

    everywhere = torch.ones(6, 6, dtype=torch.float64)
    torch.testing.assert_close(at(nn.ReLU()), everywhere / 2, rtol=1e-6, atol=0)
    torch.testing.assert_close(at(nn.LeakyReLU(0.5)), everywhere * 0.625, rtol=1e-6, atol=0)
    # Phi(6) - Phi(0)
    torch.testing.assert_close(at(nn.ReLU6(inplace=True)), everywhere / 2, rtol=1e-4, atol=0)
    # E[(1 - tanh^2)^2] and E[sigmoid^2] over a normal distribution, by Gauss-Hermite quadrature in NumPy.
    torch.testing.assert_close(at(nn.Tanh()), everywhere * 0.464403, rtol=1e-3, atol=0)
    pool = at(nn.MaxPool2d(3, 2, 1))
    # Windows begin at -1, 1, 3: of 2, 3 and 3 rows inside the image.
    along = torch.tensor([1 / 2, 1 / 2 + 1 / 3, 1 / 3, 2 / 3, 1 / 3, 1 / 3], dtype=torch.float64)
    torch.testing.assert_close(pool, torch.outer(along, along), rtol=1e-6, atol=0)


def test_norms_gates_and_residual_sums() -> None:
    norm = nn.BatchNorm2d(1, eps=0)
    norm.running_var.fill_(4.0)
    nn.init.constant_(norm.weight, 3.0)
    norm.eval()
    model = Functional(lambda x: x + norm(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)))
    found = forecast_map(model, "output", input_size=4, in_channels=1).square()
    z = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2)
    gate = float((torch.sigmoid(z) ** 2 * density).sum() / density.sum())
    torch.testing.assert_close(
        found, torch.full((4, 4), 1 + 9 / 4 * gate, dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_meta_model_is_forecast_as_its_architecture() -> None:
    with torch.device("meta"):
        meta = torchvision.models.resnet18()
    real = torchvision.models.resnet18()
    profiles = [
        phase_profile(forecast_map(model, "layer3", weights="expected", input_size=96), 16)
        for model in (meta, real)
    ]
    assert phase_contrast(profiles[0]) == pytest.approx(phase_contrast(profiles[1]), rel=0.1)
    assert forecast_map(meta, "layer3", input_size=96).shape == (96, 96)


def test_centre_of_a_resnet_is_where_strides_put_it() -> None:
    torch.manual_seed(0)
    found = forecast_map(torchvision.models.resnet18(), weights="expected")
    weights = found.square().sum(0)
    assert float((weights * torch.arange(224)).sum() / weights.sum()) == pytest.approx(96, abs=5)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.inner = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1))
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down(x)
        both = torch.cat([first, self.up(self.inner(first))], 1)
        return F.interpolate(self.head(both), scale_factor=2, mode="bilinear")


@pytest.mark.parametrize("name", ["vgg11_bn", "densenet121", "mobilenet_v3_small", "convnext_tiny"])
def test_families_of_networks(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)()
    for layer in (None, "output"):
        found = forecast_map(model, layer, input_size=64)
        assert bool((found >= 0).all())
        assert float(found.max()) > 0


def test_unet_with_images_and_without() -> None:
    torch.manual_seed(0)
    model = UNet()
    plain = forecast_map(model, "output", input_size=32)
    seen = forecast_map(model, "up", (8, 8), images=torch.randn(2, 3, 32, 32))
    assert plain.shape == seen.shape == (32, 32)
    rows, columns = torch.nonzero(seen, as_tuple=True)
    # Unit (8, 8) behind the transposed convolution reads position (4, 4) of stride 4, and 7 pixels.
    assert (int(rows.min()), int(rows.max())) == (int(columns.min()), int(columns.max())) == (13, 19)


def test_images_of_a_linear_network_give_the_gradient_itself() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).double().eval()
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(model(images)[0, :, 2, 2].mean(), images)
    found = forecast_map(model, "2", (2, 2), images=images.detach())
    expected = g[0].mean(0).clamp_min(0) * (2 * torch.pi) ** 0.5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_attention_is_refused_by_name_and_layers_before_it_are_not() -> None:
    model = torchvision.models.vit_b_16()
    with pytest.raises(ValueError, match=r"cannot be carried through aten::.* in layer 'encoder.*attention"):
        forecast_map(model, "encoder.layers.encoder_layer_0")
    assert forecast_map(model, "conv_proj", (3, 3)).nonzero().min() == 48
    with pytest.raises(ValueError, match="as in attention"):
        forecast_map(torchvision.models.swin_t(), "features.3", input_size=64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "layer9"}, "layer: the Sequential has no layer 'layer9'"),
        ({"layer": "0", "unit": (9, 0)}, "unit: expected a position inside the 8 x 8 map of layer '0', got"),
        ({"unit": "middle"}, 'unit: expected "center" or a pair'),
        ({"weights": "drawn"}, "weights: expected one of 'given', 'expected'"),
        ({"images": torch.zeros(2, 3)}, r"images: expected .*\(N, C, H, W\)"),
        ({"layer": "3"}, "layer: expected '3' to give a feature map"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with pytest.raises(ValueError, match=message):
        forecast_map(model, **{"input_size": 8, **arguments})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model: expected a torch"):
        forecast_map("resnet18")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="images: expected a floating-point tensor"):
        forecast_map(model, images=torch.zeros(1, 3, 8, 8, dtype=torch.int64))


def test_caller_is_untouched_also_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(2, 3, 8, 8)
    kept = images.clone()
    forecast_map(model, images=images)
    with pytest.raises(ValueError, match="unit"):
        forecast_map(model, unit=(99, 0), images=images)
    assert model.training
    assert torch.equal(images, kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
