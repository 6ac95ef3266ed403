"""What is remembered of a model, and what makes it forget."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from erfattr import ERF
from erfattr.attr._memory import remembered, structure
from erfattr.models.demo import DemoNet


def changed_weights(model: nn.Module) -> None:
    with torch.no_grad():
        model.conv1.weight.mul_(2)
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})


def trained(model: nn.Module) -> None:
    model.train(not model.training)


@pytest.mark.parametrize("change", [changed_weights, trained])
def test_weights_and_modes_are_no_structure(resnet: DemoNet, change: Callable[[nn.Module], None]) -> None:
    before = structure(resnet)
    change(resnet)
    assert structure(resnet) == before


def other_stride(model: nn.Module) -> None:
    model.layer2[0].conv1.stride = (1, 1)


def other_module(model: nn.Module) -> None:
    model.layer1[0] = nn.Identity()


def other_width(model: nn.Module) -> None:
    model.fc.weight = nn.Parameter(torch.zeros(3, 128))


def hooked(model: nn.Module) -> None:
    model.layer1.register_forward_hook(lambda m, a, output: 2 * output)


def patched(model: nn.Module) -> None:
    model.layer1.forward = lambda value: value


def other_settings(model: nn.Module) -> None:
    model.settings.steps[1] = 3


@pytest.mark.parametrize("change", [other_stride, other_module, other_width, hooked, patched, other_settings])
def test_structure_is_seen_to_change(resnet: DemoNet, change: Callable[[nn.Module], None]) -> None:
    resnet.settings = SimpleNamespace(steps=[1, 2])
    before = structure(resnet)
    assert remembered(resnet, "key", lambda: "first") == "first"
    assert remembered(resnet, "key", lambda: "second") == "first"
    assert remembered(resnet, "other key", lambda: "second") == "second"
    change(resnet)
    assert structure(resnet) != before
    assert remembered(resnet, "key", lambda: "third") == "third"


def test_centre_follows_a_changed_stride(resnet: DemoNet) -> None:
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64)
    erf = ERF(resnet, "layer2", (2, 2))
    assert erf.attribute(images, return_statistics=True)[1].source.center == (16.0, 16.0)
    resnet.layer2[0].conv1.stride = resnet.layer2[0].downsample[0].stride = (1, 1)
    assert erf.attribute(images, return_statistics=True)[1].source.center == (8.0, 8.0)


def test_models_are_not_kept_alive() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    ERF(model, "0").attribute([torch.rand(4, 3, 8, 8)])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
