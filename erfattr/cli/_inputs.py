"""What several commands read: the model, the images, a map from a file."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from erfattr._checks import as_map, describe
from erfattr.cli._failures import naming
from erfattr.cli._memory import refuse_beyond_memory
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader
from erfattr.datasets.photographs import SAMPLE_CROPS, SAMPLE_PHOTOGRAPHS, sample_images
from erfattr.datasets.preprocessing import MODES, constants_for
from erfattr.models.channels import image_channels
from erfattr.models.demo import demo_record
from erfattr.models.loading import ModelInfo, load_model


@dataclass(frozen=True)
class Preparation:
    """How images are prepared for a model.

    Attributes:
        size: (H, W).
        channels: 1, 3 or 4.
        mean: Of the channels, on the scale 0..1.
        std: Of the channels, likewise.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def tensor_settings(self) -> dict[str, Any]:
        """Return all but the size, as `sample_images` and `ImageFiles` take it."""
        return {"channels": self.channels, "mean": self.mean, "std": self.std}


class Network(NamedTuple):
    """A model, what it is, and how its images are prepared."""

    model: nn.Module
    info: ModelInfo
    preparation: Preparation


@dataclass(frozen=True)
class ChosenImages:
    """The images of a run.

    Attributes:
        loader: Their batches.
        described: What is said of them in the record before they are read.
        files: Where they are read from; ``None``: they are embedded.
    """

    loader: ImageLoader
    described: dict[str, Any]
    files: ImageFiles | None

    def described_once_read(self) -> dict[str, Any]:
        """Return what is said of them, with the files that could not be read and why."""
        return {**self.described, "unreadable": dict(self.files.unreadable) if self.files else {}}


def chosen_network(
    options: argparse.Namespace,
    device: str | None = None,
    *,
    against: bool = False,
) -> Network:
    """Load the model, or that of ``--against``, on ``device``, by default that of the options."""
    name, weights = (
        (options.against, options.against_weights) if against else (options.model, options.weights)
    )
    with naming(name="--against", weights="--against-weights") if against else nullcontext():
        model, info = load_model(name, weights, device=device or options.device, seed=options.seed)
        preparation = _preparation(options, model, info)
    embedded = (options.count or len(SAMPLE_PHOTOGRAPHS) * len(SAMPLE_CROPS)) if in_package(options) else 0
    batch = min(options.batch_size, embedded or options.batch_size, options.count or options.batch_size)
    refuse_beyond_memory(preparation, batch, embedded)
    return Network(model, info, preparation)


def in_package(options: argparse.Namespace) -> bool:
    """Whether the images are those that are embedded, which are read at once."""
    return bool(options.images == "embedded")


def chosen_channels(
    options: argparse.Namespace, model: nn.Module, info: ModelInfo, size: tuple[int, int]
) -> int:
    """Return the number that was given, if the model takes it; otherwise that which the model wants."""
    if options.channels is None and info.channels is not None:
        return info.channels
    return image_channels(model, size, options.channels)


def _preparation(options: argparse.Namespace, model: nn.Module, info: ModelInfo) -> Preparation:
    size = options.size or info.size
    height, width = size if isinstance(size, tuple) else (size, size)
    channels = chosen_channels(options, model, info, (height, width))
    if channels not in MODES:
        raise ValueError(
            f"--channels: expected a model of images of 1, 3 or 4 channels, but {info.name} takes {channels}"
        )
    mean, std = constants_for(channels, info.mean, info.std)
    return Preparation(
        (height, width),
        channels,
        mean if options.mean is None else _constants("--mean", options.mean, channels),
        std if options.std is None else _constants("--std", options.std, channels, positive=True),
    )


def _constants(
    option: str, values: tuple[float, ...], channels: int, *, positive: bool = False
) -> tuple[float, ...]:
    """Return one number for each channel; a single one holds for all."""
    finite = all(math.isfinite(value) and (value > 0 or not positive) for value in values)
    if not finite or len(values) not in (1, channels):
        kind = "positive finite number" if positive else "finite number"
        several = "" if channels == 1 else f", or one for each of the {channels} channels"
        raise ValueError(f"{option}: expected one {kind}{several}, got {' '.join(map(str, values))}")
    return values if len(values) == channels else values * channels


