"""How many channels the images of a model have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from erfattr.models.channels import image_channels
from erfattr.models.demo import demo_model


class HeadFirst(nn.Module):
    """Holds its head before its stem."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, 2, 1)
        self.stem = nn.Conv2d(channels, 8, 3)

    def forward(self, images):
        return self.head(self.stem(images))


class Coordinates(nn.Module):
    """Puts rows and columns beside its images' channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 2, 4, 3)

    def forward(self, images):
        y, x = torch.meshgrid(*(torch.arange(n, dtype=images.dtype) for n in images.shape[2:]), indexing="ij")
        places = torch.stack([y, x]).expand(len(images), -1, -1, -1)
        return self.conv(torch.cat([images, places], 1))


class OneSize(nn.Module):
    """Refuses images of another size, as vision transformers do."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(channels, 4, 8, 8)

    def forward(self, images):
        torch._assert(images.shape[-1] == self.size, "wrong size")
        return self.conv(images)


# closed form


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_the_first_convolution_says_it(channels):
    model = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    assert image_channels(model, (16, 24)) == channels
    assert image_channels(model, (16, 24), channels) == channels
    assert image_channels(HeadFirst(channels), (16, 24)) == channels


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_that_the_model_makes_itself_do_not_count(channels):
    for model in (
        nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, 8, 3)),
        Coordinates(channels),
        nn.Sequential(nn.Unflatten(1, (1, channels)), nn.Conv3d(1, 2, (channels, 3, 3))),
    ):
        assert image_channels(model, (16, 24), channels) == channels
    assert (
        image_channels(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, 8, 3)), (16, 24))
        == channels
    )
    assert image_channels(Coordinates(channels), (16, 24)) == channels


def test_a_model_without_convolutions_is_tried_as_a_whole():
    assert image_channels(nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)), (28, 28)) == 1
    assert image_channels(nn.ReLU(), (8, 8)) == 3
    assert image_channels(nn.ReLU(), (8, 8), 4) == 4
    assert image_channels(nn.Linear(5, 2), (8, 8)) == 3  # runs on no such image


def test_a_model_that_cannot_be_run_at_this_size_is_asked():
    assert image_channels(OneSize(1, 32), (24, 24)) == 1
    assert image_channels(OneSize(64, 32), (24, 24)) == 3
    assert image_channels(OneSize(1, 32), (24, 24), 3) == 3  # it says itself what is wrong
    assert image_channels(OneSize(1, 32), (32, 32)) == 1


# errors


@pytest.mark.parametrize(
    ("model", "channels", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 8, 3)),
            3,
            "expected 1, which the first convolution '0' of the Sequential",
        ),
        (
            nn.Sequential(nn.Conv2d(2, 8, 3)),
            3,
            "expected 2, which the first convolution '0' of the Sequential",
        ),
        (HeadFirst(3), 4, "expected 3, which the first convolution 'stem' of the HeadFirst"),
        (Coordinates(3), 1, "expected 3, which the first convolution 'conv' of the Coordinates"),
        (
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3)),
            1,
            "expected 3, which the first convolution '1'",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), 3, "expected 1, which the Sequential"),
    ],
)
def test_another_number_is_refused(model, channels, message):
    with pytest.raises(ValueError, match=f"^channels: {message}.* takes, got {channels}$"):
        image_channels(model, (8, 8), channels)


# caller untouched


def test_the_model_comes_back_as_it_was():
    model = demo_model().train()
    state, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(ValueError, match="channels: expected 3"):
        image_channels(model, (64, 64), 1)
    assert image_channels(model, (64, 64)) == 3
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
