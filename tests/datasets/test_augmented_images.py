from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from erfattr.datasets.augmented_images import AugmentedDataset
from erfattr.datasets.preprocessing import standardize

NONE: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def noise(count: int = 12, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def drawn(images: AugmentedDataset, **options: Any) -> Tensor:
    return torch.cat(list(DataLoader(images, batch_size=5, generator=torch.Generator(), **options)))


JITTER = v2.ColorJitter(0.5, 0.5)


# What an item is.


def test_without_a_transform_an_item_is_the_normalised_image_with_what_came_beside_it() -> None:
    images = noise()
    items = AugmentedDataset([(image, index) for index, image in enumerate(images)])
    assert len(items) == 12
    image, label = items[7]
    assert label == 7
    assert torch.equal(image, standardize(images[7]))
    assert torch.equal(AugmentedDataset(images)[7], image)


def test_all_kinds_of_images_are_one() -> None:
    pixels = noise(1)
    kinds = [
        pixels[0],
        pixels[0].double() / 255,
        Image.fromarray(pixels[0].permute(1, 2, 0).numpy()),
    ]
    for image in AugmentedDataset(kinds, **NONE):
        torch.testing.assert_close(image, pixels[0] / 255, rtol=1e-6, atol=0)
    grey = Image.fromarray(np.full((2, 2), 51, dtype=np.uint8))
    assert AugmentedDataset([grey], **NONE)[0].tolist() == [[[np.float32(0.2)] * 2] * 2] * 3


def test_the_transform_is_torchvisions_own_of_the_seed() -> None:
    # The oracle draws the item's seed as the class says: from seed and epoch, and the index as the spawn key.
    images = noise()
    items = AugmentedDataset(images, JITTER, seed=3, **NONE)
    items.set_epoch(5)
    numbers = np.random.default_rng(np.random.SeedSequence((3, 5), spawn_key=(4,)))
    torch.manual_seed(int(numbers.integers(2**63)))
    assert torch.equal(items[4], JITTER(images[4]) / 255)


# What an item depends on.


def test_items_change_with_seed_epoch_and_index_alone() -> None:
    images = noise(1).expand(12, -1, -1, -1)
    items = AugmentedDataset(images, JITTER, seed=1)
    first = drawn(items)
    assert len({tuple(item.flatten().tolist()) for item in first}) == 12
    torch.rand(17)
    assert torch.equal(items[3], first[3])
    items.set_epoch(1)
    second = drawn(items)
    assert not torch.isclose(first, second).flatten(1).all(1).any()
    items.set_epoch(0)
    assert torch.equal(drawn(items), first)
    assert not torch.isclose(drawn(AugmentedDataset(images, JITTER, seed=2)), first).flatten(1).all(1).any()


def test_fixed_items_are_the_same_in_every_epoch_and_others_than_those_of_the_first() -> None:
    images = noise()
    items = AugmentedDataset(images, JITTER, fixed=True)
    first = drawn(items)
    items.set_epoch(9)
    assert torch.equal(drawn(items), first)
    assert not torch.equal(drawn(AugmentedDataset(images, JITTER)), first)


@pytest.mark.parametrize(
    ("persistent", "context"),
    [(False, "fork"), (True, "fork"), pytest.param(True, "spawn", marks=pytest.mark.slow)],
)
def test_workers_give_the_same_items_and_hear_of_a_new_epoch(persistent: bool, context: str) -> None:
    images = noise()
    alone, shared = (AugmentedDataset(images, JITTER, seed=2) for _ in range(2))
    loader = DataLoader(
        shared,
        batch_size=5,
        num_workers=2,
        persistent_workers=persistent,
        multiprocessing_context=context,
        generator=torch.Generator(),
    )
    for epoch in (0, 1, 4):
        alone.set_epoch(epoch)
        shared.set_epoch(epoch)
        assert torch.equal(torch.cat(list(loader)), drawn(alone)), epoch


def test_a_pass_that_was_broken_off_leaves_nothing_of_its_epoch_behind() -> None:
    images = noise()
    items = AugmentedDataset(images, JITTER)
    loader = DataLoader(
        items, batch_size=1, num_workers=2, persistent_workers=True, generator=torch.Generator()
    )
    next(iter(loader))
    items.set_epoch(1)
    second = torch.cat(list(loader))
    assert torch.equal(second, drawn(items))


# Errors.


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (iter([1]), {}, TypeError, "images: expected a data set with a length"),
        ([], {}, ValueError, "images: expected at least one image, got none"),
        (noise(), {"transform": 3}, TypeError, "transform: expected a callable or None, got 3"),
        (noise(), {"seed": 1.0}, TypeError, "seed: expected an integer of at least 0, got 1.0"),
        (noise(), {"seed": -1}, ValueError, "seed: expected an integer of at least 0, got -1"),
        (noise(), {"mean": (0, 0)}, ValueError, "mean: expected three numbers"),
        (noise(), {"std": (1, 1, 0)}, ValueError, "std: expected three positive numbers"),
    ],
)
def test_bad_arguments(images: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AugmentedDataset(images, **options)


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ("photo.jpg", TypeError, "images: expected PIL images, or uint8 or floating-point tensors"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), TypeError, "got a tensor of shape .* and dtype int64"),
        (torch.zeros(1, 2, 2), ValueError, r"images: expected tensors of shape \(3, H, W\)"),
        (torch.zeros(2, 2), ValueError, r"images: expected tensors of shape \(3, H, W\)"),
    ],
)
def test_bad_items(item: Any, error: type[Exception], message: str) -> None:
    items = AugmentedDataset([item])
    with pytest.raises(error, match=message):
        items[0]


def test_an_index_beyond_the_end_ends_a_loop() -> None:
    items = AugmentedDataset(noise(3))
    assert len(list(items)) == 3
    with pytest.raises(IndexError, match="index: expected 0 to 2, got 3"):
        items[3]


# Caller untouched.


def test_random_state_and_images_come_back_as_they_were() -> None:
    images = noise()
    kept = images.clone()
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    drawn(AugmentedDataset(images, JITTER))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(images, kept)
