"""`DeadPixelMap`: the effective receptive field of the network's output (section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor

from erfattr._checks import Rectify, ToleranceOf
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import ModelOutput, OutputTarget
from erfattr.execution import Execution
from erfattr.metrics.statistics import MapStatistics


class DeadPixelMap(GradientAttribution):  # type: ignore[misc]
    r"""Dead pixel test: how strongly each pixel moves the network's output.

    Eq. 3 with the output y in place of the unit's F:

    .. math:: R_{xy} = \frac{1}{N} \sum_n \mathrm{ReLU}\Big(
              \frac{1}{C} \sum_z \frac{\partial y}{\partial I_{xyz}}\Big)

    Use the logits, as the paper does: behind a softmax the mean of all outputs is constant. It does not say
    which pixels of one image mattered; it is what the network does to any image, and a map of few images is
    mostly sampling noise.

    Args:
        model: The network, or any callable from images to outputs (Captum's ``forward_func``). A module runs
            in evaluation mode, in its own dtype, on its own device, and is left as it was.
        rectify: ``"relu"`` (eq. 3), ``"abs"`` or ``"none"``.
        execution: How the model is run; by default on a private copy that does the same with less work.

    Raises:
        TypeError: ``model`` is not callable, or ``execution`` not an `Execution`.
        ValueError: unknown ``rectify``.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, stride=2, bias=False), torch.nn.Flatten())
        >>> _ = torch.nn.init.constant_(model[0].weight, 4.0)
        >>> DeadPixelMap(model).attribute(torch.zeros(1, 1, 4, 4))  # 4 outputs: 4.0 / 4 each
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
        execution: Execution | None = None,
    ) -> None:
        self._maps = SensitivityMaps(model, [ModelOutput()], rectify, execution)
        GradientAttribution.__init__(self, model)

    @overload
    def attribute(
        self,
        inputs: Any,
        target: OutputTarget = ...,
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
        target: OutputTarget = ...,
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
        target: OutputTarget = None,
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
        """Compute the dead-pixel map over a loader.

        Args:
            inputs: An iterable of batches (a ``DataLoader``), or one batch: a tensor (N, C, H, W), a tuple
                or list that begins with one (labels second), or a dict that holds one.
            target: ``None``: mean of all outputs of an image; an integer, or a tuple of them for outputs of
                more dimensions: that output; ``"predicted"``: the largest output; ``"label"``: the output
                of the loader's label.
            additional_forward_args: Further arguments of the model, the same for every batch.
            reduction: ``"mean"`` over images, or ``"none"``: one map per image.
            max_examples: Stop after this many images.
            tolerance: Stop as soon as the relative standard error is below this, in (0, 1]; the statistics
                say how many images that took.
            tolerance_of: Of what: ``"pixels"``: median over pixels; ``"L1"`` or ``"L2"``: the noise-corrected
                imbalance index.
            show_progress: Show a progress bar on standard error.
            return_statistics: Also return the `MapStatistics`: number of images, standard error, group means.
            groups: Number of groups in the statistics.

        Returns:
            (H, W) in float64, or for ``reduction="none"`` (N, H, W) in the model's dtype; on the CPU. Unit:
            change of the output per change of the input value. Not negative but for ``rectify="none"``.

        Raises:
            TypeError: integer images, batches of an unknown kind, or an output that is not a tensor.
            ValueError: no image; NaN in an image; images of different sizes; a target outside the outputs, or
                labels that are missing; a non-finite gradient (the image is named); a mean map that is zero
                everywhere; ``return_statistics`` without a mean.
        """
        maps = SensitivityMaps(
            self.forward_func, [ModelOutput(target)], self._maps.rectify, self._maps.execution
        )
        result: Tensor | tuple[Tensor, MapStatistics] = maps.reduced(
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
