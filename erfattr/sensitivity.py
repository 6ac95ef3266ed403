"""Sensitivity maps of units and of the output, several in one pass; `ERF` and `DeadPixelMap` stand on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from captum._utils.common import _format_additional_forward_args
from torch import Tensor, nn
from tqdm.auto import tqdm

from erfattr._batches import batches_of, check_images, count_images, images_and_labels
from erfattr._checks import check_choice, check_positive_int, describe
from erfattr._cone import Cone, find_cone
from erfattr._model import device_and_dtype, find_layer, untouched
from erfattr.execution import Execution, prepared
from erfattr.receptive_field import ReceptiveField, receptive_fields
from erfattr.sources import RECTIFY, FeatureUnit, GradientPlan, ModelOutput, Rectify, make_plan
from erfattr.statistics import MapSource, MapStatistics, StreamingStatistics

# Non-finite gradients are looked for after this many batches and at the end: looking waits for the device.
_CHECK_INTERVAL = 16


class SensitivityMaps:
    r"""Maps of several units and outputs from one forward pass a batch.

    For every image and every source s (a unit's channel mean F of eq. 1, or an output) the map is
    :math:`\mathrm{rectify}(\frac{1}{C} \sum_z \partial s / \partial I_{xyz})` (eq. 2), and the result its
    mean over images (eq. 3). The gradient of a sum over a batch is, image by image, the gradient of each
    image, so any batch size gives what batch size 1 gives, to rounding. In float32 another order of summation
    flips some ReLU decisions inside the network, which moves a map of few images by up to a percent of its
    maximum; prove equalities in float64.

    The model runs in evaluation mode and in its own dtype, on its own device, and comes back as it was.

    Args:
        model: The network. `FeatureUnit` needs a ``torch.nn.Module``; `ModelOutput` takes any callable.
        sources: What to map.
        rectify: What is done to each image's gradient before averaging: ``"relu"`` (eq. 3), ``"abs"`` or
            ``"none"``.
        execution: How the model is run; see `Execution`.

    Raises:
        TypeError: ``model`` is not callable, ``sources`` holds something else than the two kinds, or
            ``execution`` is not an `Execution`.
        ValueError: unknown ``rectify``, no source, or a layer that the model does not have.

    Example:
        >>> model = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 2.0)
        >>> maps = SensitivityMaps(model, [ModelOutput((0, 1, 1))])
        >>> maps.attribute(torch.zeros(4, 1, 3, 4))[0].mean
        tensor([[2., 2., 2., 0.],
                [2., 2., 2., 0.],
                [2., 2., 2., 0.]], dtype=torch.float64)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        sources: Sequence[FeatureUnit | ModelOutput],
        rectify: Rectify = "relu",
        execution: Execution | None = None,
    ) -> None:
        if not callable(model):
            raise TypeError(f"model: expected a torch.nn.Module or another callable, got {describe(model)}")
        check_choice("rectify", rectify, tuple(RECTIFY))
        self.model = model
        self.sources = list(sources)
        self.rectify = rectify
        self.execution = Execution() if execution is None else execution
        if not isinstance(self.execution, Execution):
            raise TypeError(f"execution: expected an Execution or None, got {describe(execution)}")
        if not self.sources:
            raise ValueError("sources: expected at least one FeatureUnit or ModelOutput, got none")
        for source in self.sources:
            if not isinstance(source, (FeatureUnit, ModelOutput)):
                raise TypeError(f"sources: expected FeatureUnit or ModelOutput, got {describe(source)}")
            if isinstance(source, FeatureUnit):
                if not isinstance(model, nn.Module):
                    raise TypeError(f"model: a layer's unit needs a torch.nn.Module, got {describe(model)}")
                if source.layer is not None:
                    find_layer(model, source.layer)

    def attribute(
        self,
        inputs: Any,
        additional_forward_args: Any = None,
        *,
        max_examples: int | None = None,
        show_progress: bool = False,
        groups: int = 16,
    ) -> list[MapStatistics]:
        """Average the maps over images.

        Args:
            inputs: Images: an iterable of batches (a ``DataLoader``), or one batch. A batch is a tensor
                (N, C, H, W) of floating-point values, a tuple or list that begins with one (labels second),
                or a dict that holds one. All images share one size.
            additional_forward_args: Further arguments of the model, the same for every batch.
            max_examples: Stop after this many images.
            show_progress: Show a progress bar on standard error.
            groups: Number of interleaved groups kept for jackknife standard errors.

        Returns:
            For each source its `MapStatistics`, float64, on the CPU. Unit: output per input value. With
            ``"relu"`` and ``"abs"`` nothing is negative.

        Raises:
            TypeError: integer images, or batches or outputs of an unknown kind.
            ValueError: no image; NaN in an image; images of different sizes; a layer that never ran or whose
                output is not (N, C, H, W); a unit outside the map; a non-finite gradient, whose image is
                named; a map that is zero everywhere.
        """
        streams = [StreamingStatistics(groups) for _ in self.sources]
        with self._undisturbed():
            for first_index, run, maps in self._batches_of_maps(
                inputs, additional_forward_args, max_examples, show_progress
            ):
                for one, stream in zip(maps, streams, strict=True):
                    stream.update(one, first_index)
                last = run
        # At least one batch came, or the loop would have raised.
        results = last.results(streams)
        for result in results:
            if not bool(result.mean.any()):
                name = result.source.layer if result.source else "output"
                raise ValueError(
                    f"inputs: the map of {name!r} is zero everywhere, so none of these images excites it "
                    f'(rectify="{self.rectify}")'
                )
        return results

    def per_image(
        self,
        inputs: Any,
        additional_forward_args: Any = None,
        *,
        max_examples: int | None = None,
        show_progress: bool = False,
    ) -> list[Tensor]:
        """Return the maps of every image instead of their mean.

        Arguments and errors are those of `attribute`, but for the map that is zero everywhere: one image may
        well have one.

        Returns:
            For each source (N, H, W) in the model's dtype, on the CPU.
        """
        collected: list[list[Tensor]] = [[] for _ in self.sources]
        with self._undisturbed():
            for _, run, maps in self._batches_of_maps(
                inputs, additional_forward_args, max_examples, show_progress
            ):
                for one, parts in zip(maps, collected, strict=True):
                    parts.append(run.placed(one.cpu()))
        return [torch.cat(parts) for parts in collected]

    def reduced(
        self,
        inputs: Any,
        additional_forward_args: Any = None,
        *,
        reduction: Literal["mean", "none"] = "mean",
        max_examples: int | None = None,
        show_progress: bool = False,
        return_statistics: bool = False,
        groups: int = 16,
    ) -> Any:
        """Return the first source's map as an attribution class does: see `ERF.attribute`."""
        check_choice("reduction", reduction, ("mean", "none"))
        if reduction == "none":
            if return_statistics:
                raise ValueError(
                    'return_statistics: expected False with reduction="none", which has no mean, got True'
                )
            return self.per_image(
                inputs, additional_forward_args, max_examples=max_examples, show_progress=show_progress
            )[0]
        statistics = self.attribute(
            inputs,
            additional_forward_args,
            max_examples=max_examples,
            show_progress=show_progress,
            groups=groups,
        )[0]
        return (statistics.mean, statistics) if return_statistics else statistics.mean

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        with torch.inference_mode(False), torch.enable_grad(), untouched(self.model):
            yield

    def _batches_of_maps(
        self, inputs: Any, additional_forward_args: Any, max_examples: int | None, show_progress: bool
    ) -> Iterator[tuple[int, _Run, list[Tensor]]]:
        """Yield number of the first image, how it was run, and the maps of each batch."""
        if max_examples is not None:
            check_positive_int("max_examples", max_examples)
        extra = _format_additional_forward_args(additional_forward_args) or ()
        wants_labels = any(
            isinstance(source, ModelOutput) and source.target == "label" for source in self.sources
        )
        run: _Run | None = None
        pending: list[tuple[int, Tensor]] = []
        count = 0
        with tqdm(total=count_images(inputs, max_examples), unit="image", disable=not show_progress) as bar:
            for batch in batches_of(inputs):
                images, labels = images_and_labels(batch, wants_labels)
                if max_examples is not None:
                    images = images[: max_examples - count]
                    labels = None if labels is None else labels[: max_examples - count]
                check_images(images, count, None if run is None else run.image_shape)
                _refuse_batch_statistics(self.model, len(images))
                if run is None:
                    run = self._begin(images[:1], extra)
                maps = run.plan.maps(run.taken(images), labels, extra, count)
                pending.extend((count, torch.isfinite(one).flatten(1).all(1)) for one in maps)
                if not maps[0].is_cuda or len(pending) >= _CHECK_INTERVAL * len(self.sources):
                    _refuse_non_finite(pending)
                yield count, run, maps
                count += len(images)
                bar.update(len(images))
                if max_examples is not None and count >= max_examples:
                    break
        _refuse_non_finite(pending)
        if count == 0:
            raise ValueError("inputs: expected at least one image, got none")

    def _begin(self, image: Tensor, extra: tuple[Any, ...]) -> _Run:
        """Resolve the sources on the first image, and prepare what is run."""
        model = self.model
        fields: dict[str, ReceptiveField] = {}
        device, dtype = device_and_dtype(model)
        image = image.detach().to(device=device, dtype=dtype)
        whole = make_plan(model, self.sources, self.rectify, image, extra)
        if isinstance(model, nn.Module) and whole.units and not extra:
            fields = _fields(model, image)
        described = whole.describe(fields)
        plan = whole
        done: tuple[str, ...] = ()
        if isinstance(model, nn.Module):
            model, done = prepared(model, self.execution, keep=set(whole.modules))
            _, dtype = device_and_dtype(model)
            modules = {name: model.get_submodule(name) for name in whole.modules}
            plan = replace(whole, model=model, modules=modules)
        run = _Run(plan, described, device, dtype, "channels last" in done, whole.image_shape, None, done)
        cropped = self._cropped(run, fields, image) if self.execution.crop and fields else None
        return cropped or run

    def _cropped(self, run: _Run, fields: Mapping[str, ReceptiveField], image: Tensor) -> _Run | None:
        """Return the same run on the part of the image that the units see; ``None`` where there is none."""
        whole = run.plan
        units = [
            source for source in self.sources if isinstance(source, FeatureUnit) and not source.to_spatial
        ]
        if len(units) < len(self.sources) or not isinstance(self.model, nn.Module):
            return None
        wanted = [(whole.layers[index], whole.units[index]) for index in range(len(units))]
        cone = find_cone(self.model, wanted, fields, whole.image_shape[0])
        if cone is None:
            return None
        height, width = cone.size
        cropped = replace(run, cone=cone, done=(*run.done, f"cropped to {height} x {width} pixels"))
        sources = [
            FeatureUnit(whole.modules[layer], unit)
            for (layer, _), unit in zip(wanted, cone.units, strict=True)
        ]
        plan = make_plan(whole.model, sources, self.rectify, cropped.taken(image), ())
        # The trace proves which pixels are read, not what is done with a position (an embedding, say).
        for index, features in whole.features.items():
            tolerance = torch.finfo(plan.features[index].dtype).eps ** 0.5 * float(features.abs().max())
            if float((features - plan.features[index]).abs().max()) > tolerance:
                return None
        return replace(cropped, plan=plan)


