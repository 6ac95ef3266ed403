"""What a pass over a model's layers needs: checked arguments, the model as it was, words for what failed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from erfattr._checks import check_positive_int, describe, is_int
from erfattr._model import tensors_of


def check_arguments(model: Any, input_size: Any, in_channels: Any) -> tuple[int, int]:
    """Return (H, W) of the image, or raise what the public functions say that they raise."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {describe(model)}")
    check_positive_int("in_channels", in_channels)
    pair = (input_size, input_size) if is_int(input_size) else input_size
    expected = "input_size: expected (H, W), two positive integers"
    if not isinstance(pair, (tuple, list, torch.Size)) or len(pair) != 2:
        raise ValueError(f"{expected}, got {describe(input_size)}")
    if not all(is_int(value) and value > 0 for value in pair):
        raise ValueError(f"{expected}, got {describe(input_size)}")
    return int(pair[0]), int(pair[1])


def has_data(model: nn.Module) -> bool:
    """Whether no tensor of the model lies on the meta device."""
    return not any(tensor.is_meta for tensor in tensors_of(model))


def only_tensor(output: Any) -> Tensor | None:
    """Return the tensor that an output consists of; ``None`` if there are none or several."""
    if isinstance(output, Tensor):
        return output
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return tensors[0] if len(tensors) == 1 else None


def never_ran(name: str, model: nn.Module) -> str:
    """Return the words for a layer that the forward pass went round."""
    return f"layer: {name!r} never ran in the forward pass of the {type(model).__name__}"


def not_spatial(name: str, shape: tuple[int, ...] | None, *, constant: bool = False) -> str:
    """Return the words for an output of which no map can be read."""
    what = f"layer {name!r}" if name else "the model's output"
    if constant:
        return f"layer: {what} does not depend on the image"
    came = "an output that is not one tensor" if shape is None else f"shape {shape}"
    return f"layer: expected {what} to give a spatial map (N, C, H, W), got {came}"
