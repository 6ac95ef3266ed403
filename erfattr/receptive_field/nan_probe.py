"""Measure a receptive field with NaN: slow, but without an understanding of the operators."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from typing_extensions import override

from erfattr._checks import check_positive_int
from erfattr._model import (
    attributes_kept,
    buffers_kept,
    device_and_dtype,
    find_layer,
    hooked,
    untouched,
    watchable,
)
from erfattr.receptive_field._choices import Choices
from erfattr.receptive_field._description import described
from erfattr.receptive_field._dispatch import Watching
from erfattr.receptive_field._lines import Line, extent, has_holes
from erfattr.receptive_field._passes import (
    check_arguments,
    has_data,
    never_ran,
    not_spatial,
    only_tensor,
)
from erfattr.receptive_field._place_tracking import PlaceTracker, PlaceTracking
from erfattr.receptive_field._places import of_images
from erfattr.receptive_field._rules import base_name
from erfattr.receptive_field._sets import Sets
from erfattr.receptive_field.field import ReceptiveField
from erfattr.receptive_field.layout import Layout, layout_of


def nan_probe(
    model: nn.Module,
    layer: nn.Module | str | None = None,
    input_size: int | tuple[int, int] = (224, 224),
    *,
    in_channels: int = 3,
    batch_size: int = 1,
    channels_last: bool = False,
) -> ReceptiveField:
    """Measure the receptive field: set a row or column of the image to NaN and see which units turn NaN.

    Takes H + W images through the real model. Boxes end at the image's borders. Operators that swallow NaN
    (comparisons, ``nan_to_num``) hide a dependence from it.

    Args:
        model: Any module that takes a batch of images (N, C, H, W), with data.
        layer: Module or dotted name; ``None`` for the model's output.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.
        batch_size: Images in one forward pass. More than one assumes that images do not see each other.
        channels_last: The layer's output is (N, H, W, C). By default it is followed where rows, columns and
            channels go.

    Returns:
        The receptive field, with ``method="nan probe"``. ``status`` is ``"exact"`` only if some units, the
        centre one among them, do not reach the image's border.

    Raises:
        TypeError: ``model`` is not a module, ``layer`` neither a module nor a name.
        ValueError: no such layer, it never ran, its output has no spatial map or is NaN for a clean image;
            bad ``input_size``; several images of a batch came out as one; a model on the meta device; where
            the layer reads, or which layers run, depends on the values (deformable convolutions, say).

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3, dilation=2), torch.nn.Conv2d(1, 1, 1))
        >>> nan_probe(model, input_size=8).touched((0, 1))
        ((0, 2, 4), (1, 3, 5))
    """
    size = check_arguments(model, input_size, in_channels)
    check_positive_int("batch_size", batch_size)
    if not has_data(model):
        raise ValueError("model: expected a model with data, got one on the meta device")
    name, module = ("", model) if layer is None else find_layer(model, layer)
    layouts = {name: Layout((0, 3, 1, 2), (0, 0))} if channels_last else {}
    probes, problems = probe_layers(
        model, {name: module}, size, in_channels, batch_size=batch_size, layouts=layouts
    )
    if name in problems:
        raise ValueError(problems[name])
    return field_from_probe(name, probes[name], size)


# Operators that read where some of their operands' values say: NaN there is an address outside of memory.
_ADDRESSING = {
    "deform_conv2d", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "max_unpool2d", "max_unpool3d",
}  # fmt: skip


class _AddressError(Exception):
    """An operator reads where values say."""


class _Addresses(Watching):
    """Stops a pass before an operator that takes values for addresses."""

    @override
    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(func, OpOverload) and base_name(func) in _ADDRESSING:
            raise _AddressError(f"where {func._schema.name} reads depends on the values")
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Probe:
    """Which poisoned rows and columns turned which units NaN: (H, height, width) and (W, height, width).

    ``chosen_by`` names an operator before which NaN may have ended, because values choose there.
    """

    rows: npt.NDArray[np.bool_]
    columns: npt.NDArray[np.bool_]
    chosen_by: str = ""


def probe_layers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    size: tuple[int, int],
    in_channels: int,
    *,
    batch_size: int = 1,
    layouts: Mapping[str, Layout] | None = None,
    most_seconds: float | None = None,
) -> tuple[dict[str, Probe], dict[str, str]]:
    """Probe several layers at once; the second dict says of the others why they have no probe.

    Where more than ``most_seconds`` are to be expected, nothing is probed.
    """
    device, dtype = device_and_dtype(model)
    # A generator of its own: the caller's random numbers stay as they are.
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, in_channels, *size, generator=generator).to(device=device, dtype=dtype)
    problems: dict[str, str] = {}
    hits: dict[str, list[list[Tensor]]] = {}

    every = {f"{name}.": module for name, module in watchable(model).items()}
    way: list[str] = []
    known = dict(layouts or {})
    tracker = PlaceTracker()
    choices = Choices(clean)
    chosen: dict[str, str] = {}

    def poisoned(images: Tensor) -> dict[str, Tensor]:
        """Return where each layer is NaN, of those that run before anything stops the pass."""
        maps: dict[str, Tensor] = {}
        way.clear()

        def note(name: str, output: Any) -> None:
            tensor = only_tensor(output)
            if tensor is not None and images is clean and name not in known:
                layout = layout_of(tracker[tensor], tensor.shape)
                if layout is not None:
                    known[name] = layout
            if tensor is None or (tensor.ndim not in (2, 4) and name not in known):
                problems[name] = not_spatial(name, None if tensor is None else tuple(tensor.shape))
                return
            if tensor.shape[0] != len(images):
                raise ValueError(
                    f"batch_size: {len(images)} images gave {tensor.shape[0]} outputs at {name!r}; "
                    "use batch_size=1"
                )
            if images is clean:
                chosen[name] = choices.chosen_by(tensor)
            nan = tensor.isnan()
            nan = (known[name].to_spatial(nan) if name in known else nan).any(1).cpu()
            maps[name] = nan if nan.ndim == 3 else nan[:, None, None]

        with hooked(every, lambda name, _: way.append(name)), hooked(layers, note):
            try:
                with _Addresses():
                    model(images)
            except _AddressError as error:
                stopped.setdefault("why", str(error))
            except (IndexError, AssertionError, RuntimeError) as error:
                # Of a clean image the model's own error is the caller's to see.
                if images is clean:
                    raise
                stopped.setdefault("why", f"the model stops at NaN: {error}")
        return maps

    stopped: dict[str, str] = {}
    with untouched(model), torch.no_grad(), attributes_kept(model), buffers_kept(model):
        tracker[clean] = of_images(clean.shape)
        with PlaceTracking(tracker), choices:
            maps = poisoned(clean)
        if most_seconds is not None:
            begun = time.perf_counter()
            model(clean)
            expected = (time.perf_counter() - begun) * sum(size)
            if expected > most_seconds:
                why = (
                    f"layer: an operator before it is not understood, and to measure it would take about "
                    f"{expected:.0f} seconds; nan_probe does it"
                )
                return {}, {**dict.fromkeys(layers, why), **problems}
        for name, nan in maps.items():
            if nan.any():
                raise ValueError(
                    f"model: {name or 'the output'!r} is NaN for an image without NaN; nothing to probe"
                )
            hits[name] = [[], []]
        clean_way = list(way)
        for axis, length in enumerate(size):
            for start in range(0, length, batch_size):
                indices = torch.arange(start, min(start + batch_size, length))
                images = clean.repeat(len(indices), 1, 1, 1)
                for image, index in zip(images, indices, strict=True):
                    image.select(1 + axis, int(index)).fill_(torch.nan)
                maps = poisoned(images)
                if way != clean_way and not stopped:
                    stopped["why"] = "which layers run depends on the values"
                    maps = {}
                for name in set(hits) - set(maps):
                    del hits[name]
                for name, nan in maps.items():
                    if name in hits:
                        hits[name][axis].append(nan)
    for name in layers:
        if name not in hits and name not in problems:
            problems[name] = (
                f"layer: the receptive field of {name or 'the output'!r} cannot be known: {stopped['why']}"
                if stopped
                else never_ran(name, model)
            )
    probes = {
        name: Probe(torch.cat(rows).numpy(), torch.cat(columns).numpy(), chosen.get(name, ""))
        for name, (rows, columns) in hits.items()
    }
    return probes, problems


def field_from_probe(
    name: str, probe: Probe, size: tuple[int, int], unknown: tuple[str, ...] = (), why: Sequence[str] = ()
) -> ReceptiveField:
    """Return the field that a probe shows; ``why`` goes into the note."""
    height, width = probe.rows.shape[1:]
    lines, strides = [], []
    for table, length, axis in ((probe.rows, size[0], 0), (probe.columns, size[1], 1)):
        sets = Sets()
        # Bit b of a unit's pattern says whether pixel b turned it NaN: one whole number, whatever the length.
        packed = np.packbits(table.reshape(length, -1), axis=0, bitorder="little")
        patterns, where = np.unique(packed, axis=1, return_inverse=True)
        bits = [int.from_bytes(pattern.tobytes(), "little") for pattern in patterns.T]
        ids = np.array([sets.intern(0, value, value, 0) for value in bits], dtype=np.int64)[where.ravel()]
        ids = ids.reshape(height, width)
        line = Line(ids, sets.entries, length)
        lines.append(line)
        middle = ids[:, width // 2] if axis == 0 else ids[height // 2]
        spans = [extent(sets.entries[int(a)].real) for a in middle]
        # The stride is how far neighbours' middles are apart, where neither touches the image's border.
        moves = [
            (b[0] + b[1] - a[0] - a[1]) / 2
            for a, b in itertools.pairwise(spans)
            if min(a[0], b[0]) > 0 and max(a[1], b[1]) < length - 1
        ]
        step = float(np.median(moves)) if moves else length / len(middle)
        strides.append(int(step) if step == int(step) else step)
    notes = [*why, "measured with NaN inside the image: boxes are clipped at its borders"]
    kinds = (_probed_kind(lines[0], (height, width)), _probed_kind(lines[1], (height, width)))
    field = described(
        name,
        size,
        (height, width),
        (strides[0], strides[1]),
        (lines[0], lines[1]),
        kinds,
        method="nan probe",
        unknown=unknown,
        notes=notes,
    )
    if not probe.chosen_by or field.status == "whole image":
        return field
    # NaN is neither larger nor smaller than anything: a choice between values does not hand it on.
    why_not_all = f"values choose at {probe.chosen_by}, where NaN may end: more may be read than was seen"
    return replace(field, status="lower bound", note="; ".join(filter(None, (why_not_all, field.note))))


def _probed_kind(line: Line, output_size: tuple[int, int]) -> str:
    """Status along one axis from clipped sets: units that reach the border show less than they would."""
    reads = {entry.real for entry in line.distinct()}
    if reads == {(1 << line.length) - 1}:
        return "whole image"
    # What the units inside have read, moved to begin at 0: one and the same pattern, if all are alike.
    inner = {
        real >> extent(real)[0] for real in reads if real and real & 1 == 0 and not real >> (line.length - 1)
    }
    centre = line.entry((output_size[0] // 2, output_size[1] // 2)).real
    if len(inner) != 1 or centre == 0 or centre >> extent(centre)[0] not in inner:
        return "position-dependent"
    (pattern,) = inner
    longest = max(extent(real)[1] - extent(real)[0] for real in reads if real) + 1
    if longest > pattern.bit_length():
        return "position-dependent"
    return "upper bound" if any(has_holes(real) for real in reads) else "exact"
