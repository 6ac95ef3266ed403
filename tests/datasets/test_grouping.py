from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from erfattr import ImageFiles, ImageLoader
from erfattr.datasets.grouping import Grouping


def test_images_of_a_label_are_in_one_group_and_groups_are_filled_evenly() -> None:
    labels = [*("a" * 6), *("b" * 3), *("c" * 3), *"de"]
    grouping = Grouping(labels, None, 3)
    of_image = grouping.of_batch(0, len(labels))
    groups = {
        label: {of for of, its in zip(of_image, labels, strict=True) if its == label} for label in "abcde"
    }
    assert all(len(found) == 1 for found in groups.values())
    assert [of_image.count(group) for group in range(3)] == [6, 4, 4]


def test_there_are_no_more_groups_than_labels() -> None:
    assert Grouping(torch.tensor([0, 1, 2, 0]), None, 16).groups == 3
    assert Grouping(torch.tensor([0, 1, 2, 0]), None, 16).of_batch(2, 2) == [2, 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for scene in ("one", "two", "three"):
        (tmp_path / scene).mkdir()
        for frame in range(4):
            Image.new("RGB", (8, 8), (20 * frame, 0, 0)).save(tmp_path / scene / f"{frame}.png")
    return tmp_path


def test_a_function_looks_at_the_files(folder: Path) -> None:
    loader = ImageLoader(ImageFiles(folder, 8), 5)
    grouping = Grouping(lambda path: path.parent.name, loader, 16)
    assert grouping.groups == 3
    assert [len(set(grouping.of_batch(4 * scene, 4))) for scene in range(3)] == [1, 1, 1]


def test_files_that_cannot_be_read_do_not_shift_the_labels(folder: Path) -> None:
    files = ImageFiles(folder, 8)
    files.paths[1].write_bytes(b"broken")
    loader = ImageLoader(files, 6)
    grouping = Grouping(lambda path: path.parent.name, loader, 16)
    whole = grouping.of_batch(0, 12)
    first, _ = loader
    assert len(first[0]) == 5
    assert grouping.of_batch(0, 5) == [whole[0], *whole[2:6]]
    assert grouping.of_batch(6, 6) == whole[6:]


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        (["a"] * 5, ValueError, "group: expected two or more different labels, got 1"),
        ("folder", TypeError, "group: expected a label for each image or a function of a file's path"),
        (3, TypeError, "got 3"),
        (str, ValueError, "come from no files of ImageFiles"),
    ],
)
def test_bad_groups(group: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Grouping(group, torch.zeros(5, 3, 8, 8), 4)


def test_too_few_labels_are_told_when_they_run_out() -> None:
    with pytest.raises(ValueError, match="group: expected a label for each image, got 2 for more images"):
        Grouping(["a", "b"], None, 4).of_batch(1, 3)
