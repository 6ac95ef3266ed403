"""`ERF`: the effective receptive field of a unit (eq. 1 to 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import nn

from erfattr._checks import Rectify, as_int, describe
from erfattr.attr.layouts import ToSpatial
from erfattr.attr.map_attribution import MapAttribution
from erfattr.attr.selection import Select
from erfattr.attr.sources import FeatureUnit
from erfattr.attr.targets import OutputTarget
from erfattr.execution import Execution


class ERF(MapAttribution):
    r"""Effective receptive field: how strongly each pixel moves one unit of a feature map.

    With :math:`F = \frac{1}{K} \sum_k A_{ijk}` the channel mean of layer A at unit (i, j) (eq. 1),

    .. math:: R_{xy} = \frac{1}{N} \sum_n \mathrm{ReLU}\Big(
              \frac{1}{C} \sum_z \frac{\partial F}{\partial I_{xyz}}\Big)   \qquad (2, 3)

    with the ReLU image by image, whatever the batch size. See `SensitivityMaps` for several units and the
    output in one pass, and for what float32 does to maps of few images.

    It does not say which pixels matter to the *decision* (that is `DeadPixelMap`), nor how far the unit
    could see at all (that is `theoretical_receptive_field`).

    Args:
        model: The network; run in evaluation mode, in its own dtype, on its own device, and left as it was.
        layer: Module or dotted name; ``None``: the last spatial feature map before global pooling, which the
            statistics name.
        unit: ``"center"``, which is (H // 2, W // 2), or the position (i, j) from 0. The paper's (4, 4) of
            a 7 x 7 map is (3, 3) here.
        rectify: ``"relu"`` (eq. 3), ``"abs"`` or ``"none"``.
        to_spatial: Brings the layer's output to (N, C, H, W); see `from_channels_last` and `from_tokens`. By
            default rows, columns and channels are followed through the network, and the statistics'
            ``source.layout`` says where they lie.
        select: Of a layer that gives several tensors the index, key or attribute of one, or a callable that
            returns it; ``None``: the only one.
        execution: How the model is run; by default on a private copy that does the same with less work.

    Raises:
        TypeError: ``model`` is not a module, or an argument is of the wrong type.
        ValueError: the model has no such layer (the nearest names are suggested), or an unknown option.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1, bias=False))
        >>> _ = nn.init.ones_(model[0].weight)
        >>> ERF(model, layer="0", unit=(1, 1)).attribute(torch.zeros(1, 1, 5, 5))
        tensor([[0., 0., 0., 0., 0.],
                [0., 1., 1., 1., 0.],
                [0., 1., 1., 1., 0.],
                [0., 1., 1., 1., 0.],
                [0., 0., 0., 0., 0.]], dtype=torch.float64)

    References:
        Luo et al., *Understanding the effective receptive field in deep convolutional neural networks*, 2016.
        Kim et al., *Dead Pixel Test Using Effective Receptive Field*, eq. 1 to 3.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str | None = None,
        unit: tuple[int, int] | Literal["center"] = "center",
        *,
        rectify: Rectify = "relu",
        to_spatial: ToSpatial | None = None,
        select: Select = None,
        execution: Execution | None = None,
    ) -> None:
        self.layer = layer
        self.unit = FeatureUnit(layer, unit, to_spatial, select=select)
        super().__init__(model, rectify, execution)

    def _source(self, target: OutputTarget) -> FeatureUnit:
        if target is None:
            return self.unit
        target = as_int(target)
        if type(target) is int:
            return replace(self.unit, channel=target)
        if isinstance(target, tuple) and len(target) == 3 and all(type(index) is int for index in target):
            channel, i, j = target
            return replace(self.unit, channel=channel, unit=(i, j))
        raise ValueError(
            "target: expected None, a channel k or a channel at a position (k, i, j), got "
            f"{describe(target)}; further arguments of the model are additional_forward_args"
        )
