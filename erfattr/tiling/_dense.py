"""A model, or one of its layers, as what tiling needs: images in, one tensor (N, C, H, W) out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from erfattr._checks import describe
from erfattr._model import device_and_dtype, find_layer, observed
from erfattr.attr.selection import Select, selected


class Dense(nn.Module):
    """Gives the model's output, or that of a layer, as one tensor.

    Args:
        model: The network.
        layer: Dotted name; ``""``: the network's own output.
        select: Which part of an output of several tensors.
    """

    def __init__(self, model: nn.Module, layer: str = "", select: Select = None) -> None:
        super().__init__()
        self.network = model
        self.layer = layer
        self.select = select
        self.train(model.training)

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        if not self.layer:
            return selected("the model", self.network(images), self.select)[0]
        layers = {self.layer: self.network.get_submodule(self.layer)}
        seen, _ = observed(layers, lambda _, output: output, lambda: self.network(images))
        return selected(f"layer {self.layer!r}", seen[self.layer], self.select)[0]


def dense(model: Any, layer: nn.Module | str | None, select: Select) -> Dense:
    """Return what is tiled, or raise where there is no such layer."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {describe(model)}")
    return Dense(model, "" if layer is None else find_layer(model, layer)[0], select)


def in_float64(network: Dense) -> Dense:
    """Return a copy in float64 on a device that has it, or the network itself where it cannot be copied."""
    try:
        duplicate = copy.deepcopy(network)
    except Exception:  # whatever a module's own __deepcopy__ or __getstate__ raises
        return network
    device, _ = device_and_dtype(network)
    return duplicate.to("cpu" if device is None or device.type == "mps" else device, torch.float64)


def output_of(network: Dense, images: Tensor) -> Tensor:
    """Run on a batch, where the weights are and in their dtype, and return the output where the images are.

    Raises:
        ValueError: the output is not (N, C, H, W).
    """
    device, dtype = device_and_dtype(network)
    output: Tensor = network(images.to(device or images.device, dtype or images.dtype))
    if output.ndim != 4 or len(output) != len(images):
        raise ValueError(
            f"model: expected an output with positions (N, C, H, W), got shape {tuple(output.shape)}; "
            "name the layer that is wanted"
        )
    return output.to(images.device)
