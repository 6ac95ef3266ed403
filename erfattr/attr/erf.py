"""`ERF`: the effective receptive field of a unit (eq. 1 to 3)."""

from __future__ import annotations

from typing import Any, Literal, overload

from captum.attr import GradientAttribution, NeuronAttribution
from captum.log import log_usage
from torch import Tensor, nn

from erfattr._checks import Rectify, ToleranceOf
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ToSpatial
from erfattr.execution import Execution
from erfattr.metrics.statistics import MapStatistics


class ERF(NeuronAttribution, GradientAttribution):  # type: ignore[misc]
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
        to_spatial: Brings the layer's output to (N, C, H, W) where it is not; see `from_channels_last` and
            `from_tokens`.
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
        execution: Execution | None = None,
    ) -> None:
        self._maps = SensitivityMaps(model, [FeatureUnit(layer, unit, to_spatial)], rectify, execution)
        NeuronAttribution.__init__(self, model, layer)
        GradientAttribution.__init__(self, model)

    @overload
    def attribute(
        self,
        inputs: Any,
        additional_forward_args: Any = ...,
        *,
        reduction: Literal["mean", "none"] = ...,
        max_examples: int | None = ...,
        tolerance: float | None = ...,
        tolerance_of: ToleranceOf = ...,
        show_progress: bool = ...,
        return_statistics: Literal[False] = ...,
        groups: int = ...,
    ) -> Tensor: ...

    @overload
    def attribute(
        self,
        inputs: Any,
        additional_forward_args: Any = ...,
        *,
        reduction: Literal["mean", "none"] = ...,
        max_examples: int | None = ...,
        tolerance: float | None = ...,
        tolerance_of: ToleranceOf = ...,
        show_progress: bool = ...,
        return_statistics: Literal[True],
        groups: int = ...,
    ) -> tuple[Tensor, MapStatistics]: ...

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Any,
        additional_forward_args: Any = None,
        *,
        reduction: Literal["mean", "none"] = "mean",
        max_examples: int | None = None,
        tolerance: float | None = None,
        tolerance_of: ToleranceOf = "pixels",
        show_progress: bool = False,
        return_statistics: bool = False,
        groups: int = 16,
    ) -> Tensor | tuple[Tensor, MapStatistics]:
        """Compute the effective receptive field over a loader.

        Args:
            inputs: An iterable of batches (a ``DataLoader``), or one batch: a tensor (N, C, H, W), a tuple
                or list that begins with one, or a dict that holds one.
            additional_forward_args: Further arguments of the model, the same for every batch.
            reduction: ``"mean"`` over images, or ``"none"``: one map per image.
            max_examples: Stop after this many images.
            tolerance: Stop as soon as the relative standard error is below this, in (0, 1]; the statistics
                say how many images that took.
            tolerance_of: Of what: ``"pixels"``: median over pixels; ``"L1"`` or ``"L2"``: the noise-corrected
                imbalance index.
            show_progress: Show a progress bar on standard error.
            return_statistics: Also return the `MapStatistics`: number of images, standard error, group means,
                and in ``source`` the layer, the unit and the pixel it is centred on.
            groups: Number of groups in the statistics.

        Returns:
            (H, W) in float64, or for ``reduction="none"`` (N, H, W) in the model's dtype; on the CPU. Unit:
            change of F per change of the input value. Not negative but for ``rectify="none"``.

        Raises:
            TypeError: integer images, or batches of an unknown kind.
            ValueError: no image; NaN in an image; images of different sizes; a layer that never ran or
                whose output is not (N, C, H, W); a unit outside the map; a non-finite gradient (the image
                is named); a mean map that is zero everywhere; ``return_statistics`` without a mean.
        """
        result: Tensor | tuple[Tensor, MapStatistics] = self._maps.reduced(
            inputs,
            additional_forward_args,
            reduction=reduction,
            max_examples=max_examples,
            tolerance=tolerance,
            tolerance_of=tolerance_of,
            show_progress=show_progress,
            return_statistics=return_statistics,
            groups=groups,
        )
        return result
