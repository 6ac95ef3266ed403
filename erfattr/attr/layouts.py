"""Where the rows, columns and channels of a layer's output lie, and which layer is the last with a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from erfattr._checks import describe
from erfattr._model import watchable
from erfattr.attr.selection import Select, selected
from erfattr.receptive_field.layout import Layout

ToSpatial = Callable[[Any], Tensor]


def from_channels_last(features: Tensor) -> Tensor:
    """Bring (N, H, W, C) features, such as those inside a Swin transformer, to (N, C, H, W).

    Example:
        >>> import torch
        >>> from_channels_last(torch.zeros(1, 7, 8, 3)).shape
        torch.Size([1, 3, 7, 8])
    """
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise ValueError(f"features: expected a tensor of shape (N, H, W, C), got {describe(features)}")
    return features.permute(0, 3, 1, 2)


def from_tokens(grid: tuple[int, int], prefix: int = 1) -> ToSpatial:
    """Return a function that brings (N, prefix + H * W, C) tokens to (N, C, H, W).

    Args:
        grid: (H, W) of the patches, (14, 14) for 16-pixel patches of a 224-pixel image.
        prefix: Tokens before the patches (class and register tokens), which are left out.

    Example:
        >>> import torch
        >>> from_tokens((14, 14))(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """
    height, width = grid

    def to_spatial(tokens: Tensor) -> Tensor:
        wanted = prefix + height * width
        if not isinstance(tokens, Tensor) or tokens.ndim != 3 or tokens.shape[1] != wanted:
            raise ValueError(
                f"tokens: expected a tensor of shape (N, {wanted}, C) for {prefix} prefix tokens and a "
                f"{height} x {width} grid, got {describe(tokens)}"
            )
        patches = tokens[:, prefix:].transpose(1, 2)
        return patches.reshape(len(tokens), -1, height, width)

    return to_spatial


@dataclass(frozen=True)
class Reading:
    """How a layer's output is brought to (N, C, H, W).

    Attributes:
        layer: The layer's name, for errors.
        select: Which tensor of an output that holds several.
        to_spatial: The caller's own way; it is given the whole output, or what ``select`` takes of it.
        layout: Where the rows, columns and channels lie, for where ``to_spatial`` does not say it.
    """

    layer: str
    select: Select
    to_spatial: ToSpatial | None
    layout: Layout | None

    def features(self, output: Any, images: int) -> Tensor:
        """Return the output of ``images`` images as (N, C, H, W).

        Raises:
            ValueError: it has another shape than expected, after ``to_spatial`` too.
        """
        if self.to_spatial is not None:
            if self.select is not None:
                output, _ = selected(f"layer {self.layer!r}", output, self.select)
            features = self.to_spatial(output)
            if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != images:
                raise ValueError(
                    f"to_spatial: expected it to bring layer {self.layer!r} to ({images}, C, H, W), got "
                    f"{describe(features)}"
                )
            return features
        tensor, _ = selected(f"layer {self.layer!r}", output, self.select)
        if self.layout is None or not self.layout.fits(tensor.shape):
            raise ValueError(f"layer: {self.layer!r} gives another shape than before, {describe(tensor)}")
        features = self.layout.to_spatial(tensor)
        if len(features) != images:
            raise ValueError(f"layer: expected {self.layer!r} to give {images} maps, got {len(features)}")
        return features


def read_as_map(
    layer: str,
    output: Any,
    select: Select,
    to_spatial: ToSpatial | None,
    find: Callable[[Tensor], Layout | str],
) -> tuple[Reading, str]:
    """Return how a layer's output is read as a feature map, and what there is to say about it.

    Args:
        layer: The layer's name.
        output: What it gave.
        select: Which tensor of it.
        to_spatial: The caller's own way, which goes before every other.
        find: Gives the layout of a tensor, or in words why it is not known.

    Raises:
        ValueError: nothing shows where rows, columns and channels lie.
    """
    if to_spatial is not None:
        return Reading(layer, select, to_spatial, None), "as to_spatial gives it"
    tensor, taken = selected(f"layer {layer!r}", output, select)
    layout = find(tensor)
    if isinstance(layout, str):
        raise ValueError(
            f"layer: expected {layer!r} to give a feature map, got shape {tuple(tensor.shape)}: {layout}; "
            "to_spatial= (on the command line --to-spatial) brings it to (N, C, H, W): from_channels_last, "
            "from_tokens((14, 14)) or a callable of yours"
        )
    return Reading(layer, select, None, layout), f"{taken}, {layout}" if taken else str(layout)


# How many units in the last place the mean over channels may spread by rounding alone.
_ROUNDING = 64
# A constant mean shows at a few positions along each axis; looking at all would cost as much as the layer.
_LOOKED_AT = 8


class ConstantMeanError(ValueError):
    """The mean over a layer's channels is constant, so F of eq. 1 has no gradient but rounding.

    Args:
        layer: Dotted name of the layer.
        before: Name of the last layer before it that has a mean that varies; ``None``: not known.
        chosen: Whether the caller named the layer, or left it to be found.
    """

    def __init__(self, layer: str, before: str | None = None, *, chosen: bool = True) -> None:
        instead = "the layer before it" if before is None else f"layer {before!r} before it"
        super().__init__(
            f"layer: the mean over the channels of {layer!r} is constant (a normalisation or a softmax over "
            f"channels makes it so), so it has no receptive field; take {instead}, or one channel, target=0"
        )
        self.layer = layer
        self.before = before
        self.chosen = chosen


def is_constant_mean(features: Tensor) -> bool:
    """Whether the channels of (N, C, H, W) vary from place to place and their mean does not."""
    if features.is_meta or features.shape[1] < 2:
        return False
    height, width = features.shape[2:]
    rows, columns = max(1, height // _LOOKED_AT), max(1, width // _LOOKED_AT)
    values = features[0, :, ::rows, ::columns].detach().flatten(1).double()
    spread = (values - values.mean(1, keepdim=True)).abs().max()
    mean = values.mean(0)
    rounding = _ROUNDING * torch.finfo(features.dtype).eps * values.abs().max()
    return bool((spread > 100 * rounding) & ((mean - mean.mean()).abs().max() <= rounding))


def map_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that may be the last with a feature map: all but the model and adaptive poolings."""
    pooling = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return {
        name: module for name, module in watchable(model).items() if name and not isinstance(module, pooling)
    }
