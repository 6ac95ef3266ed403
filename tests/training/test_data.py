from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from erfattr.datasets.micro_objects import MicroObjectDataset
from erfattr.datasets.preprocessing import UnreadableImageError, standardize
from erfattr.models.demo import demo_record
from erfattr.training.data import TrainingImages, find_images, split_indices
from erfattr.training.recipes import Augmentation, Recipe

MICRO = Recipe("small", "micro_object", epochs=2, size=8, stored_size=8, object_size=3, map_size=16)
CLASSES = Recipe("classes", "classification", epochs=2, size=8, map_size=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 images of one colour each: image k of class c is (k, c, 0)."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.new("RGB", (12, 10), (index, label, 0)).save(tmp_path / name / f"image_{index:04d}.png")
    return tmp_path


# Splits.


def test_a_split_is_70_15_15_of_each_class_and_leaves_nothing_out() -> None:
    names = [f"{label}/{index}" for label in range(3) for index in range(40 * (label + 1))]
    labels = [int(name[0]) for name in names]
    split = split_indices(names, labels)
    assert sorted(sum(split, ())) == list(range(240))
    for label, count in enumerate((40, 80, 120)):
        sizes = [sum(labels[index] == label for index in part) for part in split]
        assert sizes == [0.7 * count, 0.15 * count, 0.15 * count]


def test_a_split_is_the_order_of_the_hashes() -> None:
    names = [f"image {index}" for index in range(20)]
    by_hash = sorted(names, key=lambda name: hashlib.sha256(f"7/{name}".encode()).digest())
    split = split_indices(names, seed=7)
    assert {names[index] for index in split.test} == set(by_hash[:3])
    assert {names[index] for index in split.validation} == set(by_hash[3:6])


def test_a_split_does_not_depend_on_the_order_and_changes_with_the_seed() -> None:
    names = [str(index) for index in range(100)]
    forward, backward = split_indices(names), split_indices(names[::-1])
    for one, other in zip(forward, backward, strict=True):
        assert {names[index] for index in one} == {names[::-1][index] for index in other}
    assert split_indices(names, seed=1) != forward


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["a", "a"], None, "names: expected a different name for each image"),
        (["a", "b"], [0], "labels: expected one for each of 2 names, got 1"),
        (["a", "b", "c"], None, "got 3, which leaves none for validation|got 3, which leaves none for test"),
        ([], None, "got 0, which leaves none for train"),
    ],
)
def test_bad_splits(names: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_indices(names, labels)


@pytest.mark.slow
@pytest.mark.skipif("ERFATTR_CALTECH101" not in os.environ, reason="needs the folder of Caltech-101")
def test_the_split_of_caltech101_is_the_one_of_the_demo_network() -> None:
    source = find_images(os.environ["ERFATTR_CALTECH101"])
    split = split_indices(source.names, source.labels)
    assert {name: len(part) for name, part in split._asdict().items()} == demo_record()["split"]


# Sources.


def test_a_folder_of_classes(folder: Path) -> None:
    source = find_images(folder)
    assert source.classes == ("cat", "dog")
    assert source.names[0] == "cat/image_0000"
    assert source.labels == (0,) * 20 + (1,) * 20
    assert source.paths[20] == folder / "dog" / "image_0000.png"
    assert source.fingerprint == find_images(folder).fingerprint
    (folder / "dog" / "image_0000.png").rename(folder / "dog" / "other.png")
    assert find_images(folder).fingerprint != source.fingerprint


def test_a_flat_folder_has_one_class(folder: Path) -> None:
    source = find_images(folder / "cat")
    assert source.classes == ()
    assert source.labels == (0,) * 20


def test_caltech101_as_torchvision_keeps_it_without_its_background_class(tmp_path: Path) -> None:
    categories = tmp_path / "caltech101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "ant", "zebra"):
        (categories / name).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (4, 4)).save(categories / name / f"image_{number:04d}.jpg")
    (tmp_path / "caltech101" / "Annotations").mkdir()
    source = find_images(tmp_path)
    assert source.classes == ("ant", "zebra")
    assert source.names == tuple(f"{name}/image_{n:04d}" for name in ("ant", "zebra") for n in (1, 2))
    assert all(path.is_file() for path in source.paths)


