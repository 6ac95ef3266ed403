"""`DeadPixelMap`: the effective receptive field of the network's output (section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erfattr._checks import Rectify
from erfattr.attr.map_attribution import MapAttribution
from erfattr.attr.selection import Select
from erfattr.attr.sources import ModelOutput
from erfattr.attr.targets import OutputTarget
from erfattr.execution import Execution


class DeadPixelMap(MapAttribution):
    r"""Dead pixel test: how strongly each pixel moves the network's output.

    Eq. 3 with the output y in place of the unit's F:

    .. math:: R_{xy} = \frac{1}{N} \sum_n \mathrm{ReLU}\Big(
              \frac{1}{C} \sum_z \frac{\partial y}{\partial I_{xyz}}\Big)

    y is the predicted class's output, unless ``target`` names another. Use the logits, as the paper does. The
    mean of all outputs (``target="mean"``) nearly cancels in a trained classifier, whose last layer is
    trained on differences, and behind a softmax it is constant. The map does not say which pixels of one
    image mattered; it is what the network does to any image, and a map of few images is mostly sampling
    noise.

    Args:
        model: The network, or any callable from images to outputs (Captum's ``forward_func``). A module runs
            in evaluation mode, in its own dtype, on its own device, and is left as it was.
        rectify: ``"relu"`` (eq. 3), ``"abs"`` or ``"none"``.
        select: Of a network that gives several tensors the index, key or attribute of one, or a callable that
            returns it; ``None``: the only one, or that under ``"out"`` or ``"logits"``.
        execution: How the model is run; by default on a private copy that does the same with less work.

    Raises:
        TypeError: ``model`` is not callable, or ``execution`` not an `Execution`.
        ValueError: unknown ``rectify``.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, stride=2, bias=False), torch.nn.Flatten())
        >>> _ = torch.nn.init.constant_(model[0].weight, 4.0)
        >>> DeadPixelMap(model).attribute(torch.zeros(1, 1, 4, 4), target="mean")  # 4 outputs: 4.0 / 4 each
        tensor([[1., 0., 1., 0.],
                [0., 0., 0., 0.],
                [1., 0., 1., 0.],
                [0., 0., 0., 0.]], dtype=torch.float64)

    References:
        Kim et al., *Dead Pixel Test Using Effective Receptive Field*, section 4.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        rectify: Rectify = "relu",
        select: Select = None,
        execution: Execution | None = None,
    ) -> None:
        self.select = select
        super().__init__(model, rectify, execution)

    def _source(self, target: OutputTarget) -> ModelOutput:
        return ModelOutput(target, self.select)
