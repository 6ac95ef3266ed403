from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from erfattr.models.loading import weights_hash
from erfattr.remedies.variants import make_variant
from erfattr.training.comparison import Mean, PairedDifference, TrainingComparison, compare_training
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.hardware import Hardware
from erfattr.training.pixel_use import measure_pixel_use
from erfattr.training.recipes import Recipe
from erfattr.training.runs import train

CPU = Hardware("cpu")
RECIPE = Recipe(
    "micro",
    "micro_object",
    epochs=2,
    size=8,
    batch_size=8,
    stored_size=8,
    object_size=4,
    learning_rate=0.05,
    map_size=16,
)


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    """Templates of noise, 120 of them."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for index in range(120):
        pixels = torch.randint(0, 256, (16, 16, 3), generator=generator)
        Image.fromarray(pixels.byte().numpy()).save(root / f"{index}.png")
    return TrainingImages(find_images(root), RECIPE)


@pytest.fixture(scope="module")
def first_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def comparison(images: TrainingImages, first_folder: Path) -> TrainingComparison:
    pytest.importorskip("lightning", reason="needs the extra train")
    return compare_training(
        build, ["original", "padded"], images, [0, 5], first_folder, n_map_images=16, hardware=CPU
    )


@pytest.fixture
def folder(comparison: TrainingComparison, first_folder: Path, tmp_path: Path) -> Path:
    """A copy of what the comparison has written, since a test that goes on from it changes it."""
    return shutil.copytree(first_folder, tmp_path / "copy")


# Closed form.


def test_mean_and_standard_error() -> None:
    mean = Mean.of([1, 2, 6])
    assert mean.value == 3
    assert mean.standard_error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))
    assert mean.values == (1, 2, 6)
    assert str(mean) == "3 +- 1.5"
    assert str(Mean.of([1000, 1400])) == "1200 +- 200"


def test_the_paired_difference_is_scipys() -> None:
    # Pairs 7 and 3, 9 and 8, 12 and 6: differences -4, -1, -6.
    difference = PairedDifference.of([3, 8, 6], [7, 9, 12])
    assert difference.difference.values == (-4, -1, -6)
    assert difference.p_value == pytest.approx(stats.ttest_1samp([-4, -1, -6], 0).pvalue)
    # All three fall: the most extreme of 2 ** 3 equally likely patterns of signs, either way.
    assert difference.rank_p_value == 2 / 2**3
    assert str(difference) == f"-3.67 +- 1.5 (p = {difference.p_value:.2g}, by ranks 0.25)"


def test_without_spread_there_is_no_test() -> None:
    assert PairedDifference.of([3, 4], [1, 2]).p_value is None
    assert PairedDifference.of([3, 4], [1, 2]).rank_p_value is None
    assert PairedDifference.of([0.1 + 0.2, 1.3], [0.3, 1.3]).p_value is None
    assert str(PairedDifference.of([3, 4], [1, 2])) == "+2 +- 0 (all equal)"


# Oracle: the same by hand.


def test_runs_and_maps_are_those_of_the_single_functions(
    comparison: TrainingComparison, images: TrainingImages, tmp_path: Path
) -> None:
    maps = images.maps(16)
    for variant in comparison.variants:
        for index, seed in enumerate(comparison.seeds):
            model = make_variant(variant.name, build(seed), seed)
            alone = train(
                model,
                RECIPE,
                images.prepared(seed),
                tmp_path / f"{variant.name}{seed}",
                seed=seed,
                hardware=CPU,
            )
            run = variant.runs[index]
            assert weights_hash(run.model) == weights_hash(alone.model)
            assert variant.before[index] == measure_pixel_use(model.eval(), maps)
            assert variant.after[index] == measure_pixel_use(run.model, maps)
    assert [variant.parameters for variant in comparison.variants] == [
        3 * 4 * 9 + 4 + 8 + 10,
        3 * 4 * 16 + 4 + 8 + 10,
    ]


def test_rows_and_differences(comparison: TrainingComparison) -> None:
    rows, differences = comparison.rows(), comparison.differences()
    original, padded = comparison.variants
    assert rows["epochs to 90 %"]["padded"].values == tuple(run.epochs_to_target for run in padded.runs)
    assert rows["L2, before training"]["original"].values == tuple(use.l2.value for use in original.before)
    assert rows["phase contrast, after training"]["padded"].values == tuple(
        use.phase_contrast for use in padded.after
    )
    centroid = rows["centroid y - image centre (px), after training"]
    assert centroid["padded"].values == tuple(use.centroid[0] - 7.5 for use in padded.after)
    assert differences["L1, after training"]["padded"] == PairedDifference.of(
        [use.l1.value for use in padded.after], [use.l1.value for use in original.after]
    )
    assert list(differences["L1, after training"]) == ["padded"]


def test_before_training_the_maps_of_zeros_are_those_of_the_original(comparison: TrainingComparison) -> None:
    original, padded = comparison.variants
    for mine, its in zip(padded.before, original.before, strict=True):
        assert mine.l1.value == pytest.approx(its.l1.value, rel=1e-4)  # float32
        assert mine.centroid == pytest.approx(its.centroid, rel=1e-4)
    assert padded.after[0].l1.value != pytest.approx(original.after[0].l1.value, rel=1e-4)


def test_classification_is_compared_by_test_accuracy(comparison: TrainingComparison) -> None:
    runs = [
        replace(one, runs=tuple(replace(run, epochs_to_target=None) for run in one.runs))
        for one in comparison.variants
    ]
    classes = replace(comparison, recipe=replace(RECIPE, task="classification"), variants=tuple(runs))
    row = classes.rows()["test accuracy (%)"]
    assert row["original"].values == tuple(run.test_accuracy for run in runs[0].runs)
    assert "validation" in classes.draw().axes[0].get_ylabel()


# What is written.


def test_table_json_and_curves(comparison: TrainingComparison, folder: Path) -> None:
    written = json.loads((folder / "comparison.json").read_text())
    assert {key: written[key] for key in ("seeds", "means", "differences")} == {
        key: comparison.numbers()[key] for key in ("seeds", "means", "differences")
    }
    assert written["variants"]["padded"]["runs"][1]["history"] == list(comparison.variants[1].runs[1].history)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = comparison.table().splitlines()
    assert lines[0].split() == ["original", "padded", "padded", "-", "original"]
    assert lines[1].startswith("epochs to 90 %")
    assert str(comparison.rows()["epochs to 90 %"]["original"]) in lines[1]
    assert str(comparison.differences()["epochs to 90 %"]["padded"]) in lines[1]
    assert len(comparison.draw().axes[0].lines) == 2 * 2 + 1


# Resumed and extended.


def test_what_is_there_is_not_done_again(
    comparison: TrainingComparison, images: TrainingImages, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: begun.append("fit"))
    monkeypatch.setattr("erfattr.training.comparison.measure_pixel_use", lambda *_: begun.append("maps"))
    again = compare_training(
        build, ["original", "padded"], images, [0, 5], folder, n_map_images=16, hardware=CPU
    )
    assert begun == []
    assert again.numbers() == comparison.numbers()


def test_another_number_of_map_images_is_measured_anew(
    comparison: TrainingComparison, images: TrainingImages, folder: Path
) -> None:
    fewer = compare_training(
        build, ["original", "padded"], images, [0, 5], folder, n_map_images=9, hardware=CPU
    )
    assert {use.n_images for variant in fewer.variants for use in variant.after} == {9}
    assert fewer.variants[0].runs[0].history == comparison.variants[0].runs[0].history


# Errors.


def test_bad_arguments(images: TrainingImages, tmp_path: Path) -> None:
    for variants, seeds, error, message in (
        (
            ["original"],
            [0, 1],
            ValueError,
            r"variants: expected two or more different ones, got \['original'\]",
        ),
        (["padded", "padded"], [0, 1], ValueError, "variants: expected two or more different ones"),
        (["original", "paded"], [0, 1], ValueError, "got 'paded'; nearest: padded"),
        ("padded", [0, 1], TypeError, "variants: expected a list of names, got 'padded'"),
        (["original", "padded"], [0], ValueError, r"seeds: expected two or more different ones, got \[0\]"),
        (["original", "padded"], [1, 1], ValueError, "seeds: expected two or more different ones"),
    ):
        with pytest.raises(error, match=message):
            compare_training(build, variants, images, seeds, tmp_path / "new", hardware=CPU)
    with pytest.raises(ValueError, match="n_map_images: expected a positive integer, got 0"):
        compare_training(build, ["original", "padded"], images, [0, 1], tmp_path / "new", n_map_images=0)
    assert not (tmp_path / "new").exists()


def test_images_too_small_for_maps_are_refused_before_anything_is_trained(
    images: TrainingImages, tmp_path: Path
) -> None:
    def deeper(seed: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1), *build(seed))

    small = TrainingImages(images.source, replace(RECIPE, map_size=9))
    message = r"^map_size: expected at least three strides of 4 x 4 pixels, got 9 x 9$"
    with pytest.raises(ValueError, match=message):
        compare_training(deeper, ["original", "padded"], small, [0, 1], tmp_path, hardware=CPU)
    assert not list(tmp_path.iterdir())
