"""``erfattr map``, run as a user runs it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erfattr import ERF, DeadPixelMap, compare_imbalance, demo_model, sample_images
from erfattr.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of small images."""
    generator = np.random.default_rng(0)
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_map_of_embedded_images_equals_the_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    layers = ("--layers", "layer2", "last", "output")
    assert run("map", "--count", 3, "--size", 96, *layers, "--batch-size", 2, "--output", out) == 0
    model, images = demo_model(), sample_images(3, 96)
    # Batches of another size: in float32 a few ReLU decisions flip.
    for name, expected in (
        ("layer2", ERF(model, "layer2").attribute(images)),
        ("layer4", ERF(model).attribute(images)),
        ("output", DeadPixelMap(model).attribute(images)),
    ):
        found = np.load(out / f"{name}.npy")
        assert np.abs(found - expected.numpy()).max() <= 0.01 * expected.max()
        assert (out / f"{name}.png").stat().st_size > 10_000
    result = json.loads((out / "result.json").read_text())
    record = result["record"]
    assert record["model"]["name"] == "demo"
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["images"]["count"] == 3
    assert result["maps"]["layer4"]["unit"] == [1, 1]
    assert result["maps"]["layer4"]["center"] == [32.0, 32.0]
    assert result["maps"]["layer4"]["theoretical_receptive_field"]["size"] == [435, 435]
    assert result["maps"]["output"]["phase_period"] == [32, 32]
    printed = capsys.readouterr().out
    assert "layer4, unit (1, 1)" in printed
    assert "centred on pixel (32, 32)" in printed
    assert str(out / "maps.png") in printed


