"""What is run on the images, prepared on the first of them, and how images go in and maps come out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from erfattr._checks import Rectify
from erfattr._model import device_and_dtype, other_dimensions
from erfattr.attr._crop import Cone, find_cone
from erfattr.attr._first_pass import Layers, resolved_again, varying_layer
from erfattr.attr._gradients import Batch, GradientPlan
from erfattr.attr._resolving import first_of_few, is_large, resolved, resolved_on_part, traced
from erfattr.attr.layouts import ConstantMeanError
from erfattr.attr.sources import Source
from erfattr.execution import Execution, prepared, rounds_to_tf32
from erfattr.metrics.statistics import MapSource, MapStatistics, StreamingStatistics
from erfattr.receptive_field.trace import Trace

# Fewer images than this cost less than tracing and copying the model.
_WORTH_PREPARING = 4


@dataclass(frozen=True)
class Placement:
    """What the maps are of, and where in the image they lie.

    Attributes:
        described: Each source.
        image_shape: (C, H, W) of the images.
        cone: The part of the images that is run; ``None``: the whole.
        computed: What was done to compute faster, in words.
    """

    described: tuple[MapSource, ...]
    image_shape: tuple[int, int, int]
    cone: Cone | None
    computed: tuple[str, ...]

    @property
    def map_size(self) -> tuple[int, int]:
        """(H, W) of the maps as they are computed."""
        return self.image_shape[1:] if self.cone is None else self.cone.size

    def on_image(self, maps: Tensor) -> Tensor:
        """Return computed maps (..., H, W) as maps of the whole image; outside the cone nothing is seen."""
        if self.cone is None:
            return maps
        size = (*maps.shape[:-2], *self.image_shape[1:])
        # Zeros that the system gives take no memory before they are written to: most of a large map.
        ours = maps.dtype is torch.float64 and maps.device.type == "cpu"
        whole = torch.from_numpy(np.zeros(size)) if ours else maps.new_zeros(size)
        self.cone.of(whole).copy_(maps)
        return whole

    def results(self, streams: Sequence[StreamingStatistics]) -> list[MapStatistics]:
        """Return the statistics of computed maps, as maps of the whole image."""
        results = []
        for stream, source in zip(streams, self.described, strict=True):
            statistics = stream.result(source)
            results.append(
                replace(
                    statistics,
                    mean=self.on_image(statistics.mean),
                    standard_error=self.on_image(statistics.standard_error),
                    group_means=self.on_image(statistics.group_means),
                    computed=self.computed,
                )
            )
        return results

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, texts, tuples and dicts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Placement:
        """Return the placement that `as_dict` described."""
        cone = saved["cone"]
        return cls(
            tuple(MapSource(**source) for source in saved["described"]),
            saved["image_shape"],
            None if cone is None else Cone(**cone),
            saved["computed"],
        )


@dataclass(frozen=True)
class Run:
    """What is run on the images.

    Attributes:
        plan: The sources, resolved on the model that is run.
        placement: What its maps are of, and where in the image they lie.
        device: Where images are put.
        dtype: What they are converted to.
        channels_last: Whether they are laid out so.
        fits: How many of them fit into the device's memory, as far as it is known.
    """

    plan: GradientPlan
    placement: Placement
    device: torch.device | None
    dtype: torch.dtype | None
    channels_last: bool
    fits: Fits = field(default_factory=lambda: Fits())

    def maps(self, batch: Batch) -> list[Tensor]:
        """Return for each source the rectified gradient of every image, (N, H, W).

        A batch that the GPU's memory does not hold is run in parts: image by image the maps are the same.

        Raises:
            ValueError: the memory does not hold one image, or not a batch with further arguments.
        """
        parts: list[list[Tensor]] = []
        start = 0
        size = self.fits.images
        while start < len(batch.images):
            part = batch if batch.extra else batch.part(start, size)
            try:
                parts.append(self.plan.maps(self.moved(part)))
            except torch.cuda.OutOfMemoryError as error:
                if len(part.images) == 1 or batch.extra:
                    raise ValueError(too_large(part.images, batch.extra)) from error
                size = len(part.images) // 2
            else:
                start += len(part.images)
                continue
            # Not before the error is gone, which holds on to what was computed.
            torch.cuda.empty_cache()
        if size != self.fits.images:
            self.fits.images = size
            warnings.warn(
                f"inputs: the GPU's memory does not hold {len(batch.images)} images; "
                f"they are run {size} at a time",
                stacklevel=2,
            )
        if len(parts) == 1:
            return parts[0]
        return [torch.cat(of_source) for of_source in zip(*parts, strict=True)]

    def moved(self, batch: Batch) -> Batch:
        """Return the part of the images that is run, where and as the model wants it."""
        images, cone = batch.images, self.placement.cone
        if cone is not None:
            images = cone.of(images)
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        if self.device is not None and self.device.type == "cuda" and not images.is_cuda:
            # Pinned memory is copied while the device works on the batch before; the device converts it
            # faster than this processor, and a conversion here would not be pinned.
            images = images.pin_memory().to(self.device, non_blocking=True)
        images = images.to(device=self.device, dtype=self.dtype, memory_format=layout)
        return batch._replace(images=images)


@dataclass
class Fits:
    """How many images the device's memory holds at a time; ``None``: more than any batch so far."""

    images: int | None = None


