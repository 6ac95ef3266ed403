"""The test images of CUB-200-2011, from a folder laid out as the archive's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cub import cub_test_images
from PIL import Image

from erfattr import ImageLoader
from erfattr.datasets.preprocessing import standardize

IMAGES = {
    "1": ("001.Albatross/Albatross_0001.jpg", "0", (10, 0, 0)),
    "2": ("001.Albatross/Albatross_0002.jpg", "1", (20, 0, 0)),
    "3": ("002.Wren/Wren_0001.jpg", "1", (30, 0, 0)),
    "4": ("002.Wren/Wren_0002.jpg", "0", (40, 0, 0)),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "CUB_200_2011"
    for name, _, color in IMAGES.values():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), color).save(path, quality=100)
    (folder / "images.txt").write_text("".join(f"{number} {one[0]}\n" for number, one in IMAGES.items()))
    split = "".join(f"{number} {one[1]}\n" for number, one in IMAGES.items())
    (folder / "train_test_split.txt").write_text(split)
    return folder


def test_test_images_in_order_with_their_classes(root: Path) -> None:
    ((images, labels),) = ImageLoader(cub_test_images(root, 4), batch_size=8)
    assert labels.tolist() == [0, 1]
    for image, red in zip(images, (10, 40), strict=True):
        expected = standardize(torch.tensor([red, 0, 0]).view(3, 1, 1))
        # JPEG rounds colours by up to one step.
        assert (image.mean((1, 2)) - expected.flatten()).abs().max() < 2 / 255 / 0.224


@pytest.mark.parametrize("name", ["images.txt", "train_test_split.txt"])
def test_missing_split_file_says_where_to_get_it(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"root: .*{name} is not there; .*CUB_200_2011.tgz"):
        cub_test_images(root)


def test_missing_images(root: Path) -> None:
    (root / "images").rename(root / "pictures")
    with pytest.raises(FileNotFoundError, match=r"root: .*images is not there"):
        cub_test_images(root)


def test_split_of_another_form(root: Path) -> None:
    (root / "train_test_split.txt").write_text("1 0 0\n")
    with pytest.raises(ValueError, match=r"root: expected lines of a number and a word .* got '1 0 0'"):
        cub_test_images(root)


def test_split_files_that_disagree(root: Path) -> None:
    (root / "train_test_split.txt").write_text("1 0\n")
    with pytest.raises(ValueError, match="two split files to list the same images"):
        cub_test_images(root)


def test_split_without_a_test_image_that_is_there(root: Path) -> None:
    (root / "train_test_split.txt").write_text("".join(f"{number} 1\n" for number in IMAGES))
    with pytest.raises(ValueError, match=r"root: expected test images .* found none"):
        cub_test_images(root)
