"""Read a checkpoint file into a model, or say what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erfattr._checks import describe


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load the state dict in the file ``path``, tensors alone, into ``model``.

    The file is one of ``torch.save``, or of safetensors if it ends so and the package is installed. The state
    dict may lie inside ``{"state_dict": ...}`` or ``{"model": ...}``, and each name may begin with the
    ``module.`` of ``DataParallel``. Values are converted to the dtype of the model.

    Raises:
        ValueError: the file is missing, holds something else, or does not fit; what differs is listed.
        ImportError: the file is one of safetensors, which is not installed.
    """
    try:
        if path.suffix == ".safetensors":
            content = _safetensors(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # damaged bytes make torch's reader raise nearly anything
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"weights: {path} cannot be read as tensors alone ({type(error).__name__}: {reason}); "
            "expected what torch.save(model.state_dict(), path) writes"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not _is_state_dict(content):
        raise ValueError(f"weights: expected a state dict in {path}, got {describe(content)}")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    try:
        model.load_state_dict(content)
    except RuntimeError as error:
        difference = _difference(model.state_dict(), content)
        raise ValueError(
            f"weights: {path} does not fit the {type(model).__name__}: {difference or error}"
        ) from error


def _safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f"{path} needs safetensors, which is not installed: pip install safetensors"
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and all(isinstance(key, str) for key in content)
        and any(isinstance(value, Tensor) for value in content.values())
    )


def _difference(expected: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    shapes = [
        f"{key} is {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in given and isinstance(given[key], Tensor) and given[key].shape != expected[key].shape
    ]
    parts = []
    for title, names in (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes)):
        if names:
            more = ", ..." if len(names) > 3 else ""
            parts.append(f"{len(names)} {title} ({', '.join(names[:3])}{more})")
    return "; ".join(parts)
