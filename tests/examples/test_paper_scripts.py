"""The scripts of ``examples/paper``: what they write, that they go on, and that no row is made up."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from erfattr.models.demo import DemoNet
from erfattr.models.loading import ModelInfo
from erfattr.training.recipes import Recipe, find_recipe

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "paper"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script by its name, as Python does that runs it."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def written(folder: Path, name: str) -> list[dict[str, Any]]:
    assert (folder / f"{name}.csv").is_file()
    assert (folder / f"{name}.png").stat().st_size > 10_000
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())["rows"]
    return rows


def test_figure_2_counts_how_often_pixels_are_read(tmp_path: Path, script: Any) -> None:
    script("figure2").main(["--output", str(tmp_path)])
    counts = {(row["kernel"], row["stages"]): row["counts"] for row in written(tmp_path, "figure2")}
    assert counts[1, 1] == "0 1"
    assert counts[3, 1] == "1 2 4"
    assert counts[7, 1] == "9 12 16"
    assert counts[3, 2] == "1 2 3 4 6 9"
    assert [counts[kernel, 2] for kernel in (2, 4, 8)] == ["1", "16", "256"]


def test_figure_3_shows_equal_outputs(tmp_path: Path, script: Any) -> None:
    script("figure3").main(["--output", str(tmp_path)])
    rows = written(tmp_path, "figure3")
    assert [row["size"] for row in rows] == [224, 225, 223]
    assert all(row["largest_relative_difference"] <= 1e-5 for row in rows)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, script: Any) -> list[tuple[str, str]]:
    """Stand in for networks that take long: a small one at random, and no weights to be had."""
    calls: list[tuple[str, str]] = []

    def load_model(name: str, weights: str, **_: Any) -> tuple[nn.Module, ModelInfo]:
        calls.append((name, weights))
        if weights != "none":
            raise FileNotFoundError("weights")
        torch.manual_seed(0)
        info = ModelInfo(name, "random initialisation, seed 0", "", (0, 0, 0), (1, 1, 1), 224, 0)
        return DemoNet(10).eval(), info

    monkeypatch.setattr(script("table1"), "load_model", load_model)
    return calls


def test_table_1_says_what_is_not_there_and_goes_on(
    tmp_path: Path, script: Any, loads: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", "resnet18", "--count", "2", "--output", str(tmp_path)]
    script("table1").main(words)
    absent, fresh = written(tmp_path, "table1")
    assert absent == {
        "model": "resnet18",
        "weights": "IMAGENET1K_V1 not available",
        "trf": 435,
        "images": 0,
    }
    assert (fresh["trf"], fresh["images"]) == (435, 2)
    assert fresh["sigma_x"] > 0
    printed = capsys.readouterr().out
    assert "435 (paper 435, +0)" in printed
    assert "paper 76.5" not in printed  # a random network's sizes are not held against trained ones
    before = len(loads)
    script("table1").main(words)
    # The row that is there is read, the one that could not be made is tried again.
    assert loads[before:] == [("resnet18", "none"), ("resnet18", "IMAGENET1K_V1")]
    assert written(tmp_path, "table1") == [absent, fresh]


def test_table_1_holds_trained_networks_against_the_paper(script: Any) -> None:
    row = {
        "model": "resnet18",
        "weights": "torchvision ResNet18_Weights.IMAGENET1K_V1",
        "trf": 435,
        "images": 5794,
        "sigma_x": 77.0,
        "sigma_y": 73.0,
        "r_squared": 0.9,
    }
    assert script("table1").line(row)[3:] == [
        "435 (paper 435, +0)",
        "77.0 (paper 76.5, +0.5)",
        "73.0 (paper 73.7, -0.7)",
        "0.900 (paper 0.908, -0.008)",
    ]


def test_table_1_at_the_papers_scale_needs_its_photographs(tmp_path: Path, script: Any) -> None:
    with pytest.raises(SystemExit, match="CUB_200_2011"):
        script("table1").main(["--scale", "paper", "--output", str(tmp_path)])


def test_rows_of_other_settings_are_made_anew(tmp_path: Path, script: Any) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"value": len(made)}

    paper = script("paper")
    assert paper.resumed_rows(tmp_path, {"count": 1}, {"a": make}) == [{"value": 1}]
    assert paper.resumed_rows(tmp_path, {"count": 1}, {"a": make}) == [{"value": 1}]
    assert paper.resumed_rows(tmp_path, {"count": 2}, {"a": make}) == [{"value": 2}]


# Trained networks


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Forty coloured images of two classes."""
    random = np.random.default_rng(0)
    for label in ("blue", "green"):
        folder = tmp_path / "photographs" / label
        folder.mkdir(parents=True)
        for index in range(20):
            pixels = random.integers(0, 255, (96, 96, 3), dtype=np.uint8)
            pixels[..., 2 if label == "blue" else 1] = 255
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photographs"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, script: Any) -> None:
    """Shorten the recipes of the scripts: one epoch, batches of eight."""

    def chosen(given: Any, paper: str, cpu: str, **_: Any) -> Recipe:
        # Maps are of 224 pixels where the 7 x 7 map of Table 1 is wanted.
        return find_recipe(cpu, epochs=1, batch_size=8, map_size=96 if "micro" in cpu else 224)

    for name in ("table2", "table3", "table4"):
        monkeypatch.setattr(script(name), "chosen_recipe", chosen)


