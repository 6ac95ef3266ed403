from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import pickle
import random
import struct
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader
from erfattr.datasets.photographs import sample_images
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from erfattr.models.loading import (
    DEMO_WEIGHTS,
    DemoNet,
    demo_model,
    demo_record,
    load_model,
    weights_hash,
)

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


# closed form


def test_the_hash_is_that_of_names_dtypes_shapes_and_bytes():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.copy_(torch.tensor([-0.5]))
    expected = hashlib.sha256(
        b"bias torch.float32 (1,)\n"
        + struct.pack("<f", -0.5)
        + b"weight torch.float32 (1, 2)\n"
        + struct.pack("<ff", 1.0, 2.0)
    ).hexdigest()
    assert weights_hash(model) == expected


def test_the_demo_network_is_a_quarter_of_resnet18():
    reference = torchvision.models.resnet18(num_classes=404).state_dict()
    demo = DemoNet().state_dict()
    assert list(demo) == list(reference)
    for name, value in demo.items():
        quarter = tuple(side if side in (1, 3, 7) else side // 4 for side in reference[name].shape)
        assert tuple(value.shape) == quarter, name
    assert sum(parameter.numel() for parameter in DemoNet().parameters()) == 715_125


def test_the_demo_network_halves_the_map_as_resnet_does():
    model = demo_model()
    sides = {}
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool"):
        model.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: sides.update({name: tuple(output.shape[1:])})
        )
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 101)
    assert sides == {
        "conv1": (16, 112, 112),
        "maxpool": (16, 56, 56),
        "layer1": (16, 56, 56),
        "layer2": (32, 28, 28),
        "layer3": (64, 14, 14),
        "layer4": (128, 7, 7),
        "avgpool": (128, 1, 1),
    }


def test_the_shipped_weights_are_small_and_tensors_alone():
    assert DEMO_WEIGHTS.stat().st_size <= 2 * 1024 * 1024
    state = torch.load(DEMO_WEIGHTS, weights_only=True)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    model, info = load_model("demo")
    assert torch.equal(model.conv1.weight, state["conv1.weight"].float())
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert info.weights_sha256 == weights_hash(model)
    assert info.weights == "shipped with erfattr, trained on Caltech-101"
    assert info.seed is None
    assert (info.mean, info.std, info.size) == (IMAGENET_MEAN, IMAGENET_STD, 224)


# independent oracle


def test_the_demo_network_computes_what_torchvisions_resnet_computes():
    from torchvision.models.resnet import BasicBlock, ResNet

    class Quarter(ResNet):
        """The forward pass is torchvision's; the modules are narrower."""

        def __init__(self, modules):
            super().__init__(BasicBlock, [2, 2, 2, 2])
            for name, module in modules:
                setattr(self, name, module)

    model = demo_model()
    oracle = Quarter(model.named_children()).eval()
    images = sample_images(2, size=64)
    with torch.inference_mode():
        assert torch.equal(model(images), oracle(images))


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


@pytest.mark.slow
def test_the_shipped_weights_are_as_accurate_as_their_record_says(tmp_path):
    data = os.environ.get("ERFATTR_CALTECH101")
    if data is None:
        pytest.skip("ERFATTR_CALTECH101 does not name Caltech-101: its class folders, or a tar file of them")
    script = Path(__file__).parents[2] / "scripts" / "train_demo_model.py"
    spec = importlib.util.spec_from_file_location("train_demo_model", script)
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    folders = training.class_folders(Path(data), tmp_path)
    record = demo_record()
    assert [folder.name for folder in folders] == record["classes"]
    test = {path for path, _ in training.stratified_split(folders, record["split_seed"])["test"]}
    assert len(test) == record["split"]["test"]

    files = ImageFiles(folders[0].parent)
    kept = [index for index, path in enumerate(files.paths) if path in test]
    files.paths = tuple(files.paths[index] for index in kept)
    files.labels = tuple(record["classes"].index(path.parent.name) for path in files.paths)
    model = demo_model()
    with torch.inference_mode():
        right = [model(images).argmax(1) == labels for images, labels in ImageLoader(files, 50)]
    accuracy = 100 * torch.cat(right).double().mean().item()
    assert accuracy == pytest.approx(record["test_accuracy_percent"], abs=0.5)


def test_the_record_of_the_demo_network_says_how_good_it_is():
    record = demo_record()
    assert len(record["classes"]) == len(set(record["classes"])) == 101
    assert record["classes"] == sorted(record["classes"])
    assert record["split"] == {"train": 6071, "validation": 1303, "test": 1303}
    assert record["parameters"] == 715_125
    # Always answering "airplanes", the largest class, would be right in 9 % of the images.
    assert 70 < record["test_accuracy_percent"] < 100
    assert 60 < record["test_class_mean_accuracy_percent"] < 100
    card = DEMO_WEIGHTS.with_name("DEMO_MODEL.md").read_text(encoding="utf-8")
    assert f"{record['test_accuracy_percent']:.1f} %" in card


