from __future__ import annotations

import dataclasses
import os
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from erfattr.datasets.photographs import sample_images
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from erfattr.models import _sources
from erfattr.models._sources import Loaded, Source
from erfattr.models.demo import demo_model
from erfattr.models.loading import load_model, weights_hash

MOBILENET = "mobilenet_v2-b0353104.pth"


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty TORCH_HOME, and a network that is not there."""

    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    return tmp_path / "home"


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A module of the user's own in the working folder."""
    (tmp_path / "my_nets.py").write_text(
        "import torch\n"
        "def tiny():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten())\n"
        "def text():\n"
        "    return 'a model'\n"
        "class Nets:\n"
        "    @staticmethod\n"
        "    def linear():\n"
        "        return torch.nn.Linear(2, 1)\n"
        "number = 3\n"
    )
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("my_nets", "needs_more"):
        sys.modules.pop(name, None)


# independent oracle


def test_random_initialisation_is_that_of_torchvision_under_the_seed():
    model, info = load_model("squeezenet1_1", "none", seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        oracle = torchvision.models.squeezenet1_1()
    assert weights_hash(model) == weights_hash(oracle)
    assert info.weights == "random initialisation, seed 3"
    assert info.seed == 3
    assert (info.mean, info.std, info.size) == (IMAGENET_MEAN, IMAGENET_STD, 224)


@pytest.mark.pretrained
@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "MobileNet_V2_Weights.IMAGENET1K_V1", "file"])
def test_weights_are_found_through_torch_home(weights):
    file = Path(torch.hub.get_dir(), "checkpoints", MOBILENET)
    if not file.is_file():
        pytest.skip(f"{MOBILENET} is not in {file.parent} (TORCH_HOME)")
    model, info = load_model("mobilenet_v2", file if weights == "file" else weights)
    state = torch.load(file, weights_only=True)
    assert torch.equal(model.features[0][0].weight, state["features.0.0.weight"])
    assert torch.equal(model.classifier[1].bias, state["classifier.1.bias"])
    assert info.seed is None
    expected = f"checkpoint file {MOBILENET}" if weights == "file" else "MobileNet_V2_Weights.IMAGENET1K_V1"
    assert expected in info.weights
    with torch.inference_mode():
        cat = model(sample_images(2)[1:]).argmax().item()
    assert cat in (281, 282, 285)  # tabby, tiger cat, Egyptian cat


# invariance


@pytest.mark.parametrize("name", ["googlenet", "deeplabv3_mobilenet_v3_large"])
def test_random_initialisation_needs_no_network(no_network, recwarn, name):
    model, info = load_model(name, "none")
    assert not model.training
    assert info.size == {"googlenet": 224, "deeplabv3_mobilenet_v3_large": 520}[name]
    assert [str(warning.message) for warning in recwarn if warning.category is FutureWarning] == []


def test_your_own_model_as_its_function_returns_it(user_module):
    model, info = load_model("my_nets:tiny", seed=7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = nn.Conv2d(3, 2, 3).weight
    assert torch.equal(model[0].weight, expected)
    assert info.weights == "as returned by my_nets:tiny, seed 7"
    assert load_model("my_nets:tiny", "none", seed=7)[1].weights == "random initialisation, seed 7"
    torch.save({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}, "linear.pt")
    linear, _ = load_model("my_nets:Nets.linear", Path("linear.pt"))
    assert linear(torch.tensor([[10.0, 100.0]])).item() == 213.0


def test_timm_models(monkeypatch):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model, info = load_model("timm/test_resnet", "none", seed=2)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        oracle = timm.create_model("test_resnet")
    assert info.weights_sha256 == weights_hash(oracle)
    config = timm.data.resolve_model_data_config(model)
    assert (info.mean, info.std, info.size) == (config["mean"], config["std"], config["input_size"][-1])
    assert info.channels == config["input_size"][0] == 3
    with pytest.raises(ValueError, match=r"timm has no model 'resnet_test'; nearest: .*resnet"):
        load_model("timm/resnet_test")
    with pytest.raises(
        ValueError, match=r"weights: expected one of none, .* or a checkpoint file, got 'r160'"
    ):
        load_model("timm/test_resnet", "r160")


def test_images_of_timm_models_that_are_not_square_or_not_colour(monkeypatch):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    config = {"input_size": (1, 96, 64), "mean": (0.5,), "std": (0.25,)}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: config)
    _, info = load_model("timm/test_resnet", "none")
    assert (info.size, info.channels, info.mean, info.std) == ((96, 64), 1, (0.5,), (0.25,))


def test_channels_are_known_where_the_source_says_them(user_module):
    assert load_model("demo")[1].channels == load_model("demo", "none")[1].channels == 3
    assert load_model("squeezenet1_1", "none")[1].channels == 3
    assert load_model("my_nets:tiny")[1].channels is None


