"""What is run on the images, prepared on the first of them, and how images go in and maps come out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erfattr._checks import Rectify
from erfattr._model import device_and_dtype, other_dimensions
from erfattr.attr._crop import Cone, find_cone
from erfattr.attr._first_pass import FirstPass, Layers, first_pass, resolved_again, varying_layer
from erfattr.attr._gradients import Batch, GradientPlan
from erfattr.attr._memory import remembered
from erfattr.attr.layouts import ConstantMeanError
from erfattr.attr.sources import Source
from erfattr.execution import Execution, prepared, rounds_to_tf32
from erfattr.metrics.statistics import MapSource, MapStatistics, StreamingStatistics
from erfattr.receptive_field.trace import Trace, trace_layers

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
        (top, bottom), (left, right) = self.cone.rows, self.cone.columns
        _, height, width = self.image_shape
        return F.pad(maps, (left, width - right, top, height - bottom))

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
            images = images[:, :, cone.rows[0] : cone.rows[1], cone.columns[0] : cone.columns[1]]
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
        total: How many images will come, as far as it is known. A few are run on the model as it is, whatever
            ``execution`` allows: they cost less than tracing and copying it.
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
        few = total is not None and total < _WORTH_PREPARING
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
) -> Start:
    device, dtype = device_and_dtype(model)
    _, channels, height, width = batch.images.shape
    shape = (channels, height, width)
    changed = execution.precision is not None or execution.compile
    few = total is not None and total < _WORTH_PREPARING and not changed
    plain = Run(_NOTHING, Placement((), shape, None, ()), device, dtype, False)
    if few or not isinstance(model, nn.Module):
        first = _first_of_few(model, sources, rectify, plain.moved(batch), last_map)
        trace = None
        if locate and isinstance(model, nn.Module) and not batch.extra:
            trace = _traced(model, first.layers, shape[1:], channels)
        placement = replace(plain.placement, described=_located(first.plan, trace))
        return Start(replace(plain, plan=first.plan, placement=placement), first.maps())
    # Further arguments may belong to the images, so with them the whole batch shows the sources.
    count = len(batch.images) if batch.extra else 1
    labels = None if batch.labels is None else batch.labels[:count]
    image = plain.moved(batch._replace(images=batch.images[:count].detach(), labels=labels))
    plan, layers = _resolved(model, sources, rectify, image, last_map)
    # Further arguments may decide what the model does, and the trace does not have them.
    units = any(source.described.unit is not None for source in plan.sources)
    wanted = execution.fold or (units and (execution.crop or locate))
    trace = _traced(model, layers, shape[1:], channels) if wanted and not batch.extra else None
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
        run = _cropped(run, sources, model, ran, layers, trace, image) or run
    return Start(run, run.maps(batch))


def _first_of_few(
    model: Callable[..., Any],
    sources: Sequence[Source],
    rectify: Rectify,
    batch: Batch,
    last_map: str | None,
) -> FirstPass:
    """Run the model with gradients; where rows and columns lie is only looked for the first time."""
    if not isinstance(model, nn.Module) or batch.extra:
        return first_pass(model, sources, rectify, batch, last_map)
    first: FirstPass | None = None

    def look() -> Layers:
        nonlocal first
        first = first_pass(model, sources, rectify, batch, last_map)
        return first.layers

    layers = remembered(model, _layers_key(model, sources, last_map, batch.images), look)
    if first is not None:
        return first
    chosen = next((n for n, s in zip(layers.names, sources, strict=True) if s.layer_in(model) is None), None)
    return first_pass(model, sources, rectify, batch, chosen, known=layers)


def _layers_key(
    model: nn.Module, sources: Sequence[Source], last_map: str | None, images: Tensor
) -> tuple[Any, ...]:
    read = tuple((source.layer_in(model), source.reading) for source in sources)
    return ("layers", read, last_map, tuple(images.shape[1:]))


_NOTHING = GradientPlan(lambda images: images, (), {}, {}, "none")


def _resolved(
    model: nn.Module, sources: Sequence[Source], rectify: Rectify, image: Batch, last_map: str | None
) -> tuple[GradientPlan, Layers]:
    """Resolve the sources on one image; the whole model runs only if it was not seen to run before."""
    first: FirstPass | None = None

    def look() -> Layers:
        nonlocal first
        with torch.no_grad():
            first = first_pass(model, sources, rectify, image, last_map)
        return first.layers

    if image.extra:
        layers = look()
    else:
        layers = remembered(model, _layers_key(model, sources, last_map, image.images), look)
    if first is not None:
        return first.plan, layers
    with torch.no_grad():
        return resolved_again(model, sources, rectify, image, layers), layers


def _traced(model: nn.Module, layers: Layers, size: tuple[int, int], channels: int) -> Trace:
    """Trace the layers that the sources read, no further, once for each model and size."""

    def trace() -> Trace:
        modules = {name: model.get_submodule(name) for name in layers.runs}
        ends_early = all(layers.names)
        return trace_layers(model, modules, size, channels, stop_after=layers.runs if ends_early else None)

    return remembered(model, ("trace", layers.names, tuple(layers.runs.items()), size, channels), trace)


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
    cone = find_cone(wanted, trace, lambda size: _traced(model, layers, size, channels))
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