def test_the_shipped_weights_give_these_logits():
    # Recorded when the weights were trained; another network or another preprocessing gives other ones.
    with torch.inference_mode():
        logits = demo_model()(sample_images(5)[4:])[0]
    assert demo_record()["classes"][int(logits.argmax())] == "Motorbikes"
    expected = torch.tensor([0.3802, -0.6753, -1.3143, 0.4698, -1.4822])
    assert torch.allclose(logits[[0, 1, 2, 67, 100]], expected, rtol=0, atol=1e-3)  # four digits noted


# invariance


def test_the_hash_tells_values_names_and_shapes_apart_but_not_layouts():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    first = weights_hash(model)
    assert weights_hash(model.to(memory_format=torch.channels_last)) == first
    assert weights_hash(model.eval()) == first
    model[1].running_mean[2] += 1e-6
    assert weights_hash(model) != first
    renamed = nn.Sequential()
    renamed.a, renamed.b = nn.Linear(1, 1), nn.Linear(1, 1)
    swapped = nn.Sequential()
    swapped.b, swapped.a = renamed.b, renamed.a
    assert weights_hash(renamed) == weights_hash(swapped)
    swapped.b, swapped.a = renamed.a, renamed.b
    assert weights_hash(renamed) != weights_hash(swapped)
    assert weights_hash(nn.Linear(2, 3, bias=False)) != weights_hash(nn.Linear(3, 2, bias=False))
    assert weights_hash(nn.Linear(1, 1).half()) != weights_hash(nn.Linear(1, 1).bfloat16())


def test_seeds():
    hashes = [weights_hash(demo_model(weights=False, seed=seed)) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert load_model("demo", "none")[1].weights_sha256 == hashes[0]


@pytest.mark.parametrize("name", ["googlenet", "deeplabv3_mobilenet_v3_large"])
def test_random_initialisation_needs_no_network(no_network, recwarn, name):
    model, info = load_model(name, "none")
    assert not model.training
    assert info.size == {"googlenet": 224, "deeplabv3_mobilenet_v3_large": 520}[name]
    assert [str(warning.message) for warning in recwarn if warning.category is FutureWarning] == []


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "parallel", "half"])
def test_a_checkpoint_comes_back_however_it_is_wrapped(tmp_path, wrap):
    original = demo_model(weights=False, seed=5)
    state = original.state_dict()
    content = {
        "plain": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state, "optimizer": {"lr": 0.1}},
        "parallel": {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        "half": {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
    }[wrap]
    torch.save(content, tmp_path / "weights.pt")
    model, info = load_model("demo", str(tmp_path / "weights.pt"))
    assert info.weights == "checkpoint file weights.pt"
    assert info.seed is None
    if wrap == "half":
        assert torch.equal(model.fc.weight, original.fc.weight.half().float())
        assert model.fc.weight.dtype == torch.float32
    else:
        assert info.weights_sha256 == weights_hash(original)


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
    with pytest.raises(ValueError, match=r"timm has no model 'resnet_test'; nearest: .*resnet"):
        load_model("timm/resnet_test")
    with pytest.raises(
        ValueError, match=r"weights: expected one of none, .* or a checkpoint file, got 'r160'"
    ):
        load_model("timm/test_resnet", "r160")


# errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"got 'resnet81'; nearest: .*resnet18"),
        ("dmeo", r"got 'dmeo'; nearest: demo"),
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


def test_a_checkpoint_that_does_not_fit(tmp_path):
    state = DemoNet(10).state_dict()
    del state["conv1.weight"]
    state["extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"weights: .*other\.pt does not fit the DemoNet: ") as raised:
        load_model("demo", tmp_path / "other.pt")
    text = str(raised.value)
    assert "1 missing (conv1.weight); 1 unexpected (extra); " in text
    assert (
        "2 other shapes (fc.weight is (10, 128) instead of (101, 128), fc.bias is (10,) instead of (101,))"
        in text
    )
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"122 missing \(conv1.weight, bn1.weight, bn1.bias, ...\); 2 unexp"):
        load_model("demo", tmp_path / "small.pt")


def test_files_that_are_no_checkpoint(tmp_path):
    (tmp_path / "garbage.pt").write_bytes(b"garbage")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "code.pt").write_bytes(pickle.dumps(random.Random, protocol=2))
    whole = DEMO_WEIGHTS.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save(DemoNet(), tmp_path / "whole_model.pt")
    for name in ("garbage", "empty", "code", "cut", "whole_model"):
        with pytest.raises(ValueError, match=rf"weights: .*{name}\.pt cannot be read as tensors alone"):
            load_model("demo", tmp_path / f"{name}.pt")
    for content in (torch.zeros(3), {"epoch": 3}, {0: torch.zeros(1)}, [torch.zeros(1)]):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"weights: expected a state dict in .*other\.pt, got "):
            load_model("demo", tmp_path / "other.pt")


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


def test_the_hash_leaves_the_model_as_it_was():
    model = DemoNet(3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights_hash(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_models_come_in_evaluation_mode_and_information_is_frozen():
    model, info = load_model("demo", "none")
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.seed = 1