def too_large(images: Tensor, extra: tuple[Any, ...]) -> str:
    """Say what to do where the GPU's memory does not hold what cannot be parted."""
    count = "one image" if len(images) == 1 else f"{len(images)} images"
    begun = f"inputs: the GPU's memory does not hold {count} of shape {tuple(images.shape[1:])}"
    if extra:
        return f"{begun}, which have further arguments and are not parted; give smaller batches"
    smaller = "smaller images" if len(images) == 1 else "smaller batches or images"
    return f"{begun}; give {smaller}, or run the model on the CPU"


class Start(NamedTuple):
    """How a run begins: what is run, and the maps of the first batch."""

    run: Run
    maps: list[Tensor]


def begin_run(
    model: Callable[..., Any],
    sources: Sequence[Source],
    rectify: Rectify,
    execution: Execution,
    batch: Batch,
    *,
    total: int | None,
    locate: bool,
) -> Start:
    """Resolve the sources on the first batch, prepare what is run, and run it.

    Args:
        model: The network.
        sources: What to map.
        rectify: What is done to each image's gradient.
        execution: How the model may be run.
        batch: The first images.
        total: How many images will come, as far as it is known. A few that are not large are run on the model
            as it is, whatever ``execution`` allows: they cost less than tracing and copying it.
        locate: Whether the pixels that the units are centred on are wanted.
    """

    def begun(last_map: str | None = None) -> Start:
        start = _begun(model, sources, rectify, execution, batch, total, locate, last_map)
        _refuse_same(start.run.placement.described)
        return start

    try:
        return begun()
    except torch.cuda.OutOfMemoryError as error:
        # Whole batches are run in parts; this was one image, or as few as are not parted.
        few = _are_few(total, batch.images)
        first = batch.images if batch.extra or few else batch.images[:1]
        raise ValueError(too_large(first, batch.extra)) from error
    except RuntimeError as error:
        other = other_dimensions(model)
        if other is not None:
            raise ValueError(other) from error
        raise
    except ConstantMeanError as error:
        if not isinstance(model, nn.Module):
            raise
        device, dtype = device_and_dtype(model)
        images = batch.images.to(device=device, dtype=dtype)
        before = varying_layer(model, error.layer, images, batch.extra)
        if error.chosen or before is None:
            raise ConstantMeanError(error.layer, before) from None
        # The layer was left to us: the last one that has an effective receptive field at all.
        start = begun(before)
        note = f"; {error.layer!r} behind it has a constant channel mean"
        described = tuple(
            replace(source, layout=source.layout + note) if source.layer == before else source
            for source in start.run.placement.described
        )
        run = replace(start.run, placement=replace(start.run.placement, described=described))
        return start._replace(run=run)


def _are_few(total: int | None, images: Tensor) -> bool:
    """Whether all images together cost less than preparing a run."""
    size = (images.shape[2], images.shape[3])
    return total is not None and total < _WORTH_PREPARING and not is_large(size)


def _refuse_same(described: Sequence[MapSource]) -> None:
    """Raise where two sources have turned out to be one: the last layer, and its name."""
    seen: list[tuple[Any, ...]] = []
    for source in described:
        what = (source.layer, source.unit, source.layout)
        if what in seen:
            raise ValueError(
                f"sources: expected different ones, got {source.layer}, unit {source.unit} twice"
            )
        if source.unit is not None:
            seen.append(what)


