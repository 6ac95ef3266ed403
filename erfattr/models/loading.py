"""Models by name, with the hash of their weights, and the small demo network that ships with the package."""

from __future__ import annotations

import importlib
import json
import operator
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from erfattr._checks import describe, suggest
from erfattr._model import weights_hash as weights_hash  # public here, needed above
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from erfattr.models.checkpoints import load_checkpoint

DEMO_WEIGHTS = Path(__file__).parent / "data" / "demo_model.pt"
DEMO_RECORD = Path(__file__).parent / "data" / "demo_model.json"

Constants = tuple[float, float, float]


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and what it expects, enough to load it again.

    Attributes:
        name: As given to ``load_model``.
        weights: Where the weights came from, in words.
        weights_sha256: See ``weights_hash``.
        mean: Of the three channels that the images are normalised with, on the scale 0..1.
        std: Of the three channels, likewise.
        size: Side in pixels of the images that the weights were made for.
        seed: Of the random numbers that made the weights, ``None`` where they come from a file.
    """

    name: str
    weights: str
    weights_sha256: str
    mean: Constants
    std: Constants
    size: int
    seed: int | None


@dataclass(frozen=True)
class _Loaded:
    model: nn.Module
    weights: str
    random: bool
    mean: Constants = IMAGENET_MEAN
    std: Constants = IMAGENET_STD
    size: int = 224


def load_model(
    name: str,
    weights: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    show_progress: bool = False,
) -> tuple[nn.Module, ModelInfo]:
    """Return a model in evaluation mode, and what it is.

    Args:
        name: One of

            - ``"demo"``: the small network that ships with this package (see ``DemoNet``);
            - the name of a classification or segmentation model of torchvision, such as ``"resnet18"``;
            - ``"timm/NAME"``: a model of timm, which must be installed;
            - ``"module.path:factory"``: your own, a function that returns a module, called without arguments.
              The working folder is searched as well.

        weights: One of

            - ``None``: the shipped weights of ``"demo"``, the ``DEFAULT`` ones of torchvision and timm, and
              your own model as its function returns it;
            - the name of torchvision weights such as ``"IMAGENET1K_V1"`` or ``"DEFAULT"``, or a timm tag;
            - the path of a checkpoint that ``torch.load(weights_only=True)`` or safetensors reads: a state
              dict, also inside ``{"state_dict": ...}`` or ``{"model": ...}``, also with the ``module.`` of
              ``DataParallel`` before each name;
            - ``"none"``: random initialisation from ``seed``.
        device: Where the model is put.
        seed: Of the random initialisation. The global random state comes back as it was.
        show_progress: Show the progress of a download.

    Returns:
        The model and its ``ModelInfo``.

    Raises:
        TypeError: ``name`` or ``weights`` is of a wrong type, or your function does not return a module.
        ValueError: an unknown name of a model, of weights or of a device (the nearest names are suggested); a
            checkpoint that is missing, cannot be read, or does not fit (what differs is listed).
        ImportError: timm is not installed.
        FileNotFoundError: the weights are not on this machine and cannot be downloaded; the message names
            address, file and folder.

    Example:
        >>> model, info = load_model("resnet18", "none", seed=0)
        >>> info.weights, model.conv1.stride
        ('random initialisation, seed 0', (2, 2))
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected the name of a model, got {describe(name)}")
    if weights is not None and not isinstance(weights, (str, Path)):
        raise TypeError(f"weights: expected a name, a path or None, got {describe(weights)}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed: expected an integer, got {describe(seed)}")
    target = _device(device)
    with _seeded(seed):
        if name == "demo":
            loaded = _from_package(weights)
        elif name.startswith("timm/"):
            loaded = _from_timm(name, weights)
        elif ":" in name:
            loaded = _from_factory(name, weights)
        else:
            loaded = _from_torchvision(name, weights, show_progress)
    model = loaded.model.to(target).eval()
    info = ModelInfo(
        name=name,
        weights=loaded.weights + (f", seed {seed}" if loaded.random else ""),
        weights_sha256=weights_hash(model),
        mean=loaded.mean,
        std=loaded.std,
        size=loaded.size,
        seed=seed if loaded.random else None,
    )
    return model, info


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
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs))


