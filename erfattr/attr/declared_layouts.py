"""What a network itself says of the layout of its layers, for where the pass does not show it.

timm says how many prefix tokens there are and how large the grid of patches is, Hugging Face's configurations
and torchvision's classes say how large a patch is, and PyTorch's two-dimensional layers what they give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from erfattr.receptive_field.layout import Layout

_CHANNELS_FIRST = (0, 1, 2, 3)
_CHANNELS_LAST = (0, 3, 1, 2)
_TWO_DIMENSIONAL = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.Upsample),
    *(nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.PixelShuffle, nn.PixelUnshuffle),
)


def declared_layout(
    model: nn.Module, name: str, shape: Sequence[int], image_size: tuple[int, int]
) -> Layout | None:
    """Return the layout that the network declares for a layer's output; ``None`` if it says nothing.

    Args:
        model: The network.
        name: Dotted name of the layer.
        shape: Shape of its output.
        image_size: (H, W) of the images.
    """
    for module, inside in _around(model, name):
        if len(shape) == 3:
            for grid, prefixes, words in _declared_grids(module, image_size):
                prefix = shape[1] - grid[0] * grid[1]
                if prefix in prefixes:
                    return Layout((0, 2, 1, 1), grid, prefix, found=f"from {words}")
        elif len(shape) == 4:
            order = _declared_order(module, inside)
            if order is not None:
                _, _, row, column = order
                words = f"{type(module).__name__}"
                return Layout(order, (shape[row], shape[column]), found=f"as a {words} keeps its maps")
    return None


def layout_by_contract(module: nn.Module, shape: Sequence[int]) -> Layout | None:
    """Return (N, C, H, W) for layers that give nothing else, whatever they are given."""
    if len(shape) != 4 or not isinstance(module, _TWO_DIMENSIONAL):
        return None
    words = f"as every {type(module).__name__} gives it"
    return Layout(_CHANNELS_FIRST, (shape[2], shape[3]), found=words, by_contract=True)


def _around(model: nn.Module, name: str) -> Iterator[tuple[nn.Module, str]]:
    """Yield the layer and the modules that it lies in, from the inside to the model, and its name in each."""
    parts = name.split(".") if name else []
    for count in range(len(parts), -1, -1):
        yield model.get_submodule(".".join(parts[:count])), ".".join(parts[count:])


def _declared_grids(
    module: nn.Module, image_size: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], set[int], str]]:
    """Yield grid of patches, possible numbers of entries before them, and who says so."""
    named = type(module).__name__
    embed = getattr(module, "patch_embed", None)
    prefix = getattr(module, "num_prefix_tokens", None)
    if embed is not None and isinstance(prefix, int):
        grid = _pair(getattr(embed, "grid_size", None))
        if callable(getattr(embed, "dynamic_feat_size", None)):
            grid = _pair(embed.dynamic_feat_size(image_size))
        if grid is not None:
            yield grid, {prefix}, f"{named}.patch_embed and num_prefix_tokens"
    config = getattr(module, "config", None)
    for holder, words, prefixes in (
        (config, f"{named}.config", {0, 1, 2, 1 + int(getattr(config, "num_register_tokens", None) or 0)}),
        (module if _is_torchvisions(module, "VisionTransformer") else None, f"{named}.patch_size", {1}),
    ):
        patch = _pair(getattr(holder, "patch_size", None))
        if patch is not None:
            yield (image_size[0] // patch[0], image_size[1] // patch[1]), prefixes, words


def _declared_order(module: nn.Module, inside: str) -> tuple[int, int, int, int] | None:
    """Return the order of dims of the four-dimensional outputs inside a module, as far as it says so."""
    written = getattr(module, "output_fmt", None)
    words = getattr(written, "value", written)
    if words in ("NHWC", "NCHW"):  # timm
        return _CHANNELS_LAST if words == "NHWC" else _CHANNELS_FIRST
    if _is_torchvisions(module, "SwinTransformer") and inside.startswith("features"):
        return _CHANNELS_LAST
    return None


def _is_torchvisions(module: nn.Module, name: str) -> bool:
    # By name: to import torchvision takes longer than most maps.
    return any(
        kind.__name__ == name and kind.__module__.startswith("torchvision.models.")
        for kind in type(module).__mro__
    )


def _pair(value: Any) -> tuple[int, int] | None:
    if type(value) is int:
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(type(part) is int for part in value):
        return value[0], value[1]
    return None
