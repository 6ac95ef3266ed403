"""The photographs that ship with scikit-image, cut into fixed crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from erfattr.datasets import photographs
from erfattr.datasets.photographs import SAMPLE_PHOTOGRAPHS, sample_images
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD, read_image

# independent oracle


def test_sample_images_are_the_photographs():
    from skimage import data

    # The first photograph is square, so its first crop at its own size is the photograph itself.
    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    image = sample_images(1, size=512, normalize=False)[0]
    assert torch.equal((image * 255).round().to(torch.uint8), photograph)
    # The first crop of a 600 x 400 photograph is its middle third but two: columns 100 to 500.
    coffee = torch.from_numpy(data.coffee()).permute(2, 0, 1)
    image = sample_images(3, size=400, normalize=False)[2]
    assert torch.equal((image * 255).round().to(torch.uint8), coffee[:, :, 100:500])


def test_later_sample_images_are_crops_of_the_same_photographs():
    from skimage import data

    # Image 8 is the top left of the first photograph, 0.75 of its side; image 32 its bottom right.
    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    images = sample_images(33, size=384, normalize=False)
    assert torch.equal((images[8] * 255).round().to(torch.uint8), photograph[:, :384, :384])
    assert torch.equal((images[32] * 255).round().to(torch.uint8), photograph[:, 128:, 128:])


def test_sample_images_of_other_sides_and_channels():
    from skimage import data

    # The first photograph is square, 512 pixels: its middle 256 rows.
    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    image = sample_images(1, size=(256, 512), normalize=False)[0]
    assert torch.equal((image * 255).round().to(torch.uint8), photograph[:, 128:384])
    grey = sample_images(1, size=512, normalize=False, channels=1)[0, 0] * 255
    red, green, blue = photograph.double()
    assert (grey - (0.299 * red + 0.587 * green + 0.114 * blue)).abs().max() <= 0.51  # rounded to 8 bits
    opaque = sample_images(5, size=(16, 24), normalize=False, channels=4)
    assert torch.equal(opaque[:, :3], sample_images(5, size=(16, 24), normalize=False))
    assert opaque[:, 3].unique().tolist() == [1.0]


# invariance


def test_sample_images_are_all_different_and_each_is_the_same_whatever_the_count():
    images = sample_images(size=16)
    assert images.shape == (64, 3, 16, 16)
    distances = torch.cdist(images.flatten(1), images.flatten(1)) + 1e9 * torch.eye(64)
    assert distances.min() > 1.0
    assert torch.equal(sample_images(5, size=16), images[:5])
    assert torch.equal(sample_images(13, size=16), images[:13])


def test_sample_images_are_normalised_by_the_constants_given():
    raw = sample_images(2, size=8, normalize=False)
    assert torch.allclose(sample_images(2, size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), 2 * raw - 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(sample_images(2, size=8), (raw - mean) / std, rtol=1e-5, atol=1e-6)


def test_the_photographs_are_in_the_wheel():
    assert len(set(SAMPLE_PHOTOGRAPHS)) == 8
    for name in SAMPLE_PHOTOGRAPHS:
        assert read_image(photographs._photograph(name)).size >= (300, 300)


# errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size: expected a positive integer, got 0"),
        ({"size": 2.5}, TypeError, "size: expected a positive integer"),
        ({"count": 0}, ValueError, "count: expected a positive integer, got 0"),
        ({"count": True}, TypeError, "count: expected a positive integer"),
        ({"size": (4, 0)}, ValueError, "size: expected a positive integer, got 0"),
        ({"channels": 2}, ValueError, "channels: expected one of 1, 3, 4, got 2"),
        ({"channels": 4, "std": (1, 1, 1)}, ValueError, "std: expected four positive numbers"),
        ({"mean": (0.5, 0.5)}, ValueError, "mean: expected three numbers"),
        ({"mean": 0.5}, ValueError, "mean: expected three numbers"),
        ({"mean": (0.5, 0.5, "0.5")}, ValueError, "mean: expected three numbers"),
        ({"std": (1, 0, 1)}, ValueError, "std: expected three positive numbers"),
        ({"std": (1, float("nan"), 1)}, ValueError, "std: expected three positive numbers"),
    ],
)
def test_arguments_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        sample_images(**options)


def test_more_sample_images_than_there_are():
    with pytest.raises(ValueError, match="count: expected at most 64 sample images, got 65"):
        sample_images(65)


def test_missing_photographs(monkeypatch):
    monkeypatch.setattr(photographs, "SAMPLE_PHOTOGRAPHS", ("absent.png",))
    with pytest.raises(FileNotFoundError, match=r"absent\.png is not there; scikit-image's wheel holds it"):
        sample_images(1)


# caller untouched


def test_global_random_numbers_are_not_used():
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    sample_images(2, size=8)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
