"""The small demo network that ships with the package, its weights and the record of its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from erfattr._checks import check_int
from erfattr._model import seeded
from erfattr.models.checkpoints import load_checkpoint

DEMO_WEIGHTS = Path(__file__).parent / "data" / "demo_model.pt"
DEMO_RECORD = Path(__file__).parent / "data" / "demo_model.json"


class DemoNet(nn.Module):
    """ResNet-18 with a quarter of the channels: the stem, the strides and the module names are ResNet's.

    A 7x7 stride-2 convolution and a 3x3 stride-2 maximum, then four stages of two basic blocks, three of
    which begin with a 3x3 stride-2 convolution beside a 1x1 stride-2 one: total stride 32, a 7x7 map at 224
    pixels.

    Args:
        num_classes: Number of outputs.
    """

    def __init__(self, num_classes: int = 101) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.layer4 = _stage(64, 128, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, classes), of normalised images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    return nn.Sequential(_Block(inputs, outputs, stride, shortcut), _Block(outputs, outputs))


class _Block(nn.Module):
    """ResNet's block of two 3x3 convolutions beside a shortcut.

    torchvision has it, but importing torchvision takes longer than running this network.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways, rectified."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += shortcut
        rectified: Tensor = self.relu(out)
        return rectified


def demo_model(weights: bool = True, *, seed: int = 0) -> nn.Module:
    """Return the demo network in evaluation mode: a classifier of Caltech-101's 101 object classes.

    Images are 224 pixels wide and normalised by ImageNet's constants, as ``sample_images()`` returns them.
    How it was trained and how good it is stands in ``erfattr/models/data/DEMO_MODEL.md``.

    Args:
        weights: Load the shipped weights; otherwise initialise at random from ``seed``.
        seed: Of the random initialisation. The global random state comes back as it was.

    Raises:
        TypeError: ``seed`` is not an integer.

    Example:
        >>> import torch
        >>> demo_model()(torch.zeros(2, 3, 224, 224)).shape
        torch.Size([2, 101])
    """
    check_int("seed", seed)
    with seeded(seed):
        model = DemoNet()
    if weights:
        load_checkpoint(model, DEMO_WEIGHTS)
    return model.eval()


def demo_record() -> dict[str, Any]:
    """Return the record of the demo network's training: recipe, held-out accuracy, names of the classes.

    Example:
        >>> len(demo_record()["classes"])
        101
    """
    record: dict[str, Any] = json.loads(DEMO_RECORD.read_text(encoding="utf-8"))
    return record
