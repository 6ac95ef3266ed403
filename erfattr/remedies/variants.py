"""The changes of a network that are compared in training, by name.

Importing this module imports no torch: the command line lists the variants in its help.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erfattr._checks import check_module, describe, suggest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Variant:
    """A change of a network.

    Attributes:
        description: What it does, in a line.
        change: Takes a network and the seed of what is drawn anew; returns a changed copy.
    """

    description: str
    change: Callable[[nn.Module, int], nn.Module]


def _original(model: nn.Module, _: int) -> nn.Module:
    return copy.deepcopy(model)


def _padded(model: nn.Module, _: int) -> nn.Module:
    from erfattr.remedies.kernel_padding import pad_kernels

    return pad_kernels(model, pool="widen")


def _blurpool(model: nn.Module, _: int) -> nn.Module:
    from erfattr.remedies.blur import blur_downsampling

    return blur_downsampling(model)


def _resnetd(model: nn.Module, _: int) -> nn.Module:
    from erfattr.remedies.average_shortcuts import average_shortcuts

    return average_shortcuts(model)


def _padded_fresh(model: nn.Module, seed: int) -> nn.Module:
    from torch import nn

    from erfattr._model import seeded
    from erfattr.remedies.kernel_padding import pad_kernels

    padded, changes = pad_kernels(model, pool="widen", return_changes=True)
    with seeded(seed):
        for name in changes.changed:
            layer = padded.get_submodule(name)
            if isinstance(layer, nn.Conv2d):  # as ResNets are initialised
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return padded


VARIANTS: dict[str, Variant] = {
    "original": Variant("the network as it is", _original),
    "padded": Variant(
        "kernels padded by trainable zeros, odd pools with stride 2 widened, as in the paper", _padded
    ),
    "padded_fresh": Variant("as padded, and every padded kernel drawn anew as a whole", _padded_fresh),
    "blurpool": Variant("steps of 2 only after a blur (BlurPool)", _blurpool),
    "resnetd": Variant("1x1 shortcuts read the mean of the pixels they step over (ResNet-D)", _resnetd),
}


def make_variant(name: str, model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a changed copy of a network.

    Args:
        name: One of ``VARIANTS``.
        model: Only read.
        seed: Of weights that are drawn anew. The global random state comes back as it was.

    Raises:
        TypeError: ``name`` is no text, or ``model`` not a module.
        ValueError: no such variant (the nearest names are suggested), or a layer that cannot be changed.

    Example:
        >>> from torch import nn
        >>> make_variant("padded", nn.Conv2d(3, 8, 3, stride=2, padding=1)).kernel_size
        (4, 4)
    """
    check_module("model", model)
    if not isinstance(name, str):
        raise TypeError(f"variant: expected a name, got {describe(name)}")
    if name not in VARIANTS:
        raise ValueError(
            f"variant: expected one of {', '.join(VARIANTS)}, got {name!r}{suggest(name, VARIANTS)}"
        )
    return VARIANTS[name].change(model, seed)
