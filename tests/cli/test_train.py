"""``erfattr train``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erfattr.cli import main
from erfattr.models.heads import replace_head
from erfattr.models.loading import load_model, weights_hash
from erfattr.remedies.variants import make_variant

pytest.importorskip("lightning", reason="needs the extra train")

SMALL = ("--set", "epochs=1", "size=32", "stored_size=32", "map_size=96", "batch_size=16")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_train_from_scratch(noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "--recipe", "micro_object_cpu", *SMALL, "--data", noise, "--seed", 3, "--no-progress")
    assert run(*words, "--variant", "padded", "--accelerator", "cpu", "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "demo, padded, micro_object_cpu, epochs 1" in printed
    assert "test accuracy above 90 %" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["seed"], result["recipe"]["epochs"], result["recipe"]["object_size"]) == (3, 1, 4)
    # No weights asked for, so none were loaded: the network was drawn anew from the seed.
    fresh = make_variant("padded", replace_head(load_model("demo", "none", seed=3)[0], 2, 3), 3)
    assert result["run"]["weights"] == weights_hash(fresh)


def test_fine_tuning_begins_with_the_models_weights(noise: Path, tmp_path: Path) -> None:
    words = ("train", "--recipe", "caltech101_finetune_cpu", *SMALL, "--data", noise, "--no-progress")
    assert run(*words, "--accelerator", "cpu", "--output", tmp_path) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["run"]["weights"] == weights_hash(replace_head(load_model("demo")[0], 2))
    assert result["epochs_to_target"] is None
