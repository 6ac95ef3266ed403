"""What `ERF` and `DeadPixelMap` share: Captum's ``attribute`` for a map over many images, its options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, overload

from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor

from erfattr._checks import Rectify, ToleranceOf, check_choice
from erfattr._processes import Distributed
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import Source
from erfattr.attr.targets import OutputTarget
from erfattr.datasets.grouping import Group
from erfattr.execution import Execution
from erfattr.metrics.statistics import MapStatistics


class MapAttribution(GradientAttribution):  # type: ignore[misc]
    """One sensitivity map, averaged over images; a subclass says what it is the sensitivity of.

    Args:
        model: The network.
        rectify: ``"relu"`` (eq. 3), ``"abs"`` or ``"none"``.
        execution: How the model is run; by default on a private copy that does the same with less work.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: unknown ``rectify``, or a source that the model does not have.
    """

    def __init__(
        self, model: Callable[..., Any], rectify: Rectify = "relu", execution: Execution | None = None
    ) -> None:
        maps = SensitivityMaps(model, [self._source(None)], rectify, execution)
        self.rectify = maps.rectify
        self.execution = maps.execution
        GradientAttribution.__init__(self, model)

    @abstractmethod
    def _source(self, target: OutputTarget) -> Source:
        """Return what is mapped."""

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
        group: Group = ...,
        distributed: Distributed = ...,
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
        group: Group = ...,
        distributed: Distributed = ...,
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
        group: Group = None,
        distributed: Distributed = "auto",
    ) -> Tensor | tuple[Tensor, MapStatistics]:
        """Compute the map over a loader.

        Args:
            inputs: An iterable of batches (a ``DataLoader``), or one batch: a tensor (N, C, H, W), a tuple
                or list that begins with one (labels second), or a dict that holds one.
            target: What is explained. Of `DeadPixelMap` ``None`` or ``"predicted"``: the largest output; an
                integer, or a tuple of them for outputs of more dimensions: that output; ``"label"``: the
                output of the loader's label; ``"mean"``: mean of all outputs. Of `ERF` ``None``: the mean
                over channels at the unit (eq. 1); an integer: that channel at the unit; a tuple (k, i, j):
                channel k at (i, j), as the ``neuron_selector`` of Captum's ``NeuronGradient``.
            additional_forward_args: Further arguments of the model, a tuple if there are several; of one
                batch a tensor with one entry for each image belongs to the images, all else is the same for
                every batch.
            reduction: ``"mean"`` over images, or ``"none"``: one map per image.
            max_examples: Stop after this many images.
            tolerance: Stop as soon as the relative standard error is below this, in (0, 1]; the statistics
                say how many images that took.
            tolerance_of: Of what: ``"pixels"``: median over pixels; ``"L1"`` or ``"L2"``: the noise-corrected
                imbalance index.
            show_progress: Show a progress bar on standard error.
            return_statistics: Also return the `MapStatistics`: number of images, standard error, group means,
                and in ``source`` what was mapped: for a unit its layer, its position, and the pixel it is
                centred on.
            groups: Number of groups in the statistics.
            group: What belongs together, where images depend on each other (frames of a video, tiles of one
                slide, changed copies): a label for each image, or a function from a file's path to one, such
                as ``lambda path: path.parent``. Standard errors then count a label's images as one draw.
            distributed: ``"auto"``: in a ``torch.distributed`` group all processes call this and share the
                work; ``False``: this process computes the map alone.

        Returns:
            (H, W) in float64, or for ``reduction="none"`` (N, H, W) in the model's dtype; on the CPU. Unit:
            change of what is explained per change of the input value. Not negative but for
            ``rectify="none"``.

        Raises:
            TypeError: integer images, or batches or outputs of an unknown kind.
            ValueError: no image; NaN in an image; images of different sizes; a layer that never ran or whose
                output is not (N, C, H, W); a target, label, channel or unit outside the outputs or the map; a
                non-finite gradient (the image is named); a mean map that is zero everywhere;
                ``return_statistics`` without a mean.
        """
        maps = SensitivityMaps(self.forward_func, [self._source(target)], self.rectify, self.execution)
        check_choice("reduction", reduction, ("mean", "none"))
        if reduction == "none":
            if return_statistics or tolerance is not None:
                name = "return_statistics" if return_statistics else "tolerance"
                raise ValueError(f'{name}: reduction="none" averages nothing, so it has none')
            (every_map,) = maps.per_image(
                inputs, additional_forward_args, max_examples=max_examples, show_progress=show_progress
            )
            return every_map
        (statistics,) = maps.attribute(
            inputs,
            additional_forward_args,
            max_examples=max_examples,
            tolerance=tolerance,
            tolerance_of=tolerance_of,
            show_progress=show_progress,
            groups=groups,
            group=group,
            locate=return_statistics,
            distributed=distributed,
        )
        return (statistics.mean, statistics) if return_statistics else statistics.mean
