"""Random networks whose sums are exact, so that tiles either equal the whole image or do not."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Wrap(nn.Module):
    """Floor, modulo 7: numbers stay small integers, and no difference is ever lost in a large number."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.remainder(torch.floor(x), 7) - 3


def with_integers(model: nn.Module, seed: int) -> nn.Module:
    """Draw every weight from -2, -1, 1, 2: no tap of a kernel is blind."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.randint(0, 4, parameter.shape, generator=generator)
        parameter.data = torch.tensor([-2.0, -1.0, 1.0, 2.0])[drawn]
    return model.double().eval()


def noise(size: tuple[int, int], channels: int = 2) -> Tensor:
    # Two channels: of one, two paths may add up to 0 times its value, and nothing is left to differ.
    # Few equal numbers: the largest of a window, which a pooling takes, lies at its edge as often as not.
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-999, 1000, (4, channels, *size), generator=generator).double()


class Sum(nn.Module):
    """A skip connection with what lies under it."""

    def __init__(self, under: nn.Module) -> None:
        super().__init__()
        self.under = under

    def forward(self, x: Tensor) -> Tensor:
        return x + self.under(x)


class Pool(nn.Module):
    """Functional, so that no layer shows its stride."""

    def __init__(self, function: Callable[..., Tensor], stride: int) -> None:
        super().__init__()
        self.function, self.stride = function, stride

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.stride)


class Resize(nn.Module):
    def __init__(self, factor: int, mode: str) -> None:
        super().__init__()
        self.factor, self.mode = factor, mode

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode)


def convolutions(draw: random.Random, channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(draw.choice((1, 1, 2))):
        kernel, dilation = draw.choice((1, 3, 3, 5)), draw.choice((1, 1, 2))
        mode = draw.choice(("zeros", "zeros", "reflect", "replicate"))
        padding = dilation * (kernel - 1) // 2
        layers += [
            nn.Conv2d(channels, channels, kernel, 1, padding, dilation, padding_mode=mode),
            Wrap(),
        ]
    return layers


def downwards(draw: random.Random, channels: int, stride: int) -> nn.Module:
    kernel = stride + 2 * draw.choice((0, 1))
    ways = [
        nn.Conv2d(channels, channels, kernel, stride, (kernel - stride) // 2),
        nn.MaxPool2d(kernel, stride, (kernel - stride) // 2),
        Pool(F.max_pool2d, stride),
    ]
    if stride == 2:
        ways.append(Pool(F.avg_pool2d, 2))
    return draw.choice(ways)


def upwards(draw: random.Random, channels: int, stride: int) -> nn.Module:
    kernel = stride + 2 * draw.choice((0, 1))
    ways = [
        nn.ConvTranspose2d(channels, channels, kernel, stride, (kernel - stride) // 2),
        Resize(stride, "nearest"),
    ]
    if stride == 2:
        ways.append(Resize(2, "bilinear"))
    return draw.choice(ways)


def random_unet(seed: int) -> nn.Module:
    """One to three levels, strides 2 and 3, any way down and up."""
    draw = random.Random(seed)
    channels = 2
    strides = draw.choice(((2,), (3,), (2, 2), (2, 3), (2, 2, 2)))
    inner: list[nn.Module] = convolutions(draw, channels)
    for stride in strides:
        under = nn.Sequential(
            downwards(draw, channels, stride), *inner, upwards(draw, channels, stride), Wrap()
        )
        inner = [*convolutions(draw, channels), Sum(under), Wrap(), *convolutions(draw, channels)]
    return with_integers(nn.Sequential(nn.Conv2d(channels, channels, 1), *inner), seed)


def random_encoder(seed: int) -> nn.Module:
    """Strides one after the other and no way back, with and without padding: any size will do."""
    draw = random.Random(seed)
    layers: list[nn.Module] = [nn.Conv2d(2, 2, draw.choice((1, 3)))]
    for stride in draw.choice(((1,), (2,), (3,), (2, 2), (2, 3), (3, 1, 2))):
        kernel = draw.choice((1, 2, 3, 5))
        padding = draw.choice((0, kernel // 2))
        if draw.random() < 0.3:
            layers.append(nn.MaxPool2d(3, stride, draw.choice((0, 1)), ceil_mode=draw.random() < 0.5))
        else:
            layers.append(nn.Conv2d(2, 2, kernel, stride, padding))
        layers.append(Wrap())
    return with_integers(nn.Sequential(*layers), seed)