def test_the_papers_numbers_agree_with_its_differences(script: Any) -> None:
    paper = script("paper")
    fallen = {name: before - after for name, (before, after) in paper.TABLE_4.items()}
    assert fallen == pytest.approx({"resnet101": 18.0, "wide_resnet101_2": 13.8, "resnext101_32x8d": 13.0})
    lost = [before - after for before, after in paper.TABLE_3.values()]
    assert lost == pytest.approx([1.22, 1.05, 0.83], abs=0.011)  # the paper rounded after it subtracted
    assert {name: row["trf"] for name, row in paper.TABLE_2.items()} == {
        name: row["trf"] for name, row in paper.TABLE_1.items()
    }


@pytest.mark.usefixtures("quick")
def test_table_4_and_figure_5_share_runs_that_are_read_again(
    tmp_path: Path, script: Any, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["--data", str(photographs), "--seeds", "2", "--variants", "original", "padded"]
    words += ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "table4")]
    script("table4").main(words)
    (row,) = written(tmp_path / "table4", "table4")
    assert (row["model"], row["variant"], row["runs"]) == ("demo", "padded", 2)
    # One epoch of 28 images teaches nothing: no run passes the target, which counts as all epochs.
    assert row["before_values"] == row["after_values"] == [1, 1]
    assert (row["difference"], row["p"]) == (0, None)
    script("figure5").main(["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "figure5")])
    lines = written(tmp_path / "figure5", "figure5")
    assert [(line["variant"], line["seed"]) for line in lines] == [
        ("original", 0),
        ("original", 1),
        ("padded", 0),
        ("padded", 1),
    ]
    assert all(len(line["accuracy"]) == 1 for line in lines)
    monkeypatch.setattr(
        "erfattr.training.comparison.measure_pixel_use",
        lambda *_: pytest.fail("a finished map was measured anew"),
    )
    monkeypatch.setattr("erfattr.training._fitting.make_trainer", None)  # nothing could be trained
    script("table4").main(words)
    assert written(tmp_path / "table4", "table4") == [row]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_tables_2_and_3_and_figure_1_share_runs(tmp_path: Path, script: Any, photographs: Path) -> None:
    words = ["--data", str(photographs), "--models", "demo", "--seeds", "2", "--runs", str(tmp_path / "runs")]
    script("table3").main([*words, "--output", str(tmp_path / "table3")])
    (third,) = written(tmp_path / "table3", "table3")
    script("table2").main([*words, "--output", str(tmp_path / "table2"), "--count", "4"])
    (second,) = written(tmp_path / "table2", "table2")
    assert second["test_accuracy"] == third["before"]
    assert second["test_accuracy_error"] == third["before_error"]
    assert second["trf"] == 435
    assert second["sigma_x"] > 0
    folder = tmp_path / "figure1"
    script("figure1").main(
        ["--runs", str(tmp_path / "runs"), "--classes", "2", "--count", "4", "--output", str(folder)]
    )
    rows = written(folder, "figure1")
    assert [row["variant"] for row in rows] == ["original"] * 3 + ["padded"] * 3
    assert all(row["images"] == 4 for row in rows)
    record = script("runs").comparison_record(tmp_path / "runs", "demo", "table3.py")
    fourth = script("figure4").trained("demo", record)
    for order in (1, 2):
        fall = fourth[f"l{order}_after"] - fourth[f"l{order}_before"]
        assert fourth[f"l{order}_difference"] == pytest.approx(fall, rel=1e-9)
        # Zeros change nothing: what has changed before training is the pool that was widened.
        assert fourth[f"l{order}_begun_after"] < fourth[f"l{order}_begun_before"]
    shutil.copytree(tmp_path / "table3", tmp_path / "table3_verdict")
    shared = ["--data", str(photographs), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    script("claims").main(
        ["--claims", "accuracy", "translation", *shared, "--output", str(tmp_path / "claims")]
    )
    accuracy, translation = written(tmp_path / "claims", "claims")
    assert accuracy["numbers"]["pooled"][0] == pytest.approx(third["difference"])
    assert [len(steps) for steps in translation["numbers"]["steps"]["demo"].values()] == [2, 2]


def test_table_3_says_which_weights_are_missing(
    tmp_path: Path, script: Any, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("weights")

    monkeypatch.setattr(script("runs"), "load_model", load_model)
    words = ["--data", str(photographs), "--models", "resnet101", "--output", str(tmp_path / "out")]
    script("table3").main([*words, "--runs", str(tmp_path / "runs")])
    assert written(tmp_path / "out", "table3") == [
        {"model": "resnet101", "weights": "IMAGENET1K_V1 not available"}
    ]
    assert not (tmp_path / "runs").exists()


def test_paired_rows_stand_beside_the_paper_where_the_change_is_the_papers(script: Any) -> None:
    row = {"model": "resnet101", "weights": "random", "variant": "padded", "p": 0.01, "rank_p": 0.06}
    row |= {"before": 30.0, "after": 10.0, "difference": -20.0}
    row |= {"before_error": 2.0, "after_error": 1.0, "difference_error": 2.5}
    runs, paper = script("runs"), script("paper")
    assert runs.paired_line(row, paper.TABLE_4, 1)[3:] == [
        "30.0 (paper 28.2, +1.8) +- 2.0",
        "10.0 (paper 10.2, -0.2) +- 1.0",
        "-20.0 (paper -18.0, -2.0) +- 2.5",
        "0.01, by ranks 0.06",
    ]
    fresh = runs.paired_line(row | {"variant": "padded_fresh"}, paper.TABLE_4, 1)
    assert fresh[3] == "30.0 +- 2.0"


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("table4", [], "--data: expected a folder"),
        ("table4", ["--data", "."], "--seeds: expected 2 or more, got 1"),
        ("figure5", ["--runs", "nowhere"], "table4.py makes them"),
        ("figure1", ["--runs", "nowhere", "--weights", "trained"], "table3.py --models demo makes it"),
        ("figure4", ["--runs", "nowhere", "--trained", "demo"], "table3.py makes them"),
    ],
)
def test_what_is_missing_is_named(script: Any, name: str, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        script(name).main([*words, *(["--seeds", "1"] if "--data" in words else [])])


def test_figure_1_without_trained_networks_says_so_and_takes_fresh_ones(
    tmp_path: Path, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    script("figure1").main(["--runs", str(tmp_path / "none"), "--count", "4", "--output", str(tmp_path)])
    assert "Freshly initialised networks take its place" in capsys.readouterr().out
    rows = written(tmp_path, "figure1")
    assert [(row["variant"], row["weights"]) for row in rows] == [("original", "none")] * 3 + [
        ("padded_fresh", "none")
    ] * 3
    assert json.loads((tmp_path / "figure1.json").read_text())["settings"]["weights"] == "none"


def test_figure_4_measures_both_indices_before_and_after(
    tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(name: str, weights: str, seed: int) -> tuple[nn.Module, ModelInfo]:
        assert weights == "none"
        torch.manual_seed(seed)
        info = ModelInfo(name, "random initialisation, seed 0", "", (0, 0, 0), (1, 1, 1), 224, 0)
        return DemoNet(10).eval(), info

    figure4 = script("figure4")
    monkeypatch.setattr(figure4, "load_model", load_model)
    monkeypatch.setattr(figure4, "sample_images", lambda: torch.rand(8, 3, 64, 64))
    figure4.main(["--models", "resnet18", "--count", "8", "--output", str(tmp_path)])
    (row,) = written(tmp_path, "figure4")
    for order in (1, 2):
        assert row[f"l{order}_before_uncorrected"] > row[f"l{order}_before"]
        difference = row[f"l{order}_after"] - row[f"l{order}_before"]
        assert row[f"l{order}_difference"] == pytest.approx(difference, rel=1e-9)


# Claims


@pytest.mark.parametrize(
    ("effect", "p", "expected"),
    [
        (-2.0, 0.01, "holds"),
        (2.0, 0.01, "does not hold"),
        (-2.0, 0.05, "not decided"),
        (-2.0, None, "holds"),
        (2.0, None, "does not hold"),
    ],
)
def test_verdict(script: Any, effect: float, p: float | None, expected: str) -> None:
    assert script("claims").verdict(effect, p, -1) == expected


def judged(script: Any, folder: Path, claim: str, **tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a claim that reads these tables."""
    for name, rows in tables.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{name.partition('_')[0]}.json").write_text(json.dumps({"rows": rows}))
    words = ["--claims", claim, "--results", str(folder), "--output", str(folder / "out")]
    script("claims").main(words)
    row: dict[str, Any]
    (row,) = written(folder / "out", "claims")
    assert row["rule"] == script("verdicts").RULES[claim]
    return row


def pairs(model: str, *changes: float, variant: str = "padded", before: float = 80.0) -> dict[str, Any]:
    after = [before + change for change in changes]
    return {"model": model, "variant": variant, "before_values": [before] * len(after), "after_values": after}


def test_accuracy_is_judged_over_networks_by_strata(tmp_path: Path, script: Any) -> None:
    def row(*rows: dict[str, Any]) -> dict[str, Any]:
        return judged(script, tmp_path, "accuracy", table3_verdict=list(rows))

    one = pairs("a", -1.0, -2.0, -3.0)
    # The t-test of one network by hand: -2 +- 1 / sqrt(3), two degrees of freedom.
    assert row(one)["numbers"]["pooled"] == pytest.approx([-2, 3**-0.5, 0.0742, -4.484, 0.484], abs=5e-4)
    assert row(one)["verdict"] == "not decided"
    # Two such networks: the same mean, an error smaller by the root of 2, four degrees of freedom.
    both = row(one, pairs("b", -1.0, -2.0, -3.0))
    assert both["numbers"]["pooled"][:3] == pytest.approx([-2, 6**-0.5, 0.00805], abs=5e-5)
    assert both["verdict"] == "holds"
    assert "a -2 (3 pairs), b -2 (3 pairs)" in both["evidence"]
    assert row(pairs("a", 1.0, 1.1, 1.2), pairs("b", 1.0, 1.1, 1.2))["verdict"] == "does not hold"
    assert row(one, pairs("b", 1.0, 2.0, 3.0))["verdict"] == "not decided"


def test_speed_is_judged_by_ratios_of_steps_in_both_tasks(tmp_path: Path, script: Any) -> None:
    def row(*changes: float) -> dict[str, Any]:
        tables = {
            name: [
                pairs("demo", 0.0, 0.0, variant="padded"),
                pairs("demo", *changes, variant="padded_fresh", before=100.0),
            ]
            for name in ("table4_verdict", "table4_shades_verdict")
        }
        return judged(script, tmp_path, "speed", **tables)

    halved = row(-50.0, -49.0, -51.0)
    assert halved["verdict"] == "holds"
    assert "x 0.50 (" in halved["evidence"]
    assert row(100.0, 101.0, 99.0)["verdict"] == "does not hold"
    assert row(-50.0, 100.0, 0.0)["verdict"] == "not decided"


def resnet(name: str, change: float, error: float) -> dict[str, Any]:
    return {
        "model": name,
        "weights": "random",
        "l1_difference": change,
        "l1_difference_error": error,
        "l1_p": 0.2,
    }


def test_imbalance_is_judged_over_resnets_and_for_a_further_one(tmp_path: Path, script: Any) -> None:
    def row(*changes: float, error: float = 0.01) -> dict[str, Any]:
        rows = [resnet(f"resnet{place}", change, error) for place, change in enumerate(changes)]
        return judged(script, tmp_path, "imbalance_resnets", figure4=[*rows, resnet("vgg16", 9.0, 0.1)])

    assert row(-0.1, -0.11, -0.09, -0.1)["verdict"] == "holds"
    assert row(0.1, 0.11, 0.09, 0.1)["verdict"] == "does not hold"
    assert row(-0.1, 0.1, -0.1, 0.1)["verdict"] == "not decided"
    # All fell, and significantly on average, but they differ so much that a further one might rise.
    wide = row(-0.02, -0.03, -0.2, -0.22, -0.1, -0.12)
    assert wide["numbers"]["pooled"][0][2] < 0.05
    assert (wide["verdict"], wide["numbers"]["pooled"][3] > 0) == ("not decided", True)
    assert judged(script, tmp_path, "imbalance_resnets", figure4=[resnet("resnet18", -1, 0.1)])[
        "verdict"
    ] == ("cannot be tested here")


def test_imbalance_without_a_pool_is_judged_by_its_runs(tmp_path: Path, script: Any) -> None:
    open_row = judged(script, tmp_path, "imbalance_no_pool", figure4=[resnet("mobilenet_v2", -0.02, 0.01)])
    assert (open_row["verdict"], open_row["numbers"]) == ("not decided", {"scores": [-2.0]})


def test_random_effects_are_those_of_a_textbook(script: Any) -> None:
    # Equal variances: the plain mean, the error of a t-test, and tau from the spread of the effects.
    effects, error = [0.1, 0.3, 0.35, 0.65], 0.1
    found = script("verdicts").random_effects(effects, [error] * 4)
    assert found.mean.mean == pytest.approx(0.35)
    assert found.mean.error == pytest.approx(np.std(effects, ddof=1) / 2)
    assert found.spread**2 == pytest.approx(np.var(effects, ddof=1) - error**2)
    half = 4.302653 * (found.spread**2 + found.mean.error**2) ** 0.5  # t of two degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.35 - half, 0.35 + half))
    # Alike within their errors: no spread, and each weighs by the inverse of its variance.
    alike = script("verdicts").random_effects([1.0, 1.1, 1.3], [0.5, 1.0, 0.5])
    assert (alike.spread, alike.mean.mean) == pytest.approx((0.0, (4 * 1.0 + 1.1 + 4 * 1.3) / 9))


def test_size_is_judged_by_measured_networks_too(tmp_path: Path, script: Any) -> None:
    rows = [
        {"model": name, "weights": "ResNet_Weights.V1", "trf": size, "sigma_x": size, "sigma_y": size}
        | {"test_accuracy": float(size)}
        for name, size in (("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5))
    ]
    (tmp_path / "table2").mkdir()
    (tmp_path / "table2" / "table2.json").write_text(json.dumps({"rows": rows}))
    script("claims").main(["--claims", "size", "--results", str(tmp_path), "--output", str(tmp_path / "out")])
    (row,) = written(tmp_path / "out", "claims")
    assert row["verdict"] == "does not hold"
    assert row["numbers"]["table 2 measured here, effective"]["correlation"] == pytest.approx(1)
    assert "trained ResNets were not measured" not in row["evidence"]


def test_claims_without_data_cannot_be_tested(tmp_path: Path, script: Any) -> None:
    names = ["depth", "imbalance_resnets", "imbalance_no_pool", "accuracy", "speed", "translation"]
    script("claims").main(
        ["--claims", *names, "--results", str(tmp_path), "--runs", str(tmp_path), "--output", str(tmp_path)]
    )
    assert {row["verdict"] for row in written(tmp_path, "claims")} == {"cannot be tested here"}


def test_depth_is_judged_by_trained_networks_alone(tmp_path: Path, script: Any) -> None:
    sizes = {"resnet50": 60.0, "resnet101": 61.0, "resnet152": 62.0}

    def judged(weights: str, last: float) -> str:
        rows = [
            {"model": name, "weights": weights, "sigma_x": size, "sigma_y": size}
            for name, size in (sizes | {"resnet152": last}).items()
        ]
        (tmp_path / "table1").mkdir(exist_ok=True)
        (tmp_path / "table1" / "table1.json").write_text(json.dumps({"rows": rows}))
        script("claims").main(
            ["--claims", "depth", "--results", str(tmp_path), "--output", str(tmp_path / "out")]
        )
        return str(written(tmp_path / "out", "claims")[0]["verdict"])

    trained = "torchvision ResNet50_Weights.IMAGENET1K_V1"
    assert judged(trained, 62.0) == "holds"
    assert judged(trained, 100.0) == "does not hold"
    assert judged("random initialisation, seed 0", 62.0) == "cannot be tested here"


def test_size_and_perturbation_are_measured(tmp_path: Path, script: Any) -> None:
    names = ["size", "perturbation_size", "perturbation_sign"]
    script("claims").main(["--claims", *names, "--pixels", "64", "--output", str(tmp_path)])
    size, effect, sign = written(tmp_path, "claims")
    # Of the ranks 4, 5, 2, 7, 2, 9, 2, 7, 7 (ties share theirs) and 1 to 9, Pearson's correlation by hand.
    assert size["numbers"]["the paper's Table 1, theoretical"]["correlation"] == pytest.approx(
        0.35, abs=0.005
    )
    assert effect["verdict"] == "holds"
    assert effect["numbers"]["correlation"] > 0.3
    # The amplitude makes most of a change's size, and R adds to that.
    assert effect["numbers"]["amplitude_and_r"] > effect["numbers"]["amplitude"] > 0.3
    assert sign["verdict"] == "not decided"
    assert 45 < sign["numbers"]["share"] < 55


def test_a_step_is_one_of_eight(script: Any) -> None:
    # A network that reads one pixel in the middle: its class changes where the image does there.
    class Middle(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            value = images[:, 0, 2, 2]
            return torch.stack([value, -value], 1)

    image = torch.full((1, 1, 7, 7), -1.0)
    image[..., 3, 3:] = 1.0  # seen by the middle at rest, and a step to the right
    step = script("claims").changed_by_a_step(Middle(), image)
    assert step.flips == pytest.approx(100 * 7 / 8)
    moved = torch.tensor([1.0, -1.0]).softmax(0)
    assert step.moves == pytest.approx(7 / 8 * float(moved[0] - moved[1]))


def test_a_record_says_how_it_was_made_without_paths_of_the_machine(
    tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/home/me/paper/table9.py", "--data", "/home/me/photos", "--count", "3"])
    script("paper").write_result(tmp_path, "table9", {"count": 3}, [{"a": 1}])
    record = json.loads((tmp_path / "table9.json").read_text())
    assert record["command"] == "python examples/paper/table9.py --data photos --count 3"
    assert record["machine"].split(" cores of ")[0].isdigit()
    assert "/home" not in json.dumps(record)
