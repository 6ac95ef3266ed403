"""Theoretical receptive field (TRF) of every layer of a model: which input pixels a unit can depend on.

The answer is read from the operators of one forward pass without data, not from a list of module types, so
residual sums, branches, concatenations and functional calls count as they are. Weights are never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from erfattr._model import (
    attributes_kept,
    device_and_dtype,
    find_layer,
    hooked,
    other_dimensions,
    refuse_compiled_layer,
    untouched,
    watchable,
)
from erfattr.receptive_field._calls import Calls, Noted
from erfattr.receptive_field._fields import FieldReader, LayerOutput
from erfattr.receptive_field._folds import Readers
from erfattr.receptive_field._passes import (
    check_arguments,
    has_data,
    never_ran,
    not_spatial,
    only_tensor,
)
from erfattr.receptive_field._place_tracking import PlaceTracker
from erfattr.receptive_field._places import of_images
from erfattr.receptive_field._provenance import source
from erfattr.receptive_field._tracing import Tracing
from erfattr.receptive_field.field import ReceptiveField, ReceptiveFields, whole_stride
from erfattr.receptive_field.nan_probe import Probe, field_from_probe, probe_layers

# What the trace does not understand is measured, unless it would take longer than this many seconds.
_PROBED_FOR = 20.0


def theoretical_receptive_field(
    model: nn.Module,
    layer: nn.Module | str | None = None,
    input_size: int | tuple[int, int] = (224, 224),
    *,
    in_channels: int = 3,
) -> ReceptiveField:
    """Return the receptive field of one layer: the pixels its units can depend on, whatever the weights.

    Through a window of size k, stride s and dilation d the size grows by d (k - 1) times the stride so far,
    and the stride by the factor s; paths that meet unite their intervals. The model runs once on tensors
    without data. An operator that is not understood is named in the result and the answer comes from
    `erfattr.receptive_field.nan_probe.nan_probe` instead, where that takes seconds.

    It does not say how strongly a pixel counts: that is the effective receptive field, which is much smaller.
    A pixel counts as touched when an operator reads it, though its weight may be zero.

    Args:
        model: Any module that takes a batch of images (N, C, H, W). It may lie on the meta device.
        layer: Module or dotted name; ``None`` for the model's output. Of a layer that runs several times the
            last run counts.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.

    Returns:
        The receptive field. The layout of the layer's output, (N, H, W, C) or tokens too, is followed
        through the network and stands in the note; an output of shape (N, K) counts as one unit.

    Raises:
        TypeError: ``layer`` is neither a module nor a name, ``model`` is not a module.
        ValueError: no such layer, it never ran, its output has no spatial map; ``input_size`` is not one or
            two positive integers; the model has no data (meta device) and the pass cannot be done without, or
            it has and measuring takes long.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3), torch.nn.MaxPool2d(2))
        >>> rf = theoretical_receptive_field(model, input_size=(10, 10))
        >>> rf.size, rf.stride, rf.center((0, 0)), rf.bounds((3, 3)), rf.status
        ((4, 4), (2, 2), (1.5, 1.5), (6, 6, 9, 9), 'exact')

    References:
        A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural Networks",
        Distill, 2019.
    """
    size = check_arguments(model, input_size, in_channels)
    if layer is None:
        name, module = "", model
    else:
        name, module = find_layer(model, layer)
        refuse_compiled_layer(model, name)
    fields, problems = _traced_or_probed(model, {name: module}, size, in_channels)
    if name in problems:
        raise ValueError(problems[name])
    return fields[name]


def receptive_fields(
    model: nn.Module,
    input_size: int | tuple[int, int] = (224, 224),
    *,
    in_channels: int = 3,
    probe: bool = True,
) -> ReceptiveFields:
    """Return the receptive field of every layer with a spatial map, from one pass, in the order they finish.

    Args:
        model: As for :func:`theoretical_receptive_field`.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.
        probe: Ask `erfattr.receptive_field.nan_probe.nan_probe`, which takes H + W forward passes, about
            layers behind an operator that is not understood, unless that would take more than 20 seconds;
            otherwise these are left out.

    Returns:
        The fields by dotted name, a dict that shows itself. Layers whose output is no map (windows of one,
        attention weights, dictionaries of maps) or does not depend on the image are left out. The model's own
        output is under ``""``.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: bad ``input_size``, or a meta model that cannot be run without data.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.MaxPool2d(2))
        >>> {name: rf.size for name, rf in receptive_fields(model, input_size=8).items()}
        {'0': (3, 3), '1': (4, 4), '': (4, 4)}
    """
    size = check_arguments(model, input_size, in_channels)
    refuse_compiled_layer(model, "")
    return ReceptiveFields(_traced_or_probed(model, watchable(model), size, in_channels, probe)[0])


@dataclass(frozen=True)
class Trace:
    """What one pass as far as some layers shows.

    Attributes:
        fields: The fields of the layers asked for, by name, in the order they finish.
        problems: Why the others of them have none, in words.
        strides: The distinct strides, (vertical, horizontal) in whole pixels, of all layers that finish up to
            the last of those asked for.
        folds: Names of a convolution and of the batch normalisation that alone reads its output, where both
            run once and nothing else uses their weights: the second can be folded into the first.
        operators: What ran up to the last of the layers asked for, as `Calls` notes it.
    """

    fields: dict[str, ReceptiveField]
    problems: dict[str, str]
    strides: tuple[tuple[int, int], ...]
    folds: tuple[tuple[str, str], ...]
    operators: tuple[Noted, ...]


def trace_layers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    size: tuple[int, int],
    in_channels: int,
    *,
    stop_after: Mapping[str, int] | None = None,
) -> Trace:
    """Trace a model as far as some layers. It is never probed: a layer that cannot be followed is left out.

    Args:
        model: Any module that takes a batch of images (N, C, H, W). It may lie on the meta device.
        layers: The layers, by a name of the caller's choice.
        size: (H, W) of the image.
        in_channels: C of the image.
        stop_after: How often each of ``layers`` runs in one forward pass. With it the pass ends as soon as
            the last of them has run.
    """
    every = {**watchable(model), **layers}
    walk = _walk(model, every, size, in_channels, stop_after, Readers(model))
    reader = FieldReader(size)
    fields: dict[str, ReceptiveField] = {}
    problems: dict[str, str] = {}
    for name in [name for name in walk.finished if name in layers]:
        output = walk.finished[name]
        unknown = output.provenance.unknown if output.provenance else ()
        if unknown:
            problems[name] = f"layer: {name!r} lies behind {', '.join(unknown)}, which is not understood"
        elif (found := reader.field(name, output)) is not None:
            fields[name] = found
        else:
            problems[name] = _no_field(name, output)
    for name in layers:
        if name not in walk.finished:
            why = f"the pass without data stopped at {walk.stopped_at}: {walk.error}"
            problems[name] = (
                never_ran(name, model) if walk.error is None else f"layer: {name!r} not reached: {why}"
            )
    names = list(walk.finished)
    last = max((names.index(name) for name in layers if name in walk.finished), default=-1)
    strides = {reader.stride(walk.finished[name]) for name in names[: last + 1]}
    whole = {whole_stride(stride) for stride in strides if stride is not None}
    strides_of_all = tuple(sorted(stride for stride in whole if stride is not None))
    ran = walk.operators[
        : max((walk.ran_until[name] for name in layers if name in walk.ran_until), default=0)
    ]
    return Trace(fields, problems, strides_of_all, walk.folds, tuple(ran))


class _Enough(BaseException):
    """Ends the pass once all layers that are wanted have run.

    Not an ``Exception``: a model that catches those must not swallow it.
    """


@dataclass(frozen=True)
class _Walk:
    """One pass without data.

    Attributes:
        finished: The last output of each layer, in the order they finished.
        error: What the model raised, if it did not come to an end.
        stopped_at: The operator that ran last.
        folds: See `Trace`.
        operators: See `Trace`; all of the pass.
        ran_until: How many of them had run when each layer finished.
    """

    finished: dict[str, LayerOutput]
    error: Exception | None
    stopped_at: str
    folds: tuple[tuple[str, str], ...]
    operators: list[Noted]
    ran_until: dict[str, int]


def _walk(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    size: tuple[int, int],
    in_channels: int,
    stop_after: Mapping[str, int] | None = None,
    readers: Readers | None = None,
) -> _Walk:
    """Run the model without data and note what ``layers`` give; end where ``stop_after`` is reached."""
    finished: dict[str, LayerOutput] = {}
    places = PlaceTracker()
    ran_until: dict[str, int] = {}

    def watch(operator: str, bound: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        if readers is not None:
            readers.read(operator, bound, tensors)
            calls.note(operator, bound, tensors)

    tracing = Tracing(watch, places)
    calls = Calls(model, lambda tensor: tracing[tensor] is not None)
    image = torch.empty(1, in_channels, *size, device="meta", dtype=device_and_dtype(model)[1])
    tracing[image] = source(image.shape)
    places[image] = of_images(image.shape)
    left = dict(stop_after or {})
    watched = readers.modules if readers is not None else {}

    def note(name: str, output: Any) -> None:
        if readers is not None and name in watched and layers[name] is watched[name]:
            readers.finished(name, output)
        tensor = only_tensor(output)
        # Of a layer that runs several times the last run counts, and its place in the order too.
        finished.pop(name, None)
        ran_until[name] = len(calls.noted)
        finished[name] = (
            LayerOutput(None, None)
            if tensor is None
            else LayerOutput(tuple(tensor.shape), tracing[tensor], places[tensor])
        )
        if name in left:
            left[name] -= 1
            if max(left.values()) <= 0:
                raise _Enough

    error: Exception | None = None
    folds: tuple[tuple[str, str], ...] = ()
    with untouched(model), torch.no_grad(), attributes_kept(model), hooked(layers, note):
        result = None  # held while it is asked for the folds: what is returned is read by the caller
        tracing.follow_recurrent(model)
        try:
            with tracing:
                result = model(image)
        except _Enough:
            pass
        except Exception as raised:  # the model may need data: whatever it is, running it for real will tell
            error = raised
        if readers is not None and error is None:
            folds = readers.folds()
        del result
    return _Walk(finished, error, tracing.last, folds, calls.noted, ran_until)


def _traced_or_probed(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    size: tuple[int, int],
    in_channels: int,
    probe: bool = True,
) -> tuple[dict[str, ReceptiveField], dict[str, str]]:
    """The fields of all layers that have one, and for the others why not."""
    walk = _walk(model, layers, size, in_channels)
    finished, error = walk.finished, walk.error
    other = None if error is None else other_dimensions(model)
    if other is not None:
        raise ValueError(other) from error
    problems = {name: never_ran(name, model) for name in layers if name not in finished and error is None}
    if error is None:
        doubtful = [
            name for name, output in finished.items() if output.provenance and output.provenance.unknown
        ]
    else:
        doubtful = [
            name
            for name in [*finished, *(name for name in layers if name not in finished)]
            if not (name in finished and (found := finished[name].provenance) and not found.unknown)
        ]
    if not probe:
        finished = {name: output for name, output in finished.items() if name not in doubtful}
        doubtful = []
    if error is not None and doubtful and not has_data(model):
        raise ValueError(
            f"model: the forward pass of the {type(model).__name__} stopped at {walk.stopped_at} ({error}); "
            "a model on the meta device has no data to try again with"
        ) from error
    probed: dict[str, Probe] = {}
    if doubtful and has_data(model):
        wanted = {name: layers[name] for name in doubtful}
        probed, unprobed = probe_layers(model, wanted, size, in_channels, most_seconds=_PROBED_FOR)
        problems |= unprobed
    reader = FieldReader(size)
    why = [] if error is None else [f"the pass without data stopped at {walk.stopped_at}: {error}"]
    fields: dict[str, ReceptiveField] = {}
    for name in [*finished, *(name for name in doubtful if name not in finished)]:
        if name in probed:
            known = finished[name].provenance if name in finished else None
            unknown = known.unknown if known else (walk.stopped_at,) if error else ()
            fields[name] = field_from_probe(name, probed[name], size, unknown, why)
        elif name not in problems:
            field = reader.field(name, finished[name])
            if field is None:
                problems[name] = _no_field(name, finished[name])
            else:
                fields[name] = field
    return fields, problems


def _no_field(name: str, output: LayerOutput) -> str:
    constant = output.shape is not None and output.provenance is None
    return not_spatial(name, output.shape, constant=constant)
