"""What several commands read: images of any size and number of channels, and what is refused before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from erfattr import ERF, DeadPixelMap, ImageFiles, receptive_fields, sample_images
from erfattr.cli import main
from erfattr.cli._inputs import class_names

NETWORKS = """
from torch import nn

class Several(nn.Module):
    def __init__(self, channels, features):
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, 5, 2, 2)
        self.act = nn.ReLU()
        self.body = nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, features)

    def forward(self, images):
        return self.head(self.act(self.body(self.act(self.stem(images)))).mean((2, 3)))

def grey():
    return Several(1, 5)

def colour():
    return Several(3, 5)

def two():
    return Several(2, 5)

def alpha():
    return Several(4, 5)

class Twice(Several):
    def forward(self, images):
        answers = super().forward(images)
        return {"first": answers, "second": answers[:, :2]}

def twice():
    return Twice(1, 5)

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.ReLU()
        self.flat = Flat()

    def forward(self, images):
        features = self.norm(self.last(self.patches(images)))
        return self.flat(features).mean(1)

class Flat(nn.Module):
    def forward(self, features):
        return features.flatten(2).transpose(1, 2).contiguous()

def tokens():
    return Tokens()

def constant():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softmax2d())
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of networks and weights of each."""
    import importlib
    import sys

    (tmp_path / "nets_for_inputs.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("nets_for_inputs", None)
    module = importlib.import_module("nets_for_inputs")
    torch.manual_seed(3)
    for name in ("grey", "colour", "alpha", "two", "twice", "tokens", "constant"):
        torch.save(getattr(module, name)().state_dict(), tmp_path / f"{name}.pt")
    return tmp_path


def loaded(name: str) -> nn.Module:
    import nets_for_inputs  # type: ignore[import-not-found]

    model: nn.Module = getattr(nets_for_inputs, name)()
    model.load_state_dict(torch.load(f"{name}.pt", weights_only=True))
    return model.eval()


def run(command: str, name: str, *words: object) -> int:
    model = ("--model", f"nets_for_inputs:{name}", "--weights", f"{name}.pt")
    return main([command, *model, *(str(word) for word in words), "--overwrite"])


# map


@pytest.mark.usefixtures("networks", "no_figures")
def test_maps_of_grey_images_that_are_not_square_are_those_of_the_library() -> None:
    assert run("map", "grey", "--size", 48, 80, "--count", 6, "--layers", "body", "output", "--plain") == 0
    images = sample_images(6, (48, 80), channels=1)
    model = loaded("grey")
    for name, expected in (
        ("body", ERF(model, "body").attribute(images)),
        ("output", DeadPixelMap(model).attribute(images)),
    ):
        found = np.load(f"erfattr-map/{name}.npy")
        assert found.shape == (48, 80)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5 * float(expected.max()))
    result = json.loads(Path("erfattr-map/result.json").read_text())
    prepared = result["record"]["images"]
    assert (prepared["size"], prepared["channels"]) == ([48, 80], 1)
    # ImageNet's constants, averaged over the colours.
    assert prepared["mean"] == pytest.approx([0.449])
    assert prepared["std"] == pytest.approx([0.226])
    field = receptive_fields(model, (48, 80), in_channels=1)["body"]
    assert result["maps"]["body"]["unit"] == [6, 10]
    assert result["maps"]["body"]["center"] == list(field.center((6, 10))) == [24.0, 40.0]
    assert result["maps"]["body"]["theoretical_receptive_field"]["size"] == [9, 9]


@pytest.mark.parametrize(("name", "channels"), [("grey", 1), ("alpha", 4)])
@pytest.mark.usefixtures("no_figures")
def test_image_files_are_read_as_the_model_takes_them(
    networks: Path, noise: Path, name: str, channels: int
) -> None:
    constants = ("--mean", -0.5, "--std", *(0.5 + k for k in range(channels)))
    words = ("--images", noise, "--count", 5, "--size", 24, 32, *constants, "--layers", "output", "--plain")
    assert run("map", name, *words) == 0
    std = tuple(0.5 + k for k in range(channels))
    files = ImageFiles(noise, (24, 32), 5, channels=channels, mean=(-0.5,) * channels, std=std)
    images = torch.stack([image for image, _ in files])
    expected = DeadPixelMap(loaded(name)).attribute(images).numpy()
    np.testing.assert_allclose(np.load("erfattr-map/output.npy"), expected, rtol=1e-5, atol=1e-9)
    record = json.loads(Path("erfattr-map/result.json").read_text())["record"]
    assert record["images"]["mean"] == [-0.5] * channels
    assert record["images"]["std"] == list(std)
    # The recorded command, whose mean begins with a minus, repeats the run.
    command = record["command"]
    command[command.index("erfattr-map")] = "again"
    assert main(command[1:]) == 0
    np.testing.assert_array_equal(np.load("again/output.npy"), np.load("erfattr-map/output.npy"))


@pytest.mark.usefixtures("networks", "no_figures")
def test_networks_of_different_channels_are_compared_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    against = ("--against", "nets_for_inputs:colour", "--against-weights", "colour.pt")
    words = ("--size", 24, 32, "--count", 12, "--layers", "output")
    assert run("map", "grey", *words, *against) == 0
    assert "nets_for_inputs:colour wants its images prepared in another way" in capsys.readouterr().out
    assert run("map", "grey", *words, "--against", "nets_for_inputs:grey") == 0
    assert "in another way" not in capsys.readouterr().out


@pytest.mark.usefixtures("networks", "no_figures")
def test_a_tensor_of_several_is_selected(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--size", 24, 32, "--count", 4, "--layers", "output", "--plain")
    assert run("map", "twice", *words, "--select", "second") == 0
    expected = DeadPixelMap(loaded("twice"), select="second").attribute(
        sample_images(4, (24, 32), channels=1)
    )
    found = np.load("erfattr-map/output.npy")
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-9)
    assert "\noutput, predicted class\n  layout: output['second']\n" in capsys.readouterr().out
    assert run("map", "twice", *words) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert error.startswith("erfattr map: error: --select: expected the key or index of one tensor")
    assert run("map", "twice", *words, "--select", 1) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert error.startswith("erfattr map: error: --select: expected a tensor of the model")
    # The last feature map is found among those that are obvious.
    assert run("map", "twice", "--size", 24, 32, "--count", 2, "--select", "first") == 0


@pytest.mark.usefixtures("networks", "no_figures")
def test_tokens_are_found_or_read_as_they_are_said_to_lie(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--size", 24, 40, "--count", 4, "--layers", "flat", "--plain")
    assert run("map", "tokens", *words) == 0
    printed = capsys.readouterr().out
    assert "\nflat, unit (1, 2)\n  layout: (N, L, C) tokens, 3 x 5 grid, traced\n" in printed
    expected = ERF(loaded("tokens"), "norm").attribute(sample_images(4, (24, 40))).numpy()
    found = np.load("erfattr-map/flat.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())
    assert run("map", "tokens", *words, "--to-spatial", "tokens:3x5") == 0
    assert "\n  layout: as to_spatial gives it\n" in capsys.readouterr().out
    np.testing.assert_allclose(np.load("erfattr-map/flat.npy"), found, rtol=1e-5, atol=1e-9)
    # As a grid of 2 x 7 behind one token, unit (1, 3) is token 1 + 7 + 3 = 11: patch (2, 1) of the 3 x 5.
    assert run("map", "tokens", *words, "--to-spatial", "tokens:2x7+1") == 0
    units = json.loads(Path("erfattr-map/result.json").read_text())["maps"]["flat"]
    assert (units["unit"], units["feature_size"]) == ([1, 3], [2, 7])
    assert units["theoretical_receptive_field"] is None  # that of another grid
    expected = ERF(loaded("tokens"), "norm", (2, 1)).attribute(sample_images(4, (24, 40))).numpy()
    found = np.load("erfattr-map/flat.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())
    for layout, message in (
        (
            "tokens:3x5+1",
            "--to-spatial: expected a tensor of shape (N, 16, C) for 1 prefix tokens and a 3 x 5 grid",
        ),
        ("channels-last", "--to-spatial: expected a tensor of shape (N, H, W, C)"),
    ):
        assert run("map", "tokens", *words, "--to-spatial", layout) == 2
        assert f"erfattr map: error: {message}" in capsys.readouterr().err
    assert run("map", "tokens", "--to-spatial", "tokens:3x5") == 2
    assert "--to-spatial: expected --layers to name the layers" in capsys.readouterr().err


@pytest.mark.usefixtures("networks", "no_figures")
def test_a_state_belongs_to_one_reading_of_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--size", 24, 40, "--count", 4, "--layers", "flat", "--batch-size", 2)
    words += ("--state", "maps.state", "--state-interval", 2)
    assert run("map", "tokens", *words, "--to-spatial", "tokens:3x5") == 0
    assert run("map", "tokens", *words, "--to-spatial", "tokens:3x5") == 0
    assert run("map", "tokens", *words, "--to-spatial", "tokens:5x3") == 2
    assert "expected layout 'tokens:5x3' (str), got 'tokens:3x5'" in capsys.readouterr().err


@pytest.mark.usefixtures("networks", "no_figures")
def test_a_layer_that_was_passed_over_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("map", "constant", "--size", 24, 32, "--count", 2, "--layers", "last") == 0
    layout = "(N, C, H, W), traced; '1' behind it has a constant channel mean"
    assert f"\n0, unit (6, 8)\n  layout: {layout}\n" in capsys.readouterr().out
    assert run("map", "grey", "--size", 24, 32, "--count", 2, "--layers", "stem") == 0
    assert "layout:" not in capsys.readouterr().out  # the usual one


# debias, attack


@pytest.mark.parametrize(("name", "channels"), [("grey", 1), ("alpha", 4)])
@pytest.mark.usefixtures("networks")
def test_saliency_of_images_of_any_kind(name: str, channels: int) -> None:
    Path("photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    Image.fromarray(pixels).save("photos/photo.png")
    assert run("debias", name, "--size", 24, 32, "--count", 4, "photos/photo.png") == 0
    (image,) = list(ImageFiles("photos", (24, 32), channels=channels))
    result = json.loads(Path("erfattr-debias/result.json").read_text())
    images = image[None].requires_grad_()
    output = loaded(name)(images)
    target = int(output.argmax())
    assert result["images"]["photo"]["target"] == target
    assert result["images"]["photo"]["class"] == f"class {target}"
    (expected,) = torch.autograd.grad(output[0, target], images)
    raw = np.load("erfattr-debias/photo_raw.npy")
    assert raw.shape == np.load("erfattr-debias/photo_debiased.npy").shape == (channels, 24, 32)
    np.testing.assert_allclose(raw, expected[0].abs().numpy(), rtol=1e-5, atol=1e-9)
    assert np.load("erfattr-debias/sensitivity_map.npy").shape == (24, 32)
    assert (result["record"]["period"], result["record"]["prepared"]["channels"]) == (4, channels)
    shown = np.load("erfattr-debias/photo_image.npy")  # grey is shown as colours that are equal
    assert shown.shape == (max(channels, 3), 24, 32)
    plain = ImageFiles("photos", (24, 32), channels=channels, mean=(0,) * channels, std=(1,) * channels)[0]
    np.testing.assert_allclose(shown[:channels], plain.numpy(), atol=1e-6)
    assert (shown[0] == shown[1]).all()


@pytest.mark.parametrize(("name", "channels"), [("grey", 1), ("alpha", 4)])
@pytest.mark.usefixtures("networks")
def test_attacked_images_of_any_kind_are_what_the_network_is_asked(name: str, channels: int) -> None:
    search = ("--population", 12, "--generations", 4, "--pixels", 30)
    assert run("attack", name, "--size", 16, 24, "--count", 6, "--std", 0.1, *search) == 0
    result = json.loads(Path("erfattr-attack/result.json").read_text())
    prepared = result["record"]["images"]
    assert (prepared["size"], prepared["channels"], prepared["std"]) == (
        [16, 24],
        channels,
        [0.1] * channels,
    )
    successes = [name for name, image in result["images"].items() if image["success"]]
    assert len(successes) == result["summary"]["successes"] > 0
    files = ImageFiles(
        "erfattr-attack",
        (16, 24),
        channels=channels,
        mean=prepared["mean"],
        std=prepared["std"],
    )
    model = loaded(name)
    for index, path in enumerate(files.paths):
        if path.name == "contact_sheet.png":
            continue
        attacked = result["images"][path.name.removesuffix("_adversarial.png")]
        with torch.no_grad():
            answer = int(model(files[index][None]).argmax())
        assert attacked["after"] == f"class {answer}" != attacked["before"]
        for (y, x), color in zip(attacked["positions"], attacked["colors"], strict=True):
            pixel = np.array(Image.open(path))[y, x].tolist()
            assert pixel == (color["after"] if channels == 4 else 3 * color["after"])


# rf


@pytest.mark.usefixtures("networks")
def test_receptive_fields_of_other_channels(capsys: pytest.CaptureFixture[str]) -> None:
    for name, channels in (("grey", 1), ("two", 2), ("colour", 3)):
        assert main(["rf", f"nets_for_inputs:{name}", "--size", "48", "80", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["input_size"], found["channels"]) == ([48, 80], channels)
        assert found["layers"]["body"]["output_size"] == [12, 20]
        assert found["layers"]["body"]["size"] == [9, 9]
    assert main(["rf", "nets_for_inputs:two", "--channels", "3"]) == 2
    message = "--channels: expected 2, which the first convolution 'stem' of the Several takes, got 3"
    assert capsys.readouterr().err == f"erfattr rf: error: {message}\n"
    assert main(["rf", "resnet18", "--channels", "1"]) == 2
    message = "--channels: expected 3, which the first convolution 'conv1' of the ResNet takes, got 1"
    assert capsys.readouterr().err == f"erfattr rf: error: {message}\n"


# errors


@pytest.mark.parametrize("command", ["map", "debias", "attack"])
@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "grey",
            ("--channels", 3),
            "--channels: expected 1, which the first convolution 'stem' of the Several",
        ),
        ("colour", ("--channels", 4), "--channels: expected 3, which the first convolution 'stem' of the"),
        (
            "two",
            (),
            "--channels: expected a model of images of 1, 3 or 4 channels, but nets_for_inputs:two takes 2",
        ),
        (
            "colour",
            ("--mean", 0.5, 0.5),
            "--mean: expected one finite number, or one for each of the 3 channels",
        ),
        (
            "colour",
            ("--mean", "nan"),
            "--mean: expected one finite number, or one for each of the 3 channels",
        ),
        (
            "alpha",
            ("--std", 1, 1, 0, 1),
            "--std: expected one positive finite number, or one for each of the 4",
        ),
        ("grey", ("--std", 1, 2), "--std: expected one positive finite number, got 1.0 2.0"),
        ("grey", ("--std", "inf"), "--std: expected one positive finite number, got inf"),
        ("grey", ("--std", -1), "--std: expected one positive finite number, got -1.0"),
    ],
)
@pytest.mark.usefixtures("networks")
def test_images_that_do_not_serve_are_refused_before_any_is_read(
    command: str,
    name: str,
    words: tuple[object, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("erfattr.cli._inputs.sample_images", read)
    monkeypatch.setattr("erfattr.datasets.preprocessing.read_image", read)
    assert run(command, name, *words, "--size", 24, 32, "--output", "out") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"erfattr {command}: error: {message}")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "bodi"), "--layers: the Several has no layer 'bodi'; nearest: body"),
        (
            ("--unit", "12,0", "--layers", "body"),
            "--unit: expected a position inside the 6 x 8 map of layer 'body'",
        ),
        (("--target", 9), "--target: expected an index into outputs of shape (5,), got 9"),
        (("--count", 65), "--count: expected at most 64 sample images, got 65"),
        (("--select", 0, "--layers", "body"), "--select: layer 'body' gives a tensor of shape"),
    ],
)
@pytest.mark.usefixtures("networks")
def test_an_error_names_the_option(
    words: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("map", "grey", *words, "--size", 24, 32) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert error.startswith(f"erfattr map: error: {message}")


def test_names_of_classes_are_those_that_the_model_was_trained_with() -> None:
    pytest.importorskip("timm", reason="needs timm")
    assert class_names("timm/resnet18", 1000)[281] == "tabby, tabby cat"
    assert class_names("resnet18", 1000)[281] == "tabby"
    # Another number of classes than those names are of.
    assert class_names("timm/resnet18", 3) == class_names("resnet18", 3) == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("command", ["debias", "attack"])
def test_images_decoded_by_workers_are_the_same(command: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    small = ["--size", "64", "--images", str(folder)]
    if command == "attack":
        small += ["--population", "4", "--generations", "1"]
    else:
        small = [str(folder / "0.png"), *small]
    for workers in ("0", "2"):
        out = str(tmp_path / f"out{workers}")
        assert main([command, *small, "--workers", workers, "-q", "-o", out]) == 0
    first, second = (json.loads((tmp_path / f"out{n}" / "result.json").read_text()) for n in (0, 2))
    # The record says when and how each was run.
    del first["record"], second["record"]
    assert first == second