def _begun(
    model: Callable[..., Any],
    sources: Sequence[Source],
    rectify: Rectify,
    execution: Execution,
    batch: Batch,
    total: int | None,
    locate: bool,
    last_map: str | None,
    *,
    crop_first: bool = True,
) -> Start:
    device, dtype = device_and_dtype(model)
    _, channels, height, width = batch.images.shape
    shape = (channels, height, width)
    changed = execution.precision is not None or execution.compile
    few = _are_few(total, batch.images) and not changed
    plain = Run(_NOTHING, Placement((), shape, None, ()), device, dtype, False)
    if few or not isinstance(model, nn.Module):
        first = first_of_few(model, sources, rectify, plain.moved(batch), last_map)
        trace = None
        if locate and isinstance(model, nn.Module) and not batch.extra:
            trace = traced(model, first.layers, shape[1:], channels)
        placement = replace(plain.placement, described=_located(first.plan, trace))
        return Start(replace(plain, plan=first.plan, placement=placement), first.maps())
    # Further arguments may belong to the images, so with them the whole batch shows the sources.
    count = len(batch.images) if batch.extra else 1
    labels = None if batch.labels is None else batch.labels[:count]
    image = plain.moved(batch._replace(images=batch.images[:count].detach(), labels=labels))
    part = resolved_on_part(model, sources, rectify, image) if execution.crop and crop_first else None
    plan, layers = part or resolved(model, sources, rectify, image, last_map)
    # Further arguments may decide what the model does, and the trace does not have them.
    units = any(source.described.unit is not None for source in plan.sources)
    wanted = execution.fold or (units and (execution.crop or locate))
    trace = traced(model, layers, shape[1:], channels) if wanted and not batch.extra else None
    folds = () if trace is None else trace.folds
    ran, computed = prepared(model, execution, set(plan.modules), folds=folds, begun=layers.begun)
    device, dtype = device_and_dtype(ran)
    if rounds_to_tf32(device, dtype):
        computed += ("convolutions in TF32",)
    modules = {name: ran.get_submodule(name) for name in plan.modules}
    run = Run(
        replace(plan, model=ran, modules=modules),
        Placement(_located(plan, trace), shape, None, computed),
        device,
        dtype,
        "channels last" in computed,
    )
    if execution.crop and trace is not None:
        cropped = _cropped(run, sources, model, ran, layers, trace, image)
        if cropped is None and part is not None:
            # What a part showed is not what the whole image would.
            return _begun(
                model, sources, rectify, execution, batch, total, locate, last_map, crop_first=False
            )
        run = cropped or run
    return Start(run, run.maps(batch))


_NOTHING = GradientPlan(lambda images: images, (), {}, {}, "none")


def _located(plan: GradientPlan, trace: Trace | None) -> tuple[MapSource, ...]:
    """Return what each source is, with the pixel its unit is centred on where that is known."""
    located = []
    for source in plan.sources:
        described = source.described
        field = None if trace is None else trace.fields.get(source.layer)
        if field is not None and described.unit is not None and field.output_size == described.feature_size:
            described = replace(described, center=field.center(described.unit))
        located.append(described)
    return tuple(located)


def _cropped(
    run: Run,
    sources: Sequence[Source],
    model: nn.Module,
    ran: nn.Module,
    layers: Layers,
    trace: Trace,
    image: Batch,
) -> Run | None:
    """Return the same run of ``ran`` on the part of the image that the units see; ``None``: there is none."""
    whole = run.plan
    wanted = [
        (source.layer, source.described.unit)
        for source in whole.sources
        if source.described.unit is not None and source.values is not None
    ]
    channels = run.placement.image_shape[0]
    # How many tokens a crop has is not known.
    if len(wanted) < len(sources) or any(layout and layout.is_tokens for layout in layers.layouts):
        return None
    cone = find_cone(wanted, trace, lambda size: traced(model, layers, size, channels))
    if cone is None:
        return None
    inside = [
        source.at(layer, unit) for source, (layer, _), unit in zip(sources, wanted, cone.units, strict=True)
    ]
    moved = [source for source in inside if source is not None]
    if len(moved) < len(sources):
        return None
    height, width = cone.size
    words = (*run.placement.computed, f"cropped to {height} x {width} pixels")
    cropped = replace(run, placement=replace(run.placement, cone=cone, computed=words))
    with torch.no_grad():
        plan = resolved_again(ran, moved, whole.rectify, cropped.moved(image), layers)
    # The trace proves which pixels are read, not what is done with a position (an embedding, say).
    for before, after in zip(whole.sources, plan.sources, strict=True):
        if before.values is None or after.values is None:
            return None
        tolerance = torch.finfo(after.values.dtype).eps ** 0.5 * float(before.values.abs().max())
        if float((before.values - after.values).abs().max()) > tolerance:
            return None
    return replace(cropped, plan=replace(plan, modules=whole.modules))
