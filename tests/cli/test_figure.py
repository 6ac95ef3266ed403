"""``erfattr figure``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from erfattr import ERF, demo_model, sample_images
from erfattr.cli import main


def run(*words: object) -> int:
    return main(["figure", *(str(word) for word in words)])


def test_stages_of_two_networks_at_a_columns_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo_twin.py").write_text("from erfattr import demo_model as build")
    monkeypatch.chdir(tmp_path)
    words = ("demo", "demo_twin:build", "--stages", 2, "--size", 96, "--count", 4)
    output = tmp_path / "figure"
    assert run(*words, "--width", 85, "--format", "pdf", "--output", output) == 0
    printed = capsys.readouterr().out
    assert "demo (shipped with erfattr, trained on Caltech-101): layer3, layer4" in printed
    assert "warning: demo, layer4: mostly noise: 4 images" in printed
    assert (output / "stages_85mm.pdf").read_bytes().startswith(b"%PDF")
    expected = ERF(demo_model(), "layer4").attribute(sample_images(4, 96)).numpy()
    found = np.load(output / "demo_layer4.npy")
    # Batches of another size: in float32 a few ReLU decisions flip.
    assert np.abs(found - expected).max() <= 0.01 * expected.max()
    result = json.loads((output / "result.json").read_text())
    assert result["record"]["command"][:4] == ["erfattr", "figure", "demo", "demo_twin:build"]
    assert list(result["maps"]) == ["demo", "demo_twin:build"]
    assert result["record"]["models"]["demo_twin:build"]["name"] == "demo_twin:build"


def test_layers_for_each_network_and_the_command_that_repeats_it(tmp_path: Path) -> None:
    small = ("--size", 64, "--count", 3, "--width", 85, "--format", "svg", "--zoom", 0, "--own-scales")
    layers = ("--layers", "layer1", "layer2", "--layers", "layer4")
    weights = ("--weights", "none")
    assert run("demo", "resnet18", *weights, *layers, *small, "--output", tmp_path / "one") == 0
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert {model: list(stages) for model, stages in result["maps"].items()} == {
        "demo": ["layer1", "layer2"],
        "resnet18": ["layer4"],
    }
    command = [
        str(tmp_path / "two") if word == str(tmp_path / "one") else word
        for word in result["record"]["command"]
    ]
    assert main(command[1:]) == 0
    for path in sorted((tmp_path / "one").glob("*.npy")):
        np.testing.assert_array_equal(np.load(path), np.load(tmp_path / "two" / path.name))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "--layers", "layer9"), "--layers: "),
        (("demo", "--layers", "layer1", "layer1"), "--layers: expected different layers"),
        (("demo", "--layers", "layer1", "--layers", "layer2"), "--layers: expected one for all networks"),
        (("demo", "--weights", "none", "none"), "--weights: expected one for all networks"),
        (("demo", "demo"), "MODEL: expected different networks or weights"),
        (("demo", "--width", 85, 85), "--width: expected different ones"),
        (("demo", "--width", 0), "argument --width: expected a positive number, got '0'"),
        (("demo", "--width", 20), "--width: expected at least"),
        (("demo", "--cmap", "mud"), "--cmap: expected the name of a matplotlib colour map"),
        (("demo", "--layers", "layer1", "--stages", 3), "--stages: expected only with"),
        (("demo", "--workers", 2), "--workers: expected only with a folder of --images"),
        (("demo", "convnext_tiny", "--weights", "none"), "(in convnext_tiny)"),
    ],
)
def test_errors_are_one_line_that_names_the_option(
    words: tuple[object, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = run(*words, "--size", 64, "--count", 3, "--output", tmp_path / "out")
    except SystemExit as ended:  # what argparse refuses itself
        status = int(str(ended.code))
    assert status == 2
    output, errors = capsys.readouterr()
    assert "layer1" not in output  # no network was run before
    (error,) = errors.splitlines()[-1:]
    assert error.startswith("erfattr figure: error: ")
    assert message in error
    assert not (tmp_path / "out").exists()
