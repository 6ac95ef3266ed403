"""Models by name, with what they expect and the hash of their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from erfattr._checks import check_int, describe
from erfattr._model import seeded
from erfattr._model import weights_hash as weights_hash  # public here, needed above
from erfattr.models._sources import Constants, source_of


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and what it expects, enough to load it again.

    Attributes:
        name: As given to ``load_model``.
        weights: Where the weights came from, in words.
        weights_sha256: See ``weights_hash``.
        mean: Of the channels that the images are normalised with, on the scale 0..1.
        std: Of the channels, likewise.
        size: Side in pixels of the images that the weights were made for; (H, W) where they are not square.
        seed: Of the random numbers that made the weights, ``None`` where they come from a file.
        channels: Of these images; ``None`` for your own model, which alone knows. ``image_channels``
            of ``erfattr.models.channels`` finds out.
    """

    name: str
    weights: str
    weights_sha256: str
    mean: Constants
    std: Constants
    size: int | tuple[int, int]
    seed: int | None
    channels: int | None = None


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
    check_int("seed", seed)
    target = _device(device)
    source = source_of(name)
    with seeded(seed):
        loaded = source.load(name, weights, show_progress)
    model = loaded.model.to(target).eval()
    info = ModelInfo(
        name=name,
        weights=loaded.weights + (f", seed {seed}" if loaded.random else ""),
        weights_sha256=weights_hash(model),
        mean=loaded.mean,
        std=loaded.std,
        size=loaded.size,
        seed=seed if loaded.random else None,
        channels=loaded.channels,
    )
    return model, info


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: expected a torch device such as 'cpu', got {describe(device)}") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected one that this machine has, got {str(device)!r} without CUDA")
    try:
        torch.zeros(1, device=target).item()
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"device: expected one that this machine has and that computes, got {str(device)!r} ({reason})"
        ) from error
    return target
