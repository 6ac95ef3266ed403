"""Batches hold every readable image in order, and say which files were not readable."""

from __future__ import annotations

import threading
from threading import Event

import numpy as np
import pytest
import torch

from erfattr.datasets import image_loader
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader

# closed form


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


def test_batches_of_a_flat_folder_are_images_alone(tmp_path, noise):
    for index in range(3):
        noise(tmp_path / f"{index}.png", seed=index)
    files = ImageFiles(tmp_path, size=4)
    (batch,) = ImageLoader(files)
    assert torch.equal(batch, torch.stack([files[0], files[1], files[2]]))


def test_a_loader_takes_any_dataset_of_pairs():
    pairs = torch.utils.data.TensorDataset(torch.arange(3.0), torch.tensor([5, 6, 7]))
    assert [[x.tolist(), y.tolist()] for x, y in ImageLoader(pairs, batch_size=2)] == [
        [[0.0, 1.0], [5, 6]],
        [[2.0], [7]],
    ]


# limit case: files that cannot be read


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_files_are_passed_over_and_recorded(folder, num_workers, noise, truncated):
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
def test_strict_stops_at_an_unreadable_file(folder, num_workers, truncated):
    truncated(folder / "dog" / "4.png")
    files = ImageFiles(folder, size=8, strict=True)
    with pytest.raises(ValueError, match=r"image file .*4\.png cannot be read: OSError: .*truncated"):
        list(ImageLoader(files, num_workers=num_workers))
    assert list(files.unreadable) == [str(folder / "dog" / "4.png")]


def test_no_readable_file_at_all_is_an_error(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"images: expected a readable file, got 3 unreadable .*0\.jpg"):
        list(ImageLoader(ImageFiles(tmp_path), batch_size=2))


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
    list(ImageLoader(ImageFiles(folder, size=8, count=2), num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


class Watched(ImageFiles):
    """Notes which items are asked for, and tells when one is."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.asked = []
        self.events = [Event() for _ in self.paths]

    def __getitem__(self, index):
        self.asked.append(index)
        self.events[index].set()
        return super().__getitem__(index)


def test_files_of_the_next_batch_are_read_while_one_is_used(tmp_path, noise):
    for number in range(12):
        noise(tmp_path / f"{number:02d}.png", (20, 20), number)
    files = Watched(tmp_path, 16)
    batches = iter(ImageLoader(files, batch_size=3))
    next(batches)
    assert files.events[5].wait(30)  # the last of the second batch, though nobody has asked for that
    # Not more than that: what waits is held in memory.
    assert max(files.asked) == 5
    batches.close()
    assert sorted(files.asked) == list(range(6))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("erfattr-images")]


def test_of_large_images_fewer_are_read_ahead(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(image_loader, "_AHEAD", 2 * 3 * 16 * 16 * 4)  # two images
    for number in range(9):
        noise(tmp_path / f"{number}.png", (20, 20), number)
    files = Watched(tmp_path, 16)
    batches = iter(ImageLoader(files, batch_size=4))
    first = next(batches)
    assert files.events[5].wait(30)
    assert max(files.asked) == 5
    found = torch.cat([first, *batches])
    assert torch.equal(found, torch.stack([files[index] for index in range(9)]))
