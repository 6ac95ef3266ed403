from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from erfattr.datasets.micro_objects import BLACK, RED, MicroObjectDataset
from erfattr.datasets.preprocessing import standardize

NONE: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def white(count: int = 10, size: int = 12) -> Tensor:
    return torch.full((count, 3, size, size), 255, dtype=torch.uint8)


def object_box(image: Tensor) -> tuple[int, int, int, int]:
    """Return top, left, height, width of what is not white."""
    changed = (image != 1).any(0)
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    assert changed.sum() == len(rows) * len(columns)
    return int(rows[0]), int(columns[0]), len(rows), len(columns)


# Closed form.


@pytest.mark.parametrize("side", [1, 4, 12])
def test_size_and_colour_are_exact_whatever_was_done_to_the_template(side: int) -> None:
    colors = ((0, 0, 0), (255, 0, 0), (1, 2, 254))
    blur = v2.Compose([v2.RandomRotation(30), v2.ColorJitter(0.9), v2.GaussianBlur(3)])
    templates = torch.randint(0, 256, (9, 3, 12, 12), dtype=torch.uint8)
    for image, label in MicroObjectDataset(templates, side, colors, blur):
        color = standardize(torch.tensor(colors[label], dtype=torch.uint8).view(3, 1, 1))
        assert int((image == color).all(0).sum()) >= side**2
    for image, label in MicroObjectDataset(white(9), side, colors, **NONE):
        top, left, height, width = object_box(image)
        assert (height, width) == (side, side)
        assert (image[:, top, left] * 255).tolist() == list(colors[label])


def test_defaults_are_the_papers() -> None:
    items = MicroObjectDataset(white(2, 224), **NONE)
    assert items.colors == (BLACK, RED) == ((0, 0, 0), (255, 0, 0))
    assert object_box(items[0][0])[2:] == (8, 8)


def test_floating_point_templates_get_the_same_objects() -> None:
    as_bytes, as_floats = (MicroObjectDataset(images, 3) for images in (white(), white() / 255))
    for index in range(10):
        torch.testing.assert_close(as_floats[index][0], as_bytes[index][0], rtol=1e-6, atol=1e-6)


def test_labels_of_the_templates_are_not_used() -> None:
    items = MicroObjectDataset([(image, 77) for image in white(4)], 3)
    assert sorted(items[index][1] for index in range(4)) == [0, 0, 1, 1]


# Distribution.


def test_every_place_is_equally_likely_and_independent_of_the_class() -> None:
    items = MicroObjectDataset(white(3600, 5), 3, **NONE)
    drawn = Counter((*object_box(image)[:2], label) for image, label in items)
    assert set(drawn) == {(y, x, label) for y in range(3) for x in range(3) for label in range(2)}
    # Of 18 cells with 200 expected in each; the seed is fixed, so this fails always or never.
    assert chisquare(list(drawn.values())).pvalue > 0.01


@pytest.mark.parametrize("classes", [2, 3])
def test_every_epoch_shares_its_items_equally_among_classes_and_draws_them_anew(classes: int) -> None:
    colors = ((0, 0, 0), (255, 0, 0), (0, 255, 0))[:classes]
    items = MicroObjectDataset(white(100), 3, colors)
    epochs = []
    for epoch in range(3):
        items.set_epoch(epoch)
        labels = [items[index][1] for index in range(100)]
        counts = [labels.count(label) for label in range(classes)]
        assert max(counts) - min(counts) <= 1
        epochs.append(labels)
    assert epochs[0] != epochs[1] != epochs[2]
    items.set_epoch(0)
    assert [items[index][1] for index in range(100)] == epochs[0]


# What an item depends on.


def test_a_place_does_not_depend_on_the_template_or_its_transform() -> None:
    bare = MicroObjectDataset(white(), 3, seed=4, **NONE)
    changed = MicroObjectDataset(white(), 3, transform=v2.RandomHorizontalFlip(), seed=4, **NONE)
    assert [object_box(bare[i][0]) for i in range(10)] == [object_box(changed[i][0]) for i in range(10)]


def test_a_fixed_data_set_is_the_same_in_every_epoch() -> None:
    items = MicroObjectDataset(white(), 3, fixed=True)
    before = [items[index] for index in range(10)]
    items.set_epoch(3)
    for (image, label), (again, label_again) in zip(before, items, strict=True):
        assert torch.equal(image, again)
        assert label == label_again


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_give_the_same_objects_and_hear_of_a_new_epoch(persistent: bool) -> None:
    alone, shared = (MicroObjectDataset(white(), 3, seed=2) for _ in range(2))
    loader = DataLoader(shared, 4, num_workers=2, persistent_workers=persistent, generator=torch.Generator())
    for epoch in (0, 1, 5):
        alone.set_epoch(epoch)
        shared.set_epoch(epoch)
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert torch.equal(images, torch.stack([alone[index][0] for index in range(10)])), epoch
        assert labels.tolist() == [alone[index][1] for index in range(10)], epoch


# Limit case: the object is the image.


def test_an_object_as_large_as_the_image() -> None:
    items = MicroObjectDataset(white(2, 4), 4, **NONE)
    assert sorted(items[index][0].sum().item() for index in range(2)) == [0.0, 16.0]


# Errors.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (13,),
            ValueError,
            "object_size: expected at most the image's 12 pixels, got 13 .*image 0 is 12 x 12",
        ),
        ((0,), ValueError, "object_size: expected a positive integer, got 0"),
        ((2.0,), TypeError, "object_size: expected a positive integer, got 2.0"),
        ((2, [(0, 0, 0)]), ValueError, "colors: expected two or more different colours"),
        ((2, [RED, RED]), ValueError, "colors: expected two or more different colours"),
        ((2, [BLACK, (256, 0, 0)]), ValueError, r"colors: expected values from 0 to 255, got \(256, 0, 0\)"),
        ((2, [BLACK, (0, -1, 0)]), ValueError, r"colors: expected values from 0 to 255, got \(0, -1, 0\)"),
        ((2, [BLACK, (0.5, 0, 0)]), TypeError, "colors: expected triples of integers"),
        ((2, [BLACK, (0, 0)]), TypeError, r"colors: expected triples \(red, green, blue\)"),
        ((2, 5), TypeError, r"colors: expected triples \(red, green, blue\)"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MicroObjectDataset(white(), *arguments)


def test_a_later_template_that_is_too_small_is_named() -> None:
    items = MicroObjectDataset([white(1)[0], torch.zeros(3, 12, 2)], 3)
    with pytest.raises(ValueError, match="image 1 is 12 x 2"):
        items[1]
    with pytest.raises(IndexError, match="expected 0 to 1, got 2"):
        items[2]


# Caller untouched.


def test_templates_and_random_state_come_back_as_they_were() -> None:
    templates = white()
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    list(MicroObjectDataset(templates, 3, transform=v2.RandomHorizontalFlip()))
    assert torch.equal(templates, white())
    assert torch.equal(torch.random.get_rng_state(), state)
