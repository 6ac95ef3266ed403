"""The demo network: a quarter of ResNet-18, its shipped weights and their record."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader
from erfattr.datasets.photographs import sample_images
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from erfattr.models.demo import DEMO_WEIGHTS, DemoNet, demo_model, demo_record
from erfattr.models.loading import load_model, weights_hash

# closed form


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


# independent oracle


def test_the_demo_network_computes_what_torchvisions_resnet_computes():
    class Quarter(ResNet):
        """torchvision's network and blocks with a quarter of the channels."""

        def __init__(self):
            super().__init__(BasicBlock, [2, 2, 2, 2])
            self.inplanes = 16
            self.conv1 = nn.Conv2d(3, 16, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            for number, channels in enumerate((16, 32, 64, 128)):
                stage = self._make_layer(BasicBlock, channels, 2, stride=min(number, 1) + 1)
                setattr(self, f"layer{number + 1}", stage)
            self.fc = nn.Linear(128, 101)

    model, oracle = demo_model(), Quarter().eval()
    oracle.load_state_dict(model.state_dict())
    images = sample_images(2, size=64)
    with torch.inference_mode():
        assert torch.equal(model(images), oracle(images))


def test_random_initialisation_has_the_variance_of_resnets():
    model = demo_model(weights=False, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            # The relative error of a variance of n numbers is sqrt(2 / n), below 1.5 %.
            assert module.weight.var().item() == pytest.approx(2 / fan_out, rel=0.06)


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


# invariance


def test_seeds():
    hashes = [weights_hash(demo_model(weights=False, seed=seed)) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert load_model("demo", "none")[1].weights_sha256 == hashes[0]


def test_loaded_by_name_it_is_the_same():
    assert weights_hash(load_model("demo")[0]) == weights_hash(demo_model())
    assert not any(module.training for module in demo_model().modules())


def test_it_needs_no_torchvision():
    code = (
        "import sys, torch, erfattr.models.demo as demo, erfattr.datasets.photographs as photographs\n"
        "demo.demo_model()(photographs.sample_images(1, 64))\n"
        "sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# errors


def test_a_seed_that_is_no_integer():
    with pytest.raises(TypeError, match=r"seed: expected an integer, got 0\.5"):
        demo_model(seed=0.5)
