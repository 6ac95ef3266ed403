"""Small networks and images that several test files use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from erfattr.models.demo import DemoNet


def randomise_batch_norm(model: nn.Module, seed: int = 0) -> None:
    """Give batch normalisations statistics that are not those of the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)


def write_noise(
    root: Path, classes: Sequence[str], count: int, size: tuple[int, int], top: int = 256
) -> None:
    """Write a folder of so many images of noise, (height, width), for each class; colours below ``top``."""
    generator = torch.Generator().manual_seed(0)
    for name in classes:
        (root / name).mkdir()
        for index in range(count):
            pixels = torch.randint(0, top, (*size, 3), generator=generator).byte()
            Image.fromarray(pixels.numpy()).save(root / name / f"{index}.png")


@pytest.fixture
def resnet() -> DemoNet:
    """A small ResNet-18 with 10 outputs, freshly initialised, in float64, in training mode."""
    torch.manual_seed(0)
    model = DemoNet(10).double()
    randomise_batch_norm(model)
    return model


@pytest.fixture
def images() -> Tensor:
    """Five 64 x 64 images, float64."""
    return torch.randn(5, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def snapshot() -> Callable[[nn.Module], dict[str, object]]:
    """Everything of a model that a caller could find changed."""

    def take(model: nn.Module) -> dict[str, object]:
        return {
            "training": [module.training for module in model.modules()],
            "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
            "grad": [parameter.grad is None for parameter in model.parameters()],
            "hooks": [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
                for m in model.modules()
            ],
            "state": {name: value.clone() for name, value in model.state_dict().items()},
            "random": torch.random.get_rng_state(),
        }

    return take


@pytest.fixture
def assert_same() -> Callable[[dict[str, object], dict[str, object]], None]:
    """Compare two snapshots."""

    def compare(before: dict[str, object], after: dict[str, object]) -> None:
        for key in ("training", "requires_grad", "grad", "hooks"):
            assert before[key] == after[key], key
        assert torch.equal(before["random"], after["random"])  # type: ignore[arg-type]
        old, new = before["state"], after["state"]
        assert isinstance(old, dict)
        assert isinstance(new, dict)
        assert list(old) == list(new)
        for name in old:
            assert torch.equal(old[name], new[name]), name

    return compare