def demo_model(weights: bool = True, *, seed: int = 0) -> nn.Module:
    """Return the demo network in evaluation mode: a classifier of Caltech-101's 101 object classes.

    Images are 224 pixels wide and normalised by ImageNet's constants, as ``sample_images()`` returns them.
    How it was trained and how good it is stands in ``erfattr/models/data/DEMO_MODEL.md``.

    Args:
        weights: Load the shipped weights; otherwise initialise at random from ``seed``.
        seed: Of the random initialisation. The global random state comes back as it was.

    Example:
        >>> demo_model()(torch.zeros(2, 3, 224, 224)).shape
        torch.Size([2, 101])
    """
    return load_model("demo", None if weights else "none", seed=seed)[0]


def demo_record() -> dict[str, Any]:
    """Return the record of the demo network's training: recipe, held-out accuracy, names of the classes.

    Example:
        >>> len(demo_record()["classes"])
        101
    """
    record: dict[str, Any] = json.loads(DEMO_RECORD.read_text(encoding="utf-8"))
    return record


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # Models are built on the CPU; torch.manual_seed would also seed the accelerators, whose state stays.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: expected a torch device such as 'cpu', got {describe(device)}") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected one that this machine has, got {str(device)!r} without CUDA")
    return target


def _from_package(weights: str | Path | None) -> _Loaded:
    if weights is None or weights == "DEFAULT":
        model = DemoNet()
        load_checkpoint(model, DEMO_WEIGHTS)
        return _Loaded(model, "shipped with erfattr, trained on Caltech-101", random=False)
    return _from_builder(DemoNet, weights, known=("none", "DEFAULT"))


def _from_torchvision(name: str, weights: str | Path | None, show_progress: bool) -> _Loaded:
    known = _torchvision_names()
    if name not in known:
        if name in torchvision.models.list_models():
            raise ValueError(f"name: expected a classification or segmentation model, got {name!r}")
        raise ValueError(
            f"name: expected 'demo', a torchvision model, 'timm/NAME' or 'module.path:factory', got {name!r}"
            f"{suggest(name, ['demo', *known])}"
        )
    options: dict[str, Any] = {}
    if name in torchvision.models.list_models(module=torchvision.models.segmentation):
        options["weights_backbone"] = None  # by default it is downloaded, also for a random initialisation
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # the default warns that it will change

    enum = torchvision.models.get_model_weights(name).__members__
    default = enum.get("DEFAULT")
    expected = _preprocessing(default) if default is not None else {}
    if weights is None and default is None:
        raise ValueError(f"weights: torchvision has none for {name!r}; give a checkpoint file or 'none'")
    owner, _, member = str("DEFAULT" if weights is None else weights).rpartition(".")
    if member in enum and owner in ("", enum[member].__class__.__name__):
        chosen = enum[member]
        try:
            model = torchvision.models.get_model(name, weights=chosen, progress=show_progress)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise _not_here(str(chosen), chosen.url, error) from error
        return _Loaded(model, f"torchvision {chosen}", random=False, **_preprocessing(chosen))
    return _from_builder(
        lambda: torchvision.models.get_model(name, weights=None, **options),
        weights,
        known=("none", *enum),
        **expected,
    )


def _torchvision_names() -> list[str]:
    modules = (torchvision.models, torchvision.models.segmentation)
    return [name for module in modules for name in torchvision.models.list_models(module=module)]


def _preprocessing(weights: Any) -> dict[str, Any]:
    transforms = weights.transforms()
    size = getattr(transforms, "crop_size", None) or transforms.resize_size
    return {"mean": tuple(transforms.mean), "std": tuple(transforms.std), "size": int(size[0])}


def _not_here(weights: str, url: str, error: BaseException) -> Exception:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    reason = f"{type(error).__name__}: {error}"
    if file.exists():
        return ValueError(f"weights: {weights} in {file} cannot be read ({reason}); replace the file")
    return FileNotFoundError(
        f"weights: {weights} cannot be downloaded from {url} ({reason}); "
        f"put the file {file.name} into the folder {folder}, or set TORCH_HOME"
    )