@dataclass(frozen=True)
class _Run:
    """What is run on the images, and how images go in and maps come out."""

    plan: GradientPlan
    described: list[MapSource]
    device: torch.device | None
    dtype: torch.dtype | None
    channels_last: bool
    image_shape: tuple[int, int, int]
    cone: Cone | None
    done: tuple[str, ...]

    def taken(self, images: Tensor) -> Tensor:
        """Return the part of the images that is run, where and as the model wants it."""
        if self.cone is not None:
            rows, columns = self.cone.rows, self.cone.columns
            images = images[:, :, rows[0] : rows[1], columns[0] : columns[1]]
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        if self.device is not None and self.device.type == "cuda" and not images.is_cuda:
            images = images.pin_memory()
        return images.to(device=self.device, dtype=self.dtype, non_blocking=True, memory_format=layout)

    def results(self, streams: Sequence[StreamingStatistics]) -> list[MapStatistics]:
        """Return the statistics of what was run, as maps of the whole image."""
        results = []
        for stream, source in zip(streams, self.described, strict=True):
            one = stream.result(source)
            results.append(
                replace(
                    one,
                    mean=self.placed(one.mean),
                    standard_error=self.placed(one.standard_error),
                    group_means=self.placed(one.group_means),
                    computed=self.done,
                )
            )
        return results

    def placed(self, maps: Tensor) -> Tensor:
        """Return maps (..., H, W) of what was run in maps of the whole image; outside nothing is seen."""
        if self.cone is None:
            return maps
        (top, bottom), (left, right) = self.cone.rows, self.cone.columns
        _, height, width = self.image_shape
        return F.pad(maps, (left, width - right, top, height - bottom))


def _fields(model: nn.Module, image: Tensor) -> dict[str, ReceptiveField]:
    """Return the receptive fields, or none where the model cannot be traced without its images."""
    try:
        return receptive_fields(model, (image.shape[2], image.shape[3]), in_channels=image.shape[1])
    except ValueError:
        return {}


def _refuse_batch_statistics(model: Any, images: int) -> None:
    """Refuse networks in which the images of a batch see each other."""
    if images == 1 or not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"model: layer {name!r} normalises with the statistics of the batch, so the images of a "
                f"batch are not independent; expected batches of one image, got {images}"
            )


def _refuse_non_finite(pending: list[tuple[int, Tensor]]) -> None:
    """Raise for the first image with a non-finite gradient; forget the images looked at."""
    bad = [
        first_index + int(torch.nonzero(~finite)[0])
        for first_index, finite in pending
        if not bool(finite.all())
    ]
    pending.clear()
    if bad:
        raise ValueError(f"model: the gradient of image {min(bad)} is not finite")