@pytest.mark.usefixtures("no_figures")
def test_recorded_command_repeats_the_run(tmp_path: Path, folder: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--images", folder, "--size", 64, "--layers", "layer2", "output", "--unit", "3,4")
    assert run("map", *options, "--target", "label", "--rectify", "abs", "--output", first) == 0
    command = json.loads((first / "result.json").read_text())["record"]["command"]
    command[command.index(str(first))] = str(second)
    assert command[0] == "erfattr"
    assert main(command[1:]) == 0
    for name in ("layer2.npy", "output.npy"):
        np.testing.assert_array_equal(np.load(first / name), np.load(second / name))
    first_result, second_result = (json.loads((path / "result.json").read_text()) for path in (first, second))
    assert first_result["maps"] == second_result["maps"]
    assert first_result["record"]["images"] == second_result["record"]["images"]
    assert first_result["record"]["images"]["files"] == ["cat/1.png", "cat/2.png", "dog/1.png"]


@pytest.mark.usefixtures("no_figures")
def test_random_weights_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("map", "--model", "resnet18", "--weights", "none", "--seed", 5, "--count", 2, "--size", 64)
    assert run(*words, "--layers", "layer1", "--output", tmp_path) == 0
    assert "resnet18 (random initialisation, seed 5)" in capsys.readouterr().out
    model = json.loads((tmp_path / "result.json").read_text())["record"]["model"]
    assert model["weights"] == "random initialisation, seed 5"
    assert model["seed"] == 5


@pytest.mark.usefixtures("no_figures")
def test_unreadable_file_is_named_and_counted(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dog" / "broken.png").write_bytes(b"not a picture")
    words = ("map", "--images", folder, "--size", 64, "--layers", "layer1", "--output", tmp_path / "out")
    assert run(*words) == 0
    assert "1 image files could not be read" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [Path(name).name for name in result["record"]["images"]["unreadable"]] == ["broken.png"]
    assert result["maps"]["layer1"]["n_images"] == 3
    assert run(*words[:-1], tmp_path / "strict", "--strict") == 2
    assert "broken.png" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


@pytest.mark.usefixtures("no_figures")
def test_two_networks_are_compared_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("map", "--count", 12, "--size", 64, "--layers", "layer2", "output", "--output", tmp_path)
    assert run(*words, "--against", "demo", "--against-weights", "none") == 0
    printed = capsys.readouterr().out
    sentences = json.loads((tmp_path / "result.json").read_text())["record"]["against"]["sentences"]
    assert [line for line in printed.splitlines() if ", without the noise: " in line] == sentences
    assert [sentence.partition(", without")[0] for sentence in sentences] == [
        f"{layer}: L{order} of demo against demo" for layer in ("layer2", "output") for order in (1, 2)
    ]
    # What the sentence says is what the library says of the same maps.
    images = sample_images(12, 64)
    trained, fresh = (
        DeadPixelMap(demo_model(weights)).attribute(images.split(8), return_statistics=True)[1]
        for weights in (True, False)
    )
    assert sentences[2].endswith(compare_imbalance(trained, fresh, paired=True).sentence)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("map", "--model", "resnet19"), "resnet18"),
        (("map", "--weights", "missing.pt"), "missing.pt"),
        (("map", "--layers", "layr4"), "nearest: layer4"),
        (("map", "--layers", "fc"), "--layers: expected 'fc' to give a feature map"),
        (("map", "--layers", "output", "output"), "expected different layers"),
        (("map", "--unit", "7,0", "--count", 1), "expected a position inside the 7 x 7 map"),
        (("map", "--target", "label"), "needs a folder of images"),
        (("map", "--target", 101, "--count", 1), "expected an index into outputs of shape (101,)"),
        (("map", "--images", "no-such-folder"), "no-such-folder"),
        (("map", "--count", 65), "expected at most 64"),
        (("map", "--device", "cuda:99"), "device"),
    ],
)
def test_bad_input_is_said_in_one_line_and_nothing_is_written(
    words: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert error[0].startswith(f"erfattr {words[0]}: error: ")
    assert message in error[0]
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_shows_before_the_long_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def long_part(*_: object, **__: object) -> None:
        raise AssertionError("the maps were begun")

    monkeypatch.setattr("erfattr.attr.sensitivity_maps.SensitivityMaps.attribute", long_part)
    (tmp_path / "file").write_text("")
    assert run("map", "--count", 1, "--output", tmp_path / "file") == 2
    assert "cannot be written to" in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_frames_of_a_video_are_told_and_grouped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = (sample_images(8, 64, normalize=False) * 255).byte().permute(0, 2, 3, 1).numpy()
    for number, scene in enumerate(scenes):
        folder = tmp_path / "video" / f"scene{number}"
        folder.mkdir(parents=True)
        for frame in range(6):
            Image.fromarray(np.roll(scene, frame, 1)).save(folder / f"{frame}.png")
    words = ("map", "--images", tmp_path / "video", "--size", 64, "--layers", "output", "--output")
    assert run(*words, tmp_path / "alone") == 0
    said = capsys.readouterr()
    assert "warning: images that follow each other are alike" in said.out
    assert "with --group, such as the folder" in said.out
    assert "UserWarning" not in said.err
    assert run(*words, tmp_path / "grouped", "--group", "folder") == 0
    assert "warning" not in capsys.readouterr().out
    alone, grouped = (
        np.load(tmp_path / name / "output_standard_error.npy").mean() for name in ("alone", "grouped")
    )
    assert grouped > 1.4 * alone
    result = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert "standard errors are too small" in result["maps"]["output"]["warning"]


@pytest.mark.usefixtures("no_figures")
def test_mean_output_comes_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("map", "--count", 4, "--size", 64, "--layers", "output", "--target", "mean")
    assert run(*words, "--output", tmp_path / "maps") == 0
    shown = capsys.readouterr().out
    assert "output, mean of all\n  warning: y is the mean of all outputs, which nearly cancel" in shown
    assert "which --target predicted maps" in shown


@pytest.mark.usefixtures("no_figures")
def test_maps_are_written_where_receptive_fields_cannot_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("b")

    monkeypatch.setattr("erfattr.cli.map.receptive_fields", fail)
    assert (
        run("map", "--count", 4, "--size", 64, "--layers", "layer3", "output", "--output", tmp_path / "maps")
        == 0
    )
    shown = capsys.readouterr().out
    assert "warning: theoretical receptive fields are left out: KeyError: 'b'" in shown
    assert np.load(tmp_path / "maps" / "layer3.npy").shape == (64, 64)
    result = json.loads((tmp_path / "maps" / "result.json").read_text())
    assert result["record"]["receptive_fields_unknown"] == "KeyError: 'b'"


def test_the_images_still_needed_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["map", "--model", "demo", "--count", "6", "--size", "64", "--layers", "output"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    (numbers,) = record["maps"].values()
    error = numbers["median_relative_standard_error"]
    wanted = numbers["images_needed_for_10_percent"]
    assert wanted["pixels"] == math.ceil(6 * (error / 0.1) ** 2)
    assert re.search(
        rf"to know it to 10 %: about {wanted['pixels'] - 6} more images \(\d+ s\) for the median", printed
    )
    assert set(wanted) == {"pixels", "L1"}
