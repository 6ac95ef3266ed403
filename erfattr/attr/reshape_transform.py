"""`reshape_transform`: a layer's output as (N, C, H, W), for toolkits that ask the caller how it lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from erfattr._checks import check_module
from erfattr._model import device_and_dtype, find_layer, observed, untouched
from erfattr.attr.declared_layouts import declared_layout
from erfattr.attr.layouts import ToSpatial
from erfattr.receptive_field.trace import trace_layers


def reshape_transform(
    model: nn.Module,
    layer: nn.Module | str,
    input_size: tuple[int, int] = (224, 224),
    *,
    in_channels: int = 3,
) -> ToSpatial:
    """Return the function that brings a layer's output to (N, C, H, W), as pytorch-grad-cam's models want it.

    The layout is found as for `ERF`: rows, columns and channels are followed through the network, and where
    they are lost the network says itself where they lie. Class and register tokens are left out.

    Args:
        model: The network.
        layer: Module or dotted name.
        input_size: (H, W) of the images.
        in_channels: C of the images.

    Returns:
        A function from the layer's output, (N, H, W, C), tokens (N, L, C) or a map as it is, to (N, C, H, W).

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: no such layer, or nothing shows where rows, columns and channels lie.

    Example:
        >>> from torchvision.models import VisionTransformer
        >>> model = VisionTransformer(32, 8, 1, 2, 16, 32)
        >>> to_map = reshape_transform(model, "encoder.layers.encoder_layer_0", (32, 32))
        >>> to_map(torch.zeros(5, 17, 16)).shape
        torch.Size([5, 16, 4, 4])
    """
    check_module("model", model)
    name, module = find_layer(model, layer)
    field = trace_layers(model, {name: module}, input_size, in_channels).fields.get(name)
    layout = None if field is None else field.layout
    if layout is None:
        device, dtype = device_and_dtype(model)
        image = torch.zeros(1, in_channels, *input_size, device=device, dtype=dtype)
        with torch.no_grad(), untouched(model):
            shapes, _ = observed(
                {name: module}, lambda _, output: getattr(output, "shape", ()), lambda: model(image)
            )
        layout = declared_layout(model, name, shapes[name], input_size)
        if layout is None:
            raise ValueError(
                f"layer: nothing shows where rows, columns and channels of {name!r} lie, which gives shape "
                f"{tuple(shapes[name])}; erfattr.attr.layouts has from_channels_last and from_tokens"
            )
    found = layout

    def to_spatial(output: Tensor) -> Tensor:
        if not found.fits(output.shape):
            raise ValueError(f"output: expected that of {name!r} ({found}), got shape {tuple(output.shape)}")
        return found.to_spatial(output)

    return to_spatial
