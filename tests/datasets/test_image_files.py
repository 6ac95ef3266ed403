"""Folders of image files: which files, which labels, which choice."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from erfattr.datasets.image_files import ENDINGS, ImageFiles
from erfattr.datasets.image_loader import ImageLoader
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD, UnreadableImageError
from erfattr.training.data import find_images, split_indices

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


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


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_other_sides_and_channels(tmp_path, channels):
    # Height 4, width 12: the middle 4 x 6 lies in columns 3 to 8, half of them of each colour.
    halves = np.zeros((4, 12, 4), dtype=np.uint8)
    halves[:, :6] = (255, 0, 0, 255)
    halves[:, 6:] = (0, 0, 255, 51)
    Image.fromarray(halves).save(tmp_path / "halves.png")
    files = ImageFiles(tmp_path, (4, 6), mean=(0,) * channels, std=(1,) * channels, channels=channels)
    assert (files.size, files.channels) == ((4, 6), channels)
    image = files[0]
    assert image.shape == (channels, 4, 6)
    # On white, alpha of a fifth leaves four fifths of it.
    expected = {
        1: ([76 / 255], [round(0.299 * 204 + 0.587 * 204 + 0.114 * 255) / 255]),
        3: ([1, 0, 0], [0.8, 0.8, 1]),
        4: ([1, 0, 0, 1], [0, 0, 1, 0.2]),
    }[channels]
    for side, values in ((image[:, :, :3], expected[0]), (image[:, :, 3:], expected[1])):
        assert torch.allclose(
            side, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).expand(channels, 4, 3)
        )


# independent oracle


def test_endings_are_those_of_torchvision():
    assert ENDINGS == IMG_EXTENSIONS


def test_files_and_labels_are_those_of_torchvision(folder, noise):
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


# invariance


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


def test_a_flat_folder_has_no_labels(tmp_path, noise):
    for index in range(3):
        noise(tmp_path / f"{index}.png", seed=index)
    files = ImageFiles(tmp_path, size=4)
    assert files.labels is None
    assert files.classes == ()
    assert files[0].shape == (3, 4, 4)


def test_hidden_files_and_folders_are_passed_over(folder, noise):
    (folder / "cat" / "._0.png").write_bytes(b"what macOS leaves behind")
    noise(folder / ".cache" / "thumbnail.png")
    files = ImageFiles(folder)
    assert [path.name for path in files.paths] == [f"{index}.png" for index in range(6)]
    assert files.classes == ("cat", "dog")


# errors


def test_asking_for_an_unreadable_file_names_it(folder, truncated):
    truncated(folder / "cat" / "0.png")
    with pytest.raises(UnreadableImageError, match=r"0\.png cannot be read"):
        ImageFiles(folder)[0]


def test_folders_without_images(tmp_path, noise):
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
        ({"size": (4, 0)}, ValueError, "size: expected a positive integer, got 0"),
        ({"channels": 2}, ValueError, "channels: expected one of 1, 3, 4, got 2"),
        ({"channels": 1, "mean": (0, 0, 0)}, ValueError, "mean: expected one number"),
        ({"mean": (0.5, 0.5)}, ValueError, "mean: expected three numbers"),
        ({"mean": 0.5}, ValueError, "mean: expected three numbers"),
        ({"mean": (0.5, 0.5, "0.5")}, ValueError, "mean: expected three numbers"),
        ({"std": (1, 0, 1)}, ValueError, "std: expected three positive numbers"),
        ({"std": (1, float("nan"), 1)}, ValueError, "std: expected three positive numbers"),
    ],
)
def test_arguments_out_of_range(folder, options, error, message):
    with pytest.raises(error, match=message):
        ImageFiles(folder, **options)


# -- folders with more in them than images --


@pytest.fixture
def crowded(tmp_path):
    """Two classes of two images each."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (4, 4), (60 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_a_folder_that_links_lead_to_again_counts_once(crowded):
    (crowded / "self").symlink_to(".")
    (crowded / "cat" / "up").symlink_to("..")
    (crowded / "again").symlink_to("cat")
    files = ImageFiles(crowded, 4)
    assert len(files) == 4
    assert (files.classes, files.labels) == (("cat", "dog"), (0, 0, 1, 1))


def test_a_link_to_nothing_is_passed_over_and_named(crowded):
    (crowded / "cat" / "gone.png").symlink_to("nowhere")
    files = ImageFiles(crowded, 4)
    images = [image for batch, _ in ImageLoader(files, 3) for image in batch]
    assert len(images) == 4
    (name, reason) = next(iter(files.unreadable.items()))
    assert name.endswith("gone.png")
    assert "No such file" in reason


def test_a_pipe_is_not_waited_for(crowded):
    os.mkfifo(crowded / "dog" / "pipe.jpg")
    files = ImageFiles(crowded, 4)
    assert len(files) == 4
    assert files.unreadable == {str(crowded / "dog" / "pipe.jpg"): "no regular file"}


def test_a_folder_that_cannot_be_listed_is_named(crowded, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    files = ImageFiles(crowded, 4)
    assert len(files) == 2
    assert files.unreadable == {str(crowded / "dog"): "PermissionError: Permission denied"}
    with pytest.raises(ValueError, match=r"readable images, but of .*dog: PermissionError"):
        ImageFiles(crowded / "dog", 4)


def test_names_that_are_no_text_are_files_like_any_other(crowded):
    name = os.fsencode(crowded / "cat") + b"/na\xffme.png"
    with open(name, "wb") as file:  # noqa: PTH123
        Image.new("RGB", (4, 4)).save(file, "PNG")
    assert len(ImageFiles(crowded, 4)) == 5
    source = find_images(crowded)
    assert len(source.fingerprint) == 64
    many = [f"{name}{number}" for name in source.names for number in range(4)]
    assert sum(len(part) for part in split_indices(many)) == 20
