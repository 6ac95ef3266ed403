"""``erfattr debias``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from PIL import Image

from erfattr import DeadPixelMap, DebiasedAttribution, demo_model, load_calibration, sample_images
from erfattr.attr.debiased_attribution import debias
from erfattr.cli import main
from erfattr.models.demo import demo_record

SMALL = ("--size", 96, "--count", 4)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (120, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*words: object) -> int:
    return main(["debias", *(str(word) for word in words)])


def test_embedded_images_as_the_library_debiases_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SMALL, "--output", tmp_path) == 0
    model, images = demo_model(), sample_images(4, 96)
    expected = DebiasedAttribution.calibrate(Saliency(model), images, preserve_total=True)
    with torch.no_grad():
        target = int(model(images[1:2]).argmax())
    raw = Saliency(model).attribute(images[1:2], target=target)[0].numpy()
    after = expected.attribute(images[1:2], target=target)[0].numpy()
    # Batches of another size: in float32 a few ReLU decisions flip.
    assert np.abs(np.load(tmp_path / "embedded_1_raw.npy") - raw).max() <= 0.01 * raw.max()
    assert np.abs(np.load(tmp_path / "embedded_1_debiased.npy") - after).max() <= 0.01 * after.max()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["record"]["period"] == 32
    assert result["record"]["map"]["count"] == 4
    name = demo_record()["classes"][target]
    assert result["images"]["embedded_1"]["target"] == target
    assert result["images"]["embedded_1"]["class"] == name
    assert result["grid"]["sentence"].startswith("3 images: ")
    printed = capsys.readouterr().out
    assert result["grid"]["sentence"] in printed
    assert f"embedded_1: {name}, " in printed
    assert str(tmp_path / "debiased.png") in printed


@pytest.mark.usefixtures("no_figures")
def test_measured_map_serves_the_next_run_and_is_refused_for_another(
    tmp_path: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--method", "integrated-gradients", "--samples", 2)
    assert run(photograph, *SMALL, *options, "--mode", "global", "--output", tmp_path / "first") == 0
    calibration = tmp_path / "first" / "calibration.pt"
    assert load_calibration(calibration).settings == {"n_steps": "2 (int)"}
    again = (photograph, "--size", 96, *options, "--map", calibration)
    assert run(*again, "--mode", "global", "--output", tmp_path / "second") == 0
    first, second = (np.load(tmp_path / name / "photo_debiased.npy") for name in ("first", "second"))
    np.testing.assert_array_equal(first, second)
    command = json.loads((tmp_path / "second" / "result.json").read_text())["record"]["command"]
    assert command[:3] == ["erfattr", "debias", str(photograph)]
    capsys.readouterr()
    refused = tmp_path / "refused"
    assert run(photograph, "--size", 96, "--map", calibration, "--output", refused) == 2
    assert "calibrated for IntegratedGradients" in capsys.readouterr().err
    assert run(*again, "--weights", "none", "--output", refused) == 2
    assert "calibrated for a model with weights" in capsys.readouterr().err
    assert (
        run(photograph, "--size", 64, *options, "--map", calibration, "--mode", "local", "--output", refused)
        == 2
    )
    assert "attributions of the map's size (96, 96), got (64, 64)" in capsys.readouterr().err
    assert not refused.exists()


@pytest.mark.usefixtures("no_figures")
def test_map_of_another_command(tmp_path: Path, photograph: Path) -> None:
    D = DeadPixelMap(demo_model()).attribute(sample_images(3, 96))  # noqa: N806
    np.save(tmp_path / "output.npy", D.numpy())
    out = tmp_path / "out"
    assert (
        run(photograph, "--size", 96, "--map", tmp_path / "output.npy", "--target", 5, "--output", out) == 0
    )
    raw = torch.from_numpy(np.load(out / "photo_raw.npy"))
    found = torch.from_numpy(np.load(out / "photo_debiased.npy"))
    expected = debias(raw[None], D, period=32, preserve_total=True)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert not (out / "calibration.pt").exists()


FACTORY = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU6(), nn.Flatten(), nn.Linear(900, 3))
"""


@pytest.mark.usefixtures("no_figures")
def test_guided_backprop_says_where_it_is_a_plain_gradient(
    tmp_path: Path, photograph: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_relu6.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    options = ("--model", "with_relu6:build", "--size", 32, "--count", 3)
    assert run(photograph, *options, "--method", "guided-backprop", "--output", "out") == 0
    assert "GuidedBackprop passes over ReLU6" in capsys.readouterr().out
    assert json.loads(Path("out/result.json").read_text())["record"]["period"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.png"], "image file missing.png cannot be read"),
        (["a/cat.png", "b/cat.png"], "IMAGE: expected files of different names, got cat cat"),
        (["--map", "missing.npy"], "--map: there is no file missing.npy"),
        (["--map", "missing.pt"], "cannot be read as a calibration"),
        (["--epsilon", "0"], "--epsilon: expected a number in (0, 1]"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(*words, "--size", 64, "--count", 3, "--output", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
