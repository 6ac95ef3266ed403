from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as v2f

from erfattr import sample_images
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import Augmentation, Recipe, find_recipe
from erfattr.training.resident import Changes, ResidentBatches, ResidentItems, apply_changes, draw_changes
from tests.conftest import write_noise

CPU = torch.device("cpu")
PAPER = find_recipe("micro_object").augmentation
MICRO = Recipe(
    "micro",
    "micro_object",
    epochs=4,
    size=16,
    batch_size=8,
    augmentation=Augmentation(resized_crop=20, rotation=15.0, jitter=0.2, flip=True),
    object_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 30 images of noise, higher than wide."""
    root = tmp_path_factory.mktemp("images")
    write_noise(root, ("one", "two"), 30, (24, 18), 200)
    return root


def batches(folder: Path, recipe: Recipe = MICRO, seed: int = 0, **options: object) -> ResidentBatches:
    part = TrainingImages(find_images(folder), recipe).prepared(0).train
    return ResidentBatches(part, recipe, CPU, seed=seed, **options)  # type: ignore[arg-type]


def test_changes_are_those_of_torchvision() -> None:
    images = (sample_images(8, size=256, normalize=False) * 255).byte()[:, :, :200]
    squares = torch.stack([v2f.resize(image, [256, 256], antialias=True) for image in images])
    sizes = torch.tensor([[200, 256]]).expand(8, 2)
    changes = draw_changes(sizes, PAPER, torch.Generator().manual_seed(0))
    mine = apply_changes(squares, sizes, changes, 256, 224)
    assert mine.shape == (8, 3, 224, 224)
    for index, image in enumerate(images):
        top, left, height, width = changes.box[index].int().tolist()
        image = v2f.resized_crop(image, top, left, height, width, [256, 256], antialias=True)
        image = v2f.rotate(image, float(changes.angle[index]))
        image = v2f.adjust_brightness(image, float(changes.brightness[index]))
        image = v2f.adjust_contrast(image, float(changes.contrast[index]))
        image = v2f.adjust_saturation(image, float(changes.saturation[index]))
        if changes.flip[index]:
            image = v2f.horizontal_flip(image)
        expected = v2f.center_crop(image, [224, 224]).float()
        together = torch.stack([mine[index].flatten(), expected.flatten()])
        assert torch.corrcoef(together)[0, 1] > 0.98
        assert (mine[index] - expected).abs().mean() < 4


def test_whole_image_without_changes_is_resized_alone() -> None:
    images = (sample_images(4, size=64, normalize=False) * 255).byte()
    nothing = Augmentation()
    changes = draw_changes(torch.tensor([[64, 64]] * 4), nothing, torch.Generator())
    out = apply_changes(images, torch.tensor([[64, 64]] * 4), changes, 64, 64)
    torch.testing.assert_close(out, images.float(), rtol=0, atol=1e-2)


def test_corners_after_a_rotation_are_black() -> None:
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    one = torch.ones(1)
    box = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
    changes = Changes(box, 45 * one, one, one, one, torch.tensor([False]))
    out = apply_changes(white, torch.tensor([[32, 32]]), changes, 32, 32)
    assert out[0, :, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert out[0, :, 16, 16].tolist() == [255.0, 255.0, 255.0]


@pytest.mark.parametrize(("height", "width"), [(200, 300), (300, 100), (1000, 50)])
def test_parts_are_distributed_as_torchvision_draws_them(height: int, width: int) -> None:
    sizes = torch.tensor([[height, width]]).expand(2000, 2)
    box = draw_changes(sizes, Augmentation(resized_crop=32), torch.Generator().manual_seed(1)).box
    theirs = v2.RandomResizedCrop(32, antialias=True)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    # Before torchvision 0.21 it went by a private name.
    draw = theirs.make_params if hasattr(theirs, "make_params") else theirs._get_params
    drawn = [draw([image]) for _ in range(2000)]
    for index, name in enumerate(("top", "left", "height", "width")):
        result = kstest(box[:, index].numpy(), [float(one[name]) for one in drawn])
        assert result.pvalue > 0.01, name
    assert bool((box[:, 0] + box[:, 2] <= height).all())
    assert bool((box[:, 1] + box[:, 3] <= width).all())
    assert bool((box >= 0).all())


def test_an_epoch_has_every_image_once_and_balanced_labels(folder: Path) -> None:
    recipe = replace(MICRO, augmentation=Augmentation(), task="classification", batch_size=6)
    loader = batches(folder, recipe)
    assert len(loader) == 7  # of 42 images
    found = list(loader)
    images = torch.cat([images for images, _ in found])
    labels = torch.cat([labels for _, labels in found])
    assert images.shape == (42, 3, 16, 16)
    assert labels.bincount().tolist() == [21, 21]
    assert len({image.sum().item() for image in images}) == 42


def test_objects_have_their_label_s_colour_and_lie_anywhere(folder: Path) -> None:
    recipe = replace(MICRO, augmentation=Augmentation(), colors=((255, 255, 255), (255, 0, 0)))
    loader = batches(folder, recipe)
    tops: set[int] = set()
    for epoch in range(20):
        loader.set_epoch(epoch)
        for images, labels in loader:
            scale = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
            pixels = (images * scale + torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) * 255
            paint = torch.tensor(recipe.colors, dtype=torch.float32)[labels][:, :, None, None]
            painted = ((pixels - paint).abs() < 0.01).all(1)
            assert painted.flatten(1).sum(1).tolist() == [16] * len(images)
            tops |= set(painted.any(2).double().argmax(1).tolist())
    assert tops == set(range(13))


def test_numbers_depend_on_seed_and_epoch_alone(folder: Path) -> None:
    loader = batches(folder)
    first = list(loader)
    loader.set_epoch(1)
    second = list(loader)
    loader.set_epoch(0)
    torch.rand(3)  # what others draw
    again = list(loader)
    other = list(batches(folder, seed=1))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][0], other[0][0])


def test_shares_make_up_the_batch(folder: Path) -> None:
    recipe = replace(MICRO, augmentation=Augmentation(), task="classification")
    whole = next(iter(batches(folder, recipe)))
    parts = [next(iter(batches(folder, recipe, share=(rank, 2)))) for rank in (0, 1)]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole[0])
    assert torch.equal(torch.cat([labels for _, labels in parts]), whole[1])


def test_images_are_decoded_once_for_all_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = TrainingImages(find_images(folder), MICRO)
    first = ResidentBatches(images.prepared(0).train, MICRO, CPU, seed=0)
    from erfattr.training import resident

    monkeypatch.setattr(resident, "_squares", None)
    second = ResidentBatches(images.prepared(1).train, MICRO, CPU, seed=1)
    assert second._squares is first._squares


def test_fixed_items_are_those_of_the_data_set(folder: Path) -> None:
    part = TrainingImages(find_images(folder), MICRO).prepared(0).test
    items = ResidentItems(part, MICRO, CPU, batch_size=4)
    assert len(items) == 2
    images = torch.cat([images for images, _ in items])
    labels = torch.cat([labels for _, labels in items])
    assert torch.equal(images, torch.stack([part[index][0] for index in range(len(part))]))
    assert labels.tolist() == [part[index][1] for index in range(len(part))]
    shared = [ResidentItems(part, MICRO, CPU, batch_size=4, share=(rank, 2)) for rank in (0, 1)]
    assert sum(len(images) for items in shared for images, _ in items) == len(part)


@pytest.mark.slow
def test_brightness_of_resident_and_other_items_agrees() -> None:
    """Mean and spread of the pixels, image by image, over the same photographs and many draws."""
    from erfattr.datasets.augmented_images import AugmentedDataset

    photographs = [(image, 0) for image in (sample_images(16, size=200, normalize=False) * 255).byte()]
    recipe = replace(find_recipe("micro_object"), task="classification", batch_size=16)
    part = AugmentedDataset(photographs, PAPER.transform(224), seed=0)
    resident = ResidentBatches(part, recipe, CPU, seed=0)
    means: dict[str, list[Tensor]] = {"mine": [], "theirs": []}
    for epoch in range(30):
        resident.set_epoch(epoch)
        means["mine"].append(next(iter(resident))[0].mean((1, 2, 3)))
        means["theirs"].append(torch.stack([part[index][0].mean() for index in range(16)]))
    mine, theirs = (torch.cat(means[name]).numpy() for name in ("mine", "theirs"))
    error = np.hypot(mine.std() / len(mine) ** 0.5, theirs.std() / len(theirs) ** 0.5)
    assert abs(mine.mean() - theirs.mean()) < 3 * error
    assert kstest(mine, theirs).pvalue > 0.01


def test_a_run_learns_and_resumes(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    from torch import nn

    from erfattr.training.runs import train

    recipe = replace(MICRO, epochs=3, colors=((0, 0, 0), (255, 255, 255)))
    data = TrainingImages(find_images(folder), recipe).prepared(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    here = Hardware("cpu", resident=True)
    whole = train(model, recipe, data, tmp_path / "whole", hardware=here)
    again = train(model, recipe, data, tmp_path / "again", hardware=here)
    assert [record["loss"] for record in whole.history] == [record["loss"] for record in again.history]
    with pytest.raises(ValueError, match="images on the device"):
        train(model, recipe, data, tmp_path / "whole", hardware=Hardware("cpu"))
    other = train(model, recipe, data, tmp_path / "other", hardware=Hardware("cpu"))
    assert whole.history[0]["loss"] != other.history[0]["loss"]
