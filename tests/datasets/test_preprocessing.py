"""Files become tensors: upright, RGB, resized and cropped as torchvision does it, normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from erfattr.datasets.preprocessing import (
    UnreadableImageError,
    check_constants,
    read_image,
    resize_and_crop,
    standardize,
    to_tensor,
)

# closed form


def test_an_image_turned_by_exif_is_upright(tmp_path):
    # Orientation 6: the first row of the file is the right edge of the scene.
    stored = np.zeros((4, 4, 3), dtype=np.uint8)
    stored[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(read_image(tmp_path / "turned.png"))
    assert np.array_equal(upright[:, 3], np.full((4, 3), 255))
    assert upright[:, :3].max() == 0


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 257 * 77, (77, 77, 77)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path, mode, value, expected):
    Image.new(mode, (3, 2), value).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png")
    assert image.mode == "RGB"
    assert image.getpixel((1, 1)) == expected


def test_a_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=1)
    read = read_image(tmp_path / "palette.png")
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


def test_pixels_are_rows_and_columns_of_each_channel():
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    image.putpixel((2, 1), (4, 5, 6))
    pixels = to_tensor(image)
    assert pixels.dtype == torch.uint8
    assert pixels.tolist() == [[[k, k, k], [k, k, k + 3]] for k in (1, 2, 3)]


def test_standardize_takes_batches():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    expected = torch.tensor([0.0, 0.1, 2.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    assert torch.allclose(standardize(images, (0, 0, 0), (1, 2, 0.5)), expected, rtol=1e-6)


# independent oracle


@pytest.mark.parametrize("size", [1, 7, 10, 32])
@pytest.mark.parametrize("shape", [(9, 9), (10, 17), (17, 10), (23, 7), (7, 64), (33, 32), (1, 3)])
def test_resized_and_cropped_as_torchvision_does_it(shape, size):
    values = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    expected = F.pil_to_tensor(F.center_crop(F.resize(image, [size]), [size]))
    assert torch.equal(resize_and_crop(image, size), expected)


# errors


def test_an_image_of_numbers_without_a_range_is_unreadable(tmp_path):
    Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(UnreadableImageError, match="at most 16 bits, got values up to 70000"):
        read_image(tmp_path / "wide.tif")


def test_a_missing_file_is_unreadable_and_named(tmp_path):
    with pytest.raises(
        UnreadableImageError, match=r"image file .*absent\.png cannot be read: FileNot"
    ) as raised:
        read_image(tmp_path / "absent.png")
    assert raised.value.path == str(tmp_path / "absent.png")
    assert raised.value.reason.startswith("FileNotFoundError: ")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5), (1, 1, 1), "mean: expected three numbers, got"),
        ((0, 0, 0), (1, 1), "std: expected three positive numbers, got"),
        ((0, 0, 0), (1, 1, -1), "std: expected three positive numbers, got"),
    ],
)
def test_constants_that_are_not_three_numbers(mean, std, message):
    with pytest.raises(ValueError, match=message):
        check_constants(mean, std)
