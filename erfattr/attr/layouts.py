"""Where the rows, columns and channels of a layer's output lie, and which layer is the last with a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from erfattr._checks import describe

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


def as_feature_map(name: str, output: Any, to_spatial: ToSpatial | None, images: int) -> Tensor:
    """Return a layer's output as (N, C, H, W), or say why it is not.

    Raises:
        ValueError: the output, after ``to_spatial``, has another shape.
    """
    features = output if to_spatial is None else to_spatial(output)
    if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != images:
        by = "" if to_spatial is None else " after to_spatial"
        raise ValueError(
            f"layer: expected {name!r} to give a tensor of shape ({images}, C, H, W){by}, got "
            f"{describe(features)}; to_spatial= brings another layout to that shape"
        )
    return features


# How many units in the last place the mean over channels may spread by rounding alone.
_ROUNDING = 64
# A constant mean shows at a few positions along each axis; looking at all would cost as much as the layer.
_LOOKED_AT = 8


class ConstantMeanError(ValueError):
    """The mean over a layer's channels is constant, so F of eq. 1 has no gradient but rounding.

    Args:
        layer: Dotted name of the layer.
        before: Name of the last layer before it that has a mean that varies; ``None``: not known.
    """

    def __init__(self, layer: str, before: str | None = None) -> None:
        instead = "the layer before it" if before is None else f"layer {before!r} before it"
        super().__init__(
            f"layer: the mean over the channels of {layer!r} is constant (a normalisation or a softmax over "
            f"channels makes it so), so it has no receptive field; take {instead}, or one channel, target=0"
        )
        self.layer = layer
        self.before = before


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
        name: module for name, module in model.named_modules() if name and not isinstance(module, pooling)
    }


def is_feature_map(output: Any) -> bool:
    """Whether a layer's output is a tensor (N, C, H, W) with more than one position."""
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1
