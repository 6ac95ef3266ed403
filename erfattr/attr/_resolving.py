"""What the sources read, found on one image, or on a part of one that is large, and remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from erfattr._checks import Rectify
from erfattr.attr._crop import Unit, around, find_cone
from erfattr.attr._first_pass import FirstPass, Layers, first_pass, resolved_again
from erfattr.attr._gradients import Batch, GradientPlan
from erfattr.attr._memory import remembered
from erfattr.attr.sources import Source
from erfattr.receptive_field.field import ReceptiveField
from erfattr.receptive_field.trace import Trace, trace_layers

# Pixels from which on the whole image is only run where a part does not do: a megapixel.
_LARGE = 1 << 20


def is_large(size: tuple[int, int]) -> bool:
    """Whether an image (H, W) is so large that as little of it is to be run as can be."""
    return size[0] * size[1] >= _LARGE


def first_of_few(
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


def resolved(
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


def resolved_on_part(
    model: nn.Module, sources: Sequence[Source], rectify: Rectify, image: Batch
) -> tuple[GradientPlan, Layers] | None:
    """Resolve the sources on a part of a large image that holds all they see; ``None``: none is proven to.

    A pass over the whole image shows nothing more of a layer that only sees some pixels, and its maps before
    the first stride may not fit into memory.
    """
    size = (image.images.shape[2], image.images.shape[3])
    channels = image.images.shape[1]
    names = [name for name in (source.layer_in(model) for source in sources) if name]
    if image.extra or not is_large(size) or len(names) < len(sources):
        return None
    modules = {name: model.get_submodule(name) for name in names}

    def at_size(size: tuple[int, int]) -> Trace:
        key = ("trace", tuple(names), size, channels)
        return remembered(model, key, lambda: trace_layers(model, modules, size, channels))

    whole = at_size(size)
    wanted = [
        (name, _unit_of(source, whole.fields.get(name))) for name, source in zip(names, sources, strict=True)
    ]
    known = [(name, unit) for name, unit in wanted if unit is not None]
    if len(known) < len(sources):
        return None
    cone = find_cone(known, whole, at_size)
    wide = None if cone is None else around(cone, known, whole, at_size)
    if wide is None:
        return None
    inside = [source.at(name, unit) for source, name, unit in zip(sources, names, wide.units, strict=True)]
    moved = [source for source in inside if source is not None]
    if len(moved) < len(sources):
        return None
    try:
        part = image._replace(images=wide.of(image.images))
        plan, layers = resolved(model, moved, rectify, part, None)
    except Exception:  # whatever a later layer raises at another size; the whole image will tell
        return None
    of_whole = [
        replace(
            source,
            described=replace(
                source.described, unit=unit, feature_size=whole.fields[name].output_size, input_size=size
            ),
        )
        for source, (name, unit) in zip(plan.sources, known, strict=True)
    ]
    return replace(plan, sources=of_whole), layers


def _unit_of(source: Source, field: ReceptiveField | None) -> Unit | None:
    """Return the source's unit in a map that the trace has followed; ``None``: there is none inside."""
    unit = None if field is None else source.unit_in(field.output_size)
    if field is None or unit is None:
        return None
    inside = all(0 <= index < length for index, length in zip(unit, field.output_size, strict=True))
    return unit if inside else None


def traced(model: nn.Module, layers: Layers, size: tuple[int, int], channels: int) -> Trace:
    """Trace the layers that the sources read, no further, once for each model and size."""

    def trace() -> Trace:
        modules = {name: model.get_submodule(name) for name in layers.runs}
        ends_early = all(layers.names)
        return trace_layers(model, modules, size, channels, stop_after=layers.runs if ends_early else None)

    return remembered(model, ("trace", layers.names, tuple(layers.runs.items()), size, channels), trace)