def test_a_new_source_is_one_entry(monkeypatch):
    source = Source(
        "'twins/NAME'",
        lambda name: name.startswith("twins/"),
        lambda name, weights, progress: Loaded(nn.Linear(2, 1), f"made for {name}", random=True),
    )
    monkeypatch.setattr(_sources, "SOURCES", (source, *_sources.SOURCES))
    model, info = load_model("twins/seven", seed=7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert torch.equal(model.weight, nn.Linear(2, 1).weight)
    assert (info.name, info.weights, info.seed) == ("twins/seven", "made for twins/seven, seed 7", 7)
    with pytest.raises(ValueError, match="name: expected 'twins/NAME', 'demo', a torchvision model"):
        load_model("resnet81")


# errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"got 'resnet81'; nearest: .*resnet18"),
        ("dmeo", r"got 'dmeo'; nearest: demo"),
        (
            "twin/resnet18",
            r"a torchvision model, .*, got 'twin/resnet18'; nearest: .*resnet18",
        ),
        ("", r"expected 'demo', a torchvision model, 'timm/NAME' or 'module.path:factory', got ''"),
        ("fasterrcnn_resnet50_fpn", "expected a classification or segmentation model, got 'fasterrcnn"),
        ("no_such_module_anywhere:net", "no module 'no_such_module_anywhere' is installed or in "),
        ("os.no_such_part:net", "no module 'os.no_such_part' is installed"),
        ("collections:", "expected 'module.path:factory', got 'collections:'"),
        ("folder/file.py:net", "expected 'module.path:factory', got 'folder/file.py:net'"),
        ("collections:Ordereddict", "module 'collections' has no 'Ordereddict'; nearest: OrderedDict"),
    ],
)
def test_unknown_models(name, message):
    with pytest.raises(ValueError, match=f"name: .*{message}"):
        load_model(name)


def test_functions_that_return_no_module(user_module):
    with pytest.raises(
        TypeError, match=r"name: expected 'my_nets:text' to return a torch module, got 'a model'"
    ):
        load_model("my_nets:text")
    with pytest.raises(TypeError, match=r"name: expected 'my_nets:number' to be a function .*, got 3"):
        load_model("my_nets:number")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_model("needs_more:net")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("mobilenet_v2", "IMAGENET1K_V3", "got 'IMAGENET1K_V3'; nearest: IMAGENET1K_V"),
        ("mobilenet_v2", "ResNet18_Weights.IMAGENET1K_V1", "expected one of none, IMAGENET1K_V1"),
        ("mobilenet_v2", "None", "got 'None'; nearest: none"),
        ("demo", "IMAGENET1K_V1", "expected one of none, DEFAULT or a checkpoint file, got 'IMAGENET1K_V1'"),
        ("demo", "absent.pt", "or a checkpoint file, got 'absent.pt'"),
        ("demo", ".", "or a checkpoint file, got '.'"),
        ("mnasnet0_5", "", "or a checkpoint file, got ''"),
    ],
)
def test_unknown_weights(name, weights, message):
    with pytest.raises(ValueError, match=f"weights: .*{message}"):
        load_model(name, weights)


def test_a_download_that_fails_names_file_and_folder(no_network):
    with pytest.raises(
        FileNotFoundError, match=r"weights: MobileNet_V2_Weights.IMAGENET1K_V1 cannot be"
    ) as raised:
        load_model("mobilenet_v2", "IMAGENET1K_V1")
    text = str(raised.value)
    assert "from https://download.pytorch.org/models/mobilenet_v2-b0353104.pth (URLError: " in text
    assert f"put the file {MOBILENET} into the folder {no_network / 'hub' / 'checkpoints'}" in text


def test_a_damaged_download_is_named(no_network):
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / MOBILENET).write_bytes(b"half a file")
    with pytest.raises(
        ValueError, match=rf"IMAGENET1K_V1 in .*{MOBILENET} cannot be read .*; replace the file"
    ):
        load_model("mobilenet_v2", "IMAGENET1K_V1")


def test_a_model_without_weights_of_torchvision(no_network):
    with pytest.raises(FileNotFoundError, match=r"mobilenet_v2-7ebf99e0\.pth"):
        load_model("mobilenet_v2")  # the default is DEFAULT
    without = [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if "DEFAULT" not in torchvision.models.get_model_weights(name).__members__
    ]
    for name in without:
        with pytest.raises(ValueError, match=f"weights: torchvision has none for '{name}'"):
            load_model(name)


def test_timm_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"'timm/resnet18' needs timm, .*: pip install timm"):
        load_model("timm/resnet18")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3,), {}, TypeError, "name: expected the name of a model, got 3"),
        (("demo", 3), {}, TypeError, "weights: expected a name, a path or None, got 3"),
        (("demo",), {"seed": 0.5}, TypeError, "seed: expected an integer, got 0.5"),
        (("demo",), {"device": "gpu"}, ValueError, "device: expected a torch device .*, got 'gpu'"),
        (("demo",), {"device": 1.5}, ValueError, "device: expected a torch device .*, got 1.5"),
    ],
)
def test_arguments_of_a_wrong_kind(arguments, options, error, message):
    with pytest.raises(error, match=message):
        load_model(*arguments, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device: expected one that this machine has, got 'cuda'"):
        load_model("demo", device="cuda")


# caller untouched


def test_random_state_and_search_path_come_back(user_module):
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))  # a state that no seeded call leaves behind
    state, path = torch.get_rng_state(), list(sys.path)
    load_model("my_nets:tiny")
    load_model("demo", "none")
    demo_model()
    with pytest.raises(ValueError, match="no module"):
        load_model("no_such_module_anywhere:net")
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.path == path


def test_models_come_in_evaluation_mode_and_information_is_frozen():
    model, info = load_model("demo", "none")
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.seed = 1