def _from_timm(name: str, weights: str | Path | None) -> _Loaded:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name!r} needs timm, which is not installed: pip install timm") from error
    architecture = name.removeprefix("timm/")
    if not timm.is_model(architecture):
        raise ValueError(
            f"name: timm has no model {architecture!r}{suggest(architecture, timm.list_models())}"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture.partition('.')[0]}.*")]
    if weights in (None, "DEFAULT") and not tags:
        raise ValueError(f"weights: timm has none for {architecture!r}; give a checkpoint file or 'none'")
    if weights in (None, "DEFAULT", *tags):
        full = architecture if weights in (None, "DEFAULT") else f"{architecture.partition('.')[0]}.{weights}"
        try:
            model = timm.create_model(full, pretrained=True)
        except (OSError, RuntimeError) as error:
            raise _not_in_hub(full, timm.get_pretrained_cfg(full), error) from error
        loaded = _Loaded(model, f"timm {full}, pretrained", random=False)
    else:
        loaded = _from_builder(
            lambda: timm.create_model(architecture, pretrained=False), weights, known=("none", *tags)
        )
    expected: dict[str, Any] = timm.data.resolve_model_data_config(loaded.model)  # type: ignore[no-untyped-call,attr-defined,unused-ignore]
    return _Loaded(
        loaded.model,
        loaded.weights,
        loaded.random,
        mean=tuple(expected["mean"]),
        std=tuple(expected["std"]),
        size=int(expected["input_size"][-1]),
    )


def _not_in_hub(name: str, source: Any, error: BaseException) -> Exception:
    from huggingface_hub.constants import HF_HUB_CACHE

    return FileNotFoundError(
        f"weights: timm's {name} cannot be downloaded ({type(error).__name__}: {error}); fetch the file "
        f"model.safetensors of https://huggingface.co/{source.hf_hub_id} elsewhere and give weights= its "
        f"path, or fill the folder {HF_HUB_CACHE}"
    )


def _from_factory(name: str, weights: str | Path | None) -> _Loaded:
    path, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*path.split("."), *attribute.split(".")]):
        raise ValueError(f"name: expected 'module.path:factory', got {name!r}")
    module = _imported(path)
    try:
        factory = operator.attrgetter(attribute)(module)
    except AttributeError as error:
        raise ValueError(
            f"name: module {path!r} has no {attribute!r}{suggest(attribute, dir(module))}"
        ) from error
    if not callable(factory):
        raise TypeError(
            f"name: expected {name!r} to be a function that returns a module, got {describe(factory)}"
        )

    def build() -> nn.Module:
        model = factory()
        if not isinstance(model, nn.Module):
            raise TypeError(f"name: expected {name!r} to return a torch module, got {describe(model)}")
        return model

    if weights is None:
        return _Loaded(build(), f"as returned by {name}", random=True)  # or not: it alone knows
    return _from_builder(build, weights, known=("none",))


def _imported(path: str) -> ModuleType:
    here = os.getcwd()
    sys.path.insert(0, here)  # as `python -m` does: a console script does not search the working folder
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise ValueError(f"name: no module {path!r} is installed or in {here}") from error
    finally:
        sys.path.remove(here)


def _from_builder(
    build: Callable[[], nn.Module], weights: str | Path | None, *, known: tuple[str, ...], **expected: Any
) -> _Loaded:
    """Initialise at random, or load a checkpoint file; ``known`` are the names that would have been good."""
    if weights == "none":
        return _Loaded(build(), "random initialisation", random=True, **expected)
    path = Path(weights or "")
    if not path.is_file():
        raise ValueError(
            f"weights: expected one of {', '.join(known)} or a checkpoint file, got {str(weights)!r}"
            f"{suggest(str(weights), known)}"
        )
    model = build()
    load_checkpoint(model, path)
    return _Loaded(model, f"checkpoint file {path.name}", random=False, **expected)