def chosen_images(options: argparse.Namespace, preparation: Preparation) -> ChosenImages:
    """Find the images, and prepare them as the model wants them."""
    size, prepared = preparation.size, preparation.tensor_settings()
    described: dict[str, Any] = {"size": size, "seed": options.seed, **prepared}
    if in_package(options):
        if options.target == "label":
            raise ValueError('--target: "label" needs a folder of images with a subfolder for each class')
        images = sample_images(options.count, size, **prepared)
        described |= {"source": "scikit-image's photographs", "count": len(images), "files": None}
        return ChosenImages(ImageLoader(images, options.batch_size), described, None)
    with naming(path="--images"):
        files = ImageFiles(
            options.images, size, options.count, options.seed, strict=options.strict, **prepared
        )
    root = Path(options.images)
    described |= {
        "source": options.images,
        "count": len(files),
        "files": [str(path.relative_to(root)) for path in files.paths],
        "sha256_of_all_files": files.seal(),
    }
    loader = ImageLoader(files, options.batch_size, getattr(options, "workers", 0))
    return ChosenImages(loader, described, files)


def colored(pixels: Tensor) -> Tensor:
    """Return grey, (..., 1, H, W), as (..., 3, H, W), which figures and image files take."""
    return pixels.expand(*pixels.shape[:-3], 3, -1, -1) if pixels.shape[-3] == 1 else pixels


def class_scores(model: nn.Module, images: Tensor) -> Tensor:
    """Return the outputs of a classifier, (N, classes), float64, on the CPU.

    Raises:
        ValueError: they are something else.
    """
    with torch.no_grad():
        scores = model(images)
    if (
        not isinstance(scores, Tensor)
        or scores.ndim != 2
        or len(scores) != len(images)
        or scores.shape[1] < 2
    ):
        raise ValueError(
            f"--model: expected a classifier, with outputs of shape ({len(images)}, classes) for "
            f"{len(images)} images, got {describe(scores)}"
        )
    if not scores.is_floating_point():
        raise ValueError(
            f"--model: expected a classifier with floating-point outputs, got {describe(scores)}"
        )
    return scores.double().cpu()


def class_names(model: str, count: int) -> list[str]:
    """Return the names of a model's ``count`` classes, or their indices where their names are not known."""
    from torchvision.models import get_model_weights, list_models

    names: list[str] = []
    kind, _, name = model.partition("/")
    if kind == "timm" and name:
        from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

        subset = infer_imagenet_subset({"num_classes": count})
        if subset is not None:
            info = ImageNetInfo(subset)
            names = [info.index_to_description(index) for index in range(count)]
    elif model == "demo":
        names = demo_record()["classes"]
    elif model in list_models():
        names = next(iter(get_model_weights(model))).meta.get("categories", [])
    return names if len(names) == count else [f"class {index}" for index in range(count)]


def check_class(option: str, index: int, classes: int) -> None:
    """Raise unless there is such a class."""
    if not 0 <= index < classes:
        raise ValueError(f"{option}: expected classes from 0 to {classes - 1}, got {index}")


def read_map(path: Path) -> Tensor:
    """Read a map that ``erfattr map`` wrote as NPY."""
    if not path.is_file():
        raise ValueError(f"--map: there is no file {path}")
    damaged = False
    try:
        content = path.read_bytes()
        # A map of ours lies beside its record, which knows its SHA-256; no reader of NPY looks at a checksum.
        with suppress(OSError, ValueError, AttributeError, TypeError):
            known = json.loads(path.with_name("result.json").read_text(encoding="utf-8"))
            digest = known.get("sha256_of_files", {}).get(path.name)
            damaged = digest is not None and digest != hashlib.sha256(content).hexdigest()
        if damaged:
            raise ValueError("its content does not fit the SHA-256 in result.json beside it")
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            raise TypeError("an archive of several arrays")
        found = torch.from_numpy(loaded)
    except Exception as error:  # damaged bytes make the readers of NumPy raise nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"--map: {path} cannot be read as a map that erfattr map wrote ({type(error).__name__}: {reason})"
        ) from error
    return as_map("--map", found)