def test_nothing_is_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr("torchvision.datasets.Caltech101.download", download)
    with pytest.raises(ValueError, match=r"path: expected a folder of images, but .* holds no file"):
        find_images(tmp_path)
    with pytest.raises(AssertionError, match="a download was begun"):
        find_images(tmp_path, download=True)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none does not exist"):
        find_images(tmp_path / "none")
    for ending in ("png", "jpg"):
        Image.new("RGB", (2, 2)).save(tmp_path / f"same.{ending}")
    with pytest.raises(ValueError, match="differ in more than their ending, got same twice"):
        find_images(tmp_path)


# Prepared images.


def mean_red(images: Tensor) -> set[int]:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    values = 255 * (images.mean((-2, -1)) * std + mean)
    return {round(float(value)) for value in values[..., 0].flatten()}


@pytest.mark.parametrize("stored", [None, 8])
def test_the_parts_share_no_image_and_all_are_there(folder: Path, stored: int | None) -> None:
    recipe = Recipe("classes", "classification", epochs=2, size=8, stored_size=stored)
    images = TrainingImages(find_images(folder), recipe)
    data = images.prepared(seed=0)
    seen = [
        {(*mean_red(image), int(label)) for image, label in part}
        for part in (data.train, data.validation, data.test)
    ]
    assert [len(part) for part in seen] == [28, 6, 6]
    assert set.union(*seen) == {(index, label) for index in range(20) for label in range(2)}
    assert data.classes == ("cat", "dog")


def test_micro_objects_lie_on_templates_of_their_own_part(folder: Path) -> None:
    data = TrainingImages(find_images(folder), MICRO).prepared(seed=3)
    assert all(isinstance(part, MicroObjectDataset) for part in (data.train, data.validation, data.test))
    assert (data.train.seed, data.train.fixed) == (3, False)
    assert all(part.fixed and part.seed == 0 for part in (data.validation, data.test))
    assert data.classes == ("(0, 0, 0)", "(255, 0, 0)")
    assert [len(data.train), len(data.validation), len(data.test)] == [28, 6, 6]
    for image, label in data.test:
        color = standardize(torch.tensor(MICRO.colors[label], dtype=torch.uint8).view(3, 1, 1))
        assert int((image == color).all(0).sum()) == 9


def test_only_training_images_are_augmented(folder: Path) -> None:
    recipe = Recipe("c", "classification", 2, 8, augmentation=Augmentation(jitter=0.9), stored_size=8)
    data = TrainingImages(find_images(folder), recipe).prepared(seed=0)
    before = [part[0][0].clone() for part in (data.train, data.validation, data.test)]
    for part in (data.train, data.validation, data.test):
        part.set_epoch(1)
    after = [part[0][0] for part in (data.train, data.validation, data.test)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [False, True, True]


def test_maps_are_of_test_images_at_the_map_size(folder: Path) -> None:
    images = TrainingImages(find_images(folder), CLASSES)
    test = mean_red(torch.stack([image for image, _ in images.prepared(0).test]))
    assert images.maps(100).shape == (6, 3, 16, 16)
    assert mean_red(images.maps(100)) == test
    assert images.maps(2).shape == (2, 3, 16, 16)
    assert mean_red(images.maps(2)) < test
    with_objects = TrainingImages(find_images(folder), MICRO).maps(2)
    assert [len(image.flatten(1).unique(dim=1).T) for image in with_objects] == [2, 2]


def test_one_class_cannot_be_classified(folder: Path) -> None:
    with pytest.raises(ValueError, match="a subfolder for each of two or more classes, got 0"):
        TrainingImages(find_images(folder / "cat"), CLASSES)


def test_an_unreadable_file_is_named(folder: Path) -> None:
    (folder / "dog" / "image_0003.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImageError, match=r"image_0003\.png"):
        TrainingImages(find_images(folder), MICRO)
