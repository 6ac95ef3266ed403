"""Files become tensors: upright, RGB, resized and cropped as torchvision does it, normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from erfattr.datasets.preprocessing import (
    UnreadableImageError,
    check_channels,
    check_constants,
    check_size,
    constants_for,
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


@pytest.mark.parametrize(
    ("mode", "value", "grey", "rgba"),
    [
        # The luma of ITU-R BT.601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2.
        ("RGB", (200, 100, 50), 124, (200, 100, 50, 255)),
        ("L", 77, 77, (77, 77, 77, 255)),
        ("RGBA", (0, 0, 0, 51), 204, (0, 0, 0, 51)),
        ("LA", (100, 0), 255, (100, 100, 100, 0)),
        ("I;16", 257 * 77, 77, (77, 77, 77, 255)),
    ],
)
def test_every_kind_of_pixel_becomes_grey_or_keeps_its_alpha(tmp_path, mode, value, grey, rgba):
    Image.new(mode, (3, 2), value).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png", 1).getpixel((1, 1)) == grey
    assert read_image(tmp_path / "image.png", 4).getpixel((1, 1)) == rgba


def test_constants_of_other_channels_come_from_those_of_colours():
    mean, std = (0.25, 0.5, 0.75), (0.5, 0.25, 0.75)
    assert constants_for(3, mean, std) == (mean, std)
    assert constants_for(1, mean, std) == ((0.5,), (0.5,))
    assert constants_for(4, mean, std) == ((*mean, 0.0), (*std, 1.0))
    assert constants_for(4, (0.5,), (0.25,)) == ((0.5, 0.5, 0.5, 0.0), (0.25, 0.25, 0.25, 1.0))
    assert constants_for(3, (*mean, 0.1), (*std, 0.1)) == (mean, std)
    assert check_constants(None, (2, 2, 2)) == ((0.485, 0.456, 0.406), (2.0, 2.0, 2.0))
    assert check_constants(None, None, 1) == (pytest.approx((0.449,)), pytest.approx((0.226,)))


def test_an_image_just_covers_a_size_that_is_not_square():
    # Columns 0 to 11 of 4 rows: the middle half. Rows 0 to 7 of 4 columns: the middle two.
    columns = np.tile(np.arange(12, dtype=np.uint8), (4, 1))
    image = Image.fromarray(columns)
    assert resize_and_crop(image, (4, 6), 1).tolist() == [[list(range(3, 9))] * 4]
    rows = np.tile(np.arange(0, 80, 10, dtype=np.uint8)[:, None], (1, 4))
    assert resize_and_crop(Image.fromarray(rows), (2, 4), 1).tolist() == [[[30] * 4, [40] * 4]]


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


@pytest.mark.parametrize("size", [(7, 12), (24, 5), (33, 32)])
@pytest.mark.parametrize("shape", [(9, 9), (17, 10), (7, 64), (64, 7)])
def test_other_sides_and_channels_as_torchvision_does_it(shape, size):
    values = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    scale_height = size[0] * shape[1] >= size[1] * shape[0]
    ratio = (size[0], shape[0]) if scale_height else (size[1], shape[1])
    resized = size[0] if scale_height else shape[0] * ratio[0] // ratio[1]
    other = shape[1] * ratio[0] // ratio[1] if scale_height else size[1]
    expected = F.pil_to_tensor(F.center_crop(F.resize(image, [resized, other]), list(size)))
    assert torch.equal(resize_and_crop(image, size), expected)
    opaque = resize_and_crop(image.convert("RGBA"), size, 4)
    assert torch.equal(opaque[:3], expected)
    assert opaque[3].unique().tolist() == [255]
    grey = image.convert("L")
    expected = F.pil_to_tensor(F.center_crop(F.resize(grey, [resized, other]), list(size)))
    assert torch.equal(resize_and_crop(grey, size, 1), expected)


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


@pytest.mark.parametrize(
    ("channels", "mean", "std", "message"),
    [
        (1, (0, 0, 0), (1,), "mean: expected one number, got"),
        (1, (0,), (0,), "std: expected one positive number, got"),
        (4, (0, 0, 0, 0), (1, 1, 1), "std: expected four positive numbers, got"),
    ],
)
def test_constants_that_are_not_one_for_each_channel(channels, mean, std, message):
    with pytest.raises(ValueError, match=message):
        check_constants(mean, std, channels)


def test_channels_and_sizes_that_no_image_has():
    with pytest.raises(ValueError, match=r"channels: expected one of 1, 3, 4, got 2"):
        check_channels(2)
    with pytest.raises(ValueError, match=r"size: expected one number or \(H, W\), got \(1, 2, 3\)"):
        check_size((1, 2, 3))
    with pytest.raises(ValueError, match="size: expected a positive integer, got 0"):
        check_size((4, 0))
    with pytest.raises(TypeError, match=r"size: expected a positive integer, got 0\.5"):
        check_size((0.5, 4))
