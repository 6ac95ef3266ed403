from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from erfattr.datasets import images as datasets
from erfattr.datasets.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SAMPLE_PHOTOGRAPHS,
    ImageFiles,
    ImageLoader,
    UnreadableImageError,
    read_image,
    sample_images,
    standardize,
)

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def noise(path, size=(12, 9), mode="RGB", seed=0, **options):
    """Write a noise image of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "RGBA": 4, "LA": 2}.get(mode)
    shape = (size[1], size[0]) if channels is None else (size[1], size[0], channels)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values, mode=mode if mode == "LA" else None).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes of three PNG images each; one of the images does not decode."""
    for index in range(6):
        noise(tmp_path / ("cat", "dog")[index // 3] / f"{index}.png", seed=index)
    return tmp_path


def truncated(path):
    noise(path, size=(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


# closed form


def test_pixels_are_scaled_and_normalised_channel_by_channel(tmp_path):
    Image.new("RGB", (8, 8), (255, 0, 51)).save(tmp_path / "flat.png")
    image = ImageFiles(tmp_path, size=4)[0]
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    for channel, value in enumerate(expected):
        assert torch.allclose(image[channel], torch.tensor(value), rtol=1e-5)
    assert image.dtype == torch.float32


def test_the_shorter_side_is_resized_and_the_centre_cropped(tmp_path):
    # Height 4, width 12: red, green and blue thirds; the centre square is the green third.
    stripes = np.zeros((4, 12, 3), dtype=np.uint8)
    for third in range(3):
        stripes[:, 4 * third : 4 * third + 4, third] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    image = ImageFiles(tmp_path, size=4, **PLAIN)[0]
    assert torch.equal(image, torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand(3, 4, 4))


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


def test_standardize_takes_batches():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    expected = torch.tensor([0.0, 0.1, 2.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    assert torch.allclose(standardize(images, (0, 0, 0), (1, 2, 0.5)), expected, rtol=1e-6)


# independent oracle


def test_files_and_labels_are_those_of_torchvision(folder):
    noise(folder / "dog" / "deep" / "wide.JPG", size=(40, 17), seed=7)
    noise(folder / "ant" / "tall.webp", size=(15, 31), seed=8, lossless=True)
    noise(folder / "ant" / "grey.bmp", mode="L", seed=9)
    noise(folder / "ant" / "small.tif", size=(5, 6), seed=10)
    (folder / "cat" / "notes.txt").write_text("no image")
    oracle = ImageFolder(
        folder,
        transforms.Compose(
            [
                transforms.Resize(8),
                transforms.CenterCrop(8),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        ),
    )
    files = ImageFiles(folder, size=8)
    assert files.classes == ("ant", "cat", "dog")
    expected = {path: item for (path, _), item in zip(oracle.samples, oracle, strict=True)}
    assert len(files) == len(expected) == 10
    for index, path in enumerate(files.paths):
        image, label = files[index]
        expected_image, expected_label = expected[str(path)]
        assert torch.allclose(image, expected_image, rtol=1e-5, atol=1e-6)
        assert label == expected_label


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


def test_the_choice_of_files_depends_on_the_seed_alone(folder):
    names = [
        [path.name for path in ImageFiles(folder, count=3, seed=seed).paths] for seed in (0, 0, 1, 2, 3, 4)
    ]
    assert names[0] == names[1]
    assert len({tuple(chosen) for chosen in names}) > 1
    for chosen in names:
        assert chosen == sorted(set(chosen))
        assert len(chosen) == 3


def test_labels_of_a_choice_are_those_of_all_files(folder):
    everything = ImageFiles(folder)
    labels = dict(zip(everything.paths, everything.labels, strict=True))
    assert everything.labels == (0, 0, 0, 1, 1, 1)
    some = ImageFiles(folder, count=2, seed=3)
    assert some.labels == tuple(labels[path] for path in some.paths)
    assert some.classes == ("cat", "dog")


def test_a_count_above_the_number_of_files_takes_all(folder):
    assert ImageFiles(folder, count=100).paths == ImageFiles(folder).paths


def test_a_flat_folder_has_no_labels(tmp_path):
    for index in range(3):
        noise(tmp_path / f"{index}.png", seed=index)
    files = ImageFiles(tmp_path, size=4)
    assert files.labels is None
    assert files.classes == ()
    (batch,) = ImageLoader(files)
    assert torch.equal(batch, torch.stack([files[0], files[1], files[2]]))


def test_hidden_files_and_folders_are_passed_over(folder):
    (folder / "cat" / "._0.png").write_bytes(b"what macOS leaves behind")
    noise(folder / ".cache" / "thumbnail.png")
    files = ImageFiles(folder)
    assert [path.name for path in files.paths] == [f"{index}.png" for index in range(6)]
    assert files.classes == ("cat", "dog")


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_hold_every_image_in_order(folder, batch_size, num_workers):
    files = ImageFiles(folder, size=8)
    loader = ImageLoader(files, batch_size, num_workers)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-6 // batch_size)
    images = torch.cat([images for images, _ in batches])
    assert torch.equal(images, torch.stack([files[index][0] for index in range(6)]))
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1, 1, 1]
    assert [len(labels) for _, labels in loader] == [len(labels) for _, labels in batches]


def test_a_loader_takes_any_dataset_of_pairs():
    pairs = torch.utils.data.TensorDataset(torch.arange(3.0), torch.tensor([5, 6, 7]))
    assert [[x.tolist(), y.tolist()] for x, y in ImageLoader(pairs, batch_size=2)] == [
        [[0.0, 1.0], [5, 6]],
        [[2.0], [7]],
    ]


# limit case: files that cannot be read


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_files_are_passed_over_and_recorded(folder, num_workers):
    (folder / "cat" / "1.png").write_bytes(b"garbage")
    (folder / "dog" / "3.jpg").write_bytes(b"\xff\xd8\xff\xe0 garbage")
    truncated(folder / "dog" / "4.png")
    (folder / "dog" / "5.png").write_bytes(b"")
    noise(folder / "dog" / "6.png", seed=6)
    noise(folder / "dog" / "7.png", seed=7)
    (folder / "dog" / "8.webp").write_bytes(b"RIFF")
    (folder / "dog" / "9.bmp").write_bytes(b"BM")
    files = ImageFiles(folder, size=8)
    batches = list(ImageLoader(files, 2, num_workers))
    # Of the pairs 0 (1) | 2 (3.jpg) | 3.png (4) | (5) 6 | 7 (8) | (9) the readable remain.
    assert [labels.tolist() for _, labels in batches] == [[0], [0], [1], [1], [1]]
    assert torch.equal(batches[3][0][0], files[7][0])
    damaged = ("cat/1.png", "dog/3.jpg", "dog/4.png", "dog/5.png", "dog/8.webp", "dog/9.bmp")
    names = {str(folder / name) for name in damaged}
    assert set(files.unreadable) == names
    assert "UnidentifiedImageError" in files.unreadable[str(folder / "cat/1.png")]
    assert "truncated" in files.unreadable[str(folder / "dog/4.png")]
    list(ImageLoader(files, 2, num_workers))
    assert set(files.unreadable) == names


def test_a_file_that_vanished_is_unreadable(folder):
    files = ImageFiles(folder, size=8)
    files.paths[0].unlink()
    assert sum(len(labels) for _, labels in ImageLoader(files)) == 5
    assert "FileNotFoundError" in files.unreadable[str(files.paths[0])]


# errors


@pytest.mark.parametrize("num_workers", [0, 2])
def test_strict_stops_at_an_unreadable_file(folder, num_workers):
    truncated(folder / "dog" / "4.png")
    files = ImageFiles(folder, size=8, strict=True)
    with pytest.raises(ValueError, match=r"image file .*4\.png cannot be read: OSError: .*truncated"):
        list(ImageLoader(files, num_workers=num_workers))
    assert list(files.unreadable) == [str(folder / "dog" / "4.png")]


def test_asking_for_an_unreadable_file_names_it(folder):
    truncated(folder / "cat" / "0.png")
    with pytest.raises(UnreadableImageError, match=r"0\.png cannot be read"):
        ImageFiles(folder)[0]


def test_an_image_of_numbers_without_a_range_is_unreadable(tmp_path):
    Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(UnreadableImageError, match="at most 16 bits, got values up to 70000"):
        read_image(tmp_path / "wide.tif")


def test_no_readable_file_at_all_is_an_error(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"images: expected a readable file, got 3 unreadable .*0\.jpg"):
        list(ImageLoader(ImageFiles(tmp_path), batch_size=2))


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a folder of images, but .*absent does not exist"):
        ImageFiles(tmp_path / "absent")
    file = tmp_path / "file.png"
    noise(file)
    with pytest.raises(ValueError, match=r"path: expected a folder of images, but .*file\.png is a file"):
        ImageFiles(file)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"empty holds no file ending in \.jpg \.jpeg \.png"):
        ImageFiles(tmp_path / "empty")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size: expected a positive integer, got 0"),
        ({"size": 2.5}, TypeError, "size: expected a positive integer"),
        ({"count": 0}, ValueError, "count: expected a positive integer, got 0"),
        ({"count": True}, TypeError, "count: expected a positive integer"),
        ({"mean": (0.5, 0.5)}, ValueError, "mean: expected three numbers"),
        ({"mean": 0.5}, ValueError, "mean: expected three numbers"),
        ({"mean": (0.5, 0.5, "0.5")}, ValueError, "mean: expected three numbers"),
        ({"std": (1, 0, 1)}, ValueError, "std: expected three positive numbers"),
        ({"std": (1, float("nan"), 1)}, ValueError, "std: expected three positive numbers"),
    ],
)
@pytest.mark.parametrize("source", ["folder", "samples"])
def test_arguments_out_of_range(folder, source, options, error, message):
    function = {"folder": partial(ImageFiles, folder), "samples": sample_images}[source]
    with pytest.raises(error, match=message):
        function(**options)


def test_more_sample_images_than_there_are():
    with pytest.raises(ValueError, match="count: expected at most 64 sample images, got 65"):
        sample_images(65)


def test_missing_photographs(monkeypatch):
    monkeypatch.setattr(datasets, "SAMPLE_PHOTOGRAPHS", ("absent.png",))
    with pytest.raises(FileNotFoundError, match=r"absent\.png is not there; scikit-image's wheel holds it"):
        sample_images(1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: expected a positive integer, got 0"),
        ({"batch_size": 1.0}, TypeError, "batch_size: expected a positive integer"),
        ({"num_workers": -1}, ValueError, "num_workers: expected an integer of at least 0, got -1"),
        ({"num_workers": "2"}, TypeError, "num_workers: expected an integer of at least 0"),
    ],
)
def test_loader_arguments_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        ImageLoader(torch.zeros(2, 3, 4, 4), **options)


# caller untouched


@pytest.mark.parametrize("num_workers", [0, 1])
def test_global_random_numbers_are_not_used(folder, num_workers):
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    sample_images(2, size=8)
    list(ImageLoader(ImageFiles(folder, size=8, count=2), num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_the_photographs_are_in_the_wheel():
    assert len(set(SAMPLE_PHOTOGRAPHS)) == 8
    for name in SAMPLE_PHOTOGRAPHS:
        assert read_image(datasets._photograph(name)).size >= (300, 300)
