"""`erfattr train` and `erfattr compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from erfattr.cli import main
from erfattr.models.loading import load_model, weights_hash
from erfattr.remedies.variants import VARIANTS, make_variant
from erfattr.training.recipes import RECIPES
from erfattr.training.runs import replace_head

pytest.importorskip("lightning", reason="needs the extra train")

SMALL = ("--set", "epochs=1", "size=32", "stored_size=32", "map_size=96", "batch_size=16")


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 images of noise."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for index in range(20):
            pixels = torch.randint(0, 256, (33, 40, 3), generator=generator).byte()
            Image.fromarray(pixels.numpy()).save(root / name / f"{index}.png")
    return root


def test_train_from_scratch(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "--recipe", "micro_object_cpu", *SMALL, "--data", folder, "--seed", 3, "--no-progress")
    assert run(*words, "--variant", "padded", "--accelerator", "cpu", "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "demo, padded, micro_object_cpu, epochs 1" in printed
    assert "test accuracy above 90 %" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["seed"], result["recipe"]["epochs"], result["recipe"]["object_size"]) == (3, 1, 4)
    # No weights asked for, so none were loaded: the network was drawn anew from the seed.
    fresh = make_variant("padded", replace_head(load_model("demo", "none", seed=3)[0], 2, 3), 3)
    assert result["run"]["weights"] == weights_hash(fresh)


def test_fine_tuning_begins_with_the_models_weights(folder: Path, tmp_path: Path) -> None:
    words = ("train", "--recipe", "caltech101_finetune_cpu", *SMALL, "--data", folder, "--no-progress")
    assert run(*words, "--accelerator", "cpu", "--output", tmp_path) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["run"]["weights"] == weights_hash(replace_head(load_model("demo")[0], 2))
    assert result["epochs_to_target"] is None


def test_compare_a_network_of_ones_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny_network.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1)\n"
        "    return nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("compare", "--model", "tiny_network:build", "--recipe", "micro_object_cpu", *SMALL)
    words = (
        *words,
        "--data",
        folder,
        "--seeds",
        2,
        "--first-seed",
        5,
        "--map-images",
        9,
        "--accelerator",
        "cpu",
    )
    assert run(*words, "--no-progress", "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in printed.splitlines()[:4]] == [
        "seed 5, original",
        "seed 5, padded_fresh",
        "seed 6, original",
        "seed 6, padded_fresh",
    ]
    assert "padded_fresh - original" in printed
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["seeds"] == [5, 6]
    parameters = {name: variant["parameters"] for name, variant in written["variants"].items()}
    assert parameters == {"original": 3 * 4 * 9 + 4 + 10, "padded_fresh": 3 * 4 * 16 + 4 + 10}
    assert (tmp_path / "out" / "curves.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--recipe", "micro_objekt"), "recipe: expected one of caltech101_finetune"),
        (("train", "--recipe", "micro_object", "--variant", "paded"), "got 'paded'; nearest: padded"),
        (("train", "--recipe", "micro_object", "--set", "epoch=2"), "got 'epoch'; nearest: epochs"),
        (
            ("train", "--recipe", "micro_object", "--set", "epochs"),
            "--set: expected FIELD=VALUE, got 'epochs'",
        ),
        (("train", "--recipe", "micro_object", "--set", "task=x"), "--set: expected a number, null or JSON"),
        (("train", "--recipe", "micro_object", "--model", "resnet19"), "resnet18"),
        (("compare", "--recipe", "micro_object", "--seeds", 1), "--seeds: expected 2 or more, got 1"),
        (("compare", "--recipe", "micro_object", "--variants", "original", "padd"), "nearest: padded"),
    ],
)
def test_bad_input_is_said_in_one_line_and_nothing_is_written(
    words: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    for index in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    assert run(*words, "--data", "data") == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert error[0].startswith(f"erfattr {words[0]}: error: ")
    assert message in error[0]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--recipe", "micro_object", "--data", tmp_path, "--output", tmp_path / "out") == 2
    assert "holds no file ending in" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_names_recipes_and_variants(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    for name in (*RECIPES, *VARIANTS):
        assert name in shown
