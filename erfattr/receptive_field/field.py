"""Theoretical receptive field (TRF) of every layer of a model: which input pixels a unit can depend on.

The answer is read from the operators of one forward pass without data, not from a list of module types, so
residual sums, branches, concatenations and functional calls count as they are. Weights are never looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from erfattr._checks import check_positive_int, describe
from erfattr._model import device_and_dtype, find_layer, hooked, tensors_of, untouched
from erfattr.receptive_field._provenance import Axis, Entry, Provenance, Sets, source
from erfattr.receptive_field._tracing import Tracing

Unit = tuple[int, int]
Number = int | float


@dataclass(frozen=True)
class _Line:
    """What the units of a map have read along one axis of the input.

    ``ids`` is (height, width) or broadcasts to it and points into ``entries``; see :class:`Sets`.
    """

    ids: npt.NDArray[np.int64]
    entries: Sequence[Entry]
    length: int

    def entry(self, unit: Unit) -> Entry:
        return self.entries[
            int(self.ids[min(unit[0], len(self.ids) - 1), min(unit[1], self.ids.shape[1] - 1)])
        ]

    def local(self, unit: Unit) -> tuple[int, int]:
        """First and last index of the unit's own interval, in an image without borders."""
        low, virtual, real, _ = self.entry(unit)
        return (low, low + virtual.bit_length() - 1) if virtual else _extent(real)

    def bounds(self, unit: Unit) -> tuple[int, int]:
        low, virtual, real, mixed = self.entry(unit)
        if mixed or not virtual:
            return _extent(real)
        first, last = low, low + virtual.bit_length() - 1
        inside = _extent(real)
        return (min(first, inside[0]), max(last, inside[1])) if real else (first, last)

    def distinct(self) -> list[Entry]:
        return [self.entries[int(a)] for a in np.unique(self.ids)]

    def kind(self) -> str:
        entries = self.distinct()
        if any(mixed for *_, mixed in entries):
            return "whole image" if len({real for _, _, real, _ in entries}) == 1 else "position-dependent"
        if len({virtual for _, virtual, _, _ in entries}) > 1:
            return "position-dependent"
        if any(real & ~_shifted(virtual, low) for low, virtual, real, _ in entries):
            return "position-dependent"
        holes = any(virtual & (virtual + 1) or _holes(real) for _, virtual, real, _ in entries)
        return "upper bound" if holes else "exact"


def _extent(bits: int) -> tuple[int, int]:
    """First and last set bit; (0, -1), an empty interval, if there is none."""
    return ((bits & -bits).bit_length() - 1, bits.bit_length() - 1) if bits else (0, -1)


def _shifted(bits: int, low: int) -> int:
    return bits << low if low >= 0 else bits >> -low


def _holes(bits: int) -> bool:
    bits >>= max(_extent(bits)[0], 0)
    return bool(bits & (bits + 1))


def _indices(bits: int) -> tuple[int, ...]:
    return tuple(index for index, bit in enumerate(reversed(f"{bits:b}")) if bit == "1")


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels each unit of one layer can depend on at all.

    Rows and columns are treated apart: the pixels are those in a touched row *and* a touched column.
    Coordinates are (row, column), pixel centres are integers, the origin is the top left pixel.

    Attributes:
        layer: Dotted name of the layer, ``""`` for the model's output.
        input_size: (H, W) of the image.
        output_size: (height, width) of the layer's map; (1, 1) for an output of shape (N, K).
        size: (rows, columns) of the receptive field of the centre unit (height // 2, width // 2): its
            unclipped interval; or the rows and columns that it spans inside the image, where an operator that
            mixes positions takes part.
        local_size: The same without what came through operators that mix positions (the gates of
            squeeze-excite blocks, attention); equal to ``size`` where there are none.
        stride: Input rows and columns per step of the map; ``input_size`` for an output without positions.
        status: ``"exact"``: size and shape hold for every unit and every pixel of the box is touched.
            ``"upper bound"``: nothing outside the box is touched, but not all of it: there are holes, which
            :meth:`touched` shows, or the operators could not be understood.
            ``"whole image"``: every unit depends on all that the map depends on (along one axis at least; the
            note says which).
            ``"position-dependent"``: units differ by more than their place; ``size`` is that of the centre
            unit, ask :meth:`bounds` for others.
        method: ``"operators"`` or ``"nan probe"`` (see :func:`nan_probe`).
        unknown_operators: Names of the operators on the way that were not understood.
        note: The rest, in words; may be empty.
    """

    layer: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    size: tuple[int, int]
    local_size: tuple[int, int]
    stride: tuple[Number, Number]
    status: str
    method: str
    unknown_operators: tuple[str, ...]
    note: str
    _rows: _Line = field(repr=False, compare=False)
    _columns: _Line = field(repr=False, compare=False)

    def _check(self, unit: Any) -> Unit:
        if unit == "center":
            return self.output_size[0] // 2, self.output_size[1] // 2
        if not isinstance(unit, (tuple, list)) or len(unit) != 2 or not all(_is_int(value) for value in unit):
            raise TypeError(f'unit: expected (row, column) or "center", got {describe(unit)}')
        height, width = self.output_size
        if not (0 <= unit[0] < height and 0 <= unit[1] < width):
            raise ValueError(f"unit: expected a position in the {height} x {width} map, got {tuple(unit)}")
        return int(unit[0]), int(unit[1])

    def center(self, unit: Unit | str = "center") -> tuple[float, float]:
        """Return the pixel (y, x) that ``unit`` is centred on: the middle of its own unclipped interval.

        Operators that mix all positions do not move it. It may lie between pixels, or outside the image.

        Args:
            unit: (row, column) in the map, or ``"center"``.

        Raises:
            TypeError: ``unit`` is not a pair of integers.
            ValueError: ``unit`` lies outside the map.
        """
        unit = self._check(unit)
        rows, columns = self._rows.local(unit), self._columns.local(unit)
        return (rows[0] + rows[1]) / 2, (columns[0] + columns[1]) / 2

    def bounds(self, unit: Unit | str = "center", *, clipped: bool = False) -> tuple[int, int, int, int]:
        """Return (y0, x0, y1, x1) of the box that ``unit`` can depend on; both ends belong to it.

        Args:
            unit: (row, column) in the map, or ``"center"``.
            clipped: Give the box of the touched pixels inside the image. By default the box goes on beyond
                the borders (negative numbers are padding). A unit that saw nothing gives (0, 0, -1, -1).

        Raises:
            TypeError: ``unit`` is not a pair of integers.
            ValueError: ``unit`` lies outside the map.
        """
        unit = self._check(unit)
        if clipped:
            real = _touched(self._rows.entry(unit), self._columns.entry(unit))
            rows, columns = _extent(real[0]), _extent(real[1])
        else:
            rows, columns = self._rows.bounds(unit), self._columns.bounds(unit)
        return rows[0], columns[0], rows[1], columns[1]

    def touched(self, unit: Unit | str = "center") -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the rows and the columns of the image that ``unit`` really depends on, holes left out.

        Args:
            unit: (row, column) in the map, or ``"center"``.

        Raises:
            TypeError: ``unit`` is not a pair of integers.
            ValueError: ``unit`` lies outside the map.
        """
        unit = self._check(unit)
        rows, columns = _touched(self._rows.entry(unit), self._columns.entry(unit))
        return _indices(rows), _indices(columns)


def _touched(rows: Entry, columns: Entry) -> tuple[int, int]:
    """Real rows and columns of a unit; neither if it saw no pixel."""
    return (rows[2], columns[2]) if rows[2] and columns[2] else (0, 0)


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


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
    :func:`nan_probe` instead.

    It does not say how strongly a pixel counts: that is the effective receptive field, which is much smaller.
    A pixel counts as touched when an operator reads it, though its weight may be zero.

    Args:
        model: Any module that takes a batch of images (N, C, H, W). It may lie on the meta device.
        layer: Module or dotted name; ``None`` for the model's output. Of a layer that runs several times the
            last run counts.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.

    Returns:
        The receptive field. Layers in (N, H, W, C) order are recognised; an output of shape (N, K) counts as
        one unit.

    Raises:
        TypeError: ``layer`` is neither a module nor a name, ``model`` is not a module.
        ValueError: no such layer, it never ran, its output has no spatial map; ``input_size`` is not one or
            two positive integers; the model has no data (meta device) and the pass cannot be done without.

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
    size = _check_arguments(model, input_size, in_channels)
    if layer is None:
        name, module = "", model
    else:
        name, module = find_layer(model, layer)
    fields, problems = _receptive_fields(model, {name: module}, size, in_channels)
    if name in problems:
        raise ValueError(problems[name])
    return fields[name]


def receptive_fields(
    model: nn.Module,
    input_size: int | tuple[int, int] = (224, 224),
    *,
    in_channels: int = 3,
    probe: bool = True,
) -> dict[str, ReceptiveField]:
    """Return the receptive field of every layer with a spatial map, from one pass, in the order they finish.

    Args:
        model: As for :func:`theoretical_receptive_field`.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.
        probe: Ask :func:`nan_probe`, which takes H + W forward passes, about layers behind an operator that
            is not understood; otherwise these are left out.

    Returns:
        The fields by dotted name. Layers whose output is not spatial (token sequences, dictionaries of maps)
        or does not depend on the image are left out. The model's own output is under ``""``.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: bad ``input_size``, or a meta model that cannot be run without data.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3), torch.nn.MaxPool2d(2))
        >>> {name: rf.size for name, rf in receptive_fields(model, input_size=8).items()}
        {'0': (3, 3), '1': (4, 4), '': (4, 4)}
    """
    size = _check_arguments(model, input_size, in_channels)
    return _receptive_fields(model, dict(model.named_modules()), size, in_channels, probe)[0]


def total_stride(fields: Mapping[str, ReceptiveField]) -> tuple[int, int] | None:
    """Return the stride of the last layer that has positions: the period of the output's sensitivity map.

    Args:
        fields: What `receptive_fields` returned.

    Returns:
        (vertical, horizontal) in pixels; ``None`` where no layer has more than one position, or the stride is
        not a whole number.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3, stride=2), torch.nn.MaxPool2d(2))
        >>> total_stride(receptive_fields(model, input_size=16))
        (4, 4)
    """
    strides = [field.stride for field in fields.values() if max(field.output_size) > 1]
    if not strides or any(float(step) != int(step) for step in strides[-1]):
        return None
    return int(strides[-1][0]), int(strides[-1][1])


def _check_arguments(model: Any, input_size: Any, in_channels: Any) -> tuple[int, int]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {describe(model)}")
    check_positive_int("in_channels", in_channels)
    pair = (input_size, input_size) if _is_int(input_size) else input_size
    expected = "input_size: expected (H, W), two positive integers"
    if not isinstance(pair, (tuple, list, torch.Size)) or len(pair) != 2:
        raise ValueError(f"{expected}, got {describe(input_size)}")
    if not all(_is_int(value) and value > 0 for value in pair):
        raise ValueError(f"{expected}, got {describe(input_size)}")
    return int(pair[0]), int(pair[1])


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undo what a forward pass assigns to modules: caches would be left filled with NaN or without data."""
    saved = []
    for module in model.modules():
        inner = {
            key: dict(value)
            for key, value in vars(module).items()
            if key in ("_parameters", "_buffers", "_modules")
        }
        saved.append((module, dict(vars(module)), inner))
    try:
        yield
    finally:
        for module, attributes, inner in saved:
            vars(module).clear()
            vars(module).update(attributes)
            for key, value in inner.items():
                attributes[key].clear()
                attributes[key].update(value)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Undo what a forward pass writes into buffers."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


def _has_data(model: nn.Module) -> bool:
    return not any(tensor.is_meta for tensor in tensors_of(model))


def _only_tensor(output: Any) -> Tensor | None:
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return tensors[0] if len(tensors) == 1 else None


def _receptive_fields(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    size: tuple[int, int],
    in_channels: int,
    probe: bool = True,
) -> tuple[dict[str, ReceptiveField], dict[str, str]]:
    """The fields of all layers that have one, and for the others why not."""
    seen: dict[str, tuple[Provenance | None, tuple[int, ...]] | None] = {}
    tracing = Tracing()
    image = torch.empty(1, in_channels, *size, device="meta", dtype=device_and_dtype(model)[1])
    start = source(image.shape)
    tracing[image] = start

    def note(name: str, output: Any) -> None:
        tensor = _only_tensor(output)
        seen.pop(name, None)
        seen[name] = None if tensor is None else (tracing[tensor], tuple(tensor.shape))

    fields: dict[str, ReceptiveField] = {}
    problems: dict[str, str] = {}
    broken: Exception | None = None
    with untouched(model), torch.no_grad(), _attributes_kept(model), hooked(layers, note):
        try:
            with tracing:
                model(image)
        except Exception as error:  # the model may need data: whatever it is, the probe runs it for real
            broken = error
    if broken is None:
        for name in layers:
            if name not in seen:
                problems[name] = _never_ran(name, model)
        doubtful = {name for name, found in seen.items() if found and found[0] and found[0].unknown}
    else:
        doubtful = set(layers) - {
            name for name, found in seen.items() if found and found[0] and not found[0].unknown
        }
    if not probe:
        seen = {name: found for name, found in seen.items() if name not in doubtful}
        doubtful = set()
    has_data = _has_data(model)
    probed: dict[str, _Probe] = {}
    why = [f"the pass without data stopped at {tracing.last}: {broken}"] if broken is not None else []
    if broken is not None and not has_data and doubtful:
        raise ValueError(
            f"model: the forward pass of the {type(model).__name__} stopped at {tracing.last} ({broken}); "
            "a model on the meta device has no data to try again with"
        ) from broken
    if doubtful and has_data:
        wanted = {name: layers[name] for name in doubtful}
        last = [name for name, found in seen.items() if found and _is_channels_last(found[0])]
        probed, _ = _probe_layers(model, wanted, size, in_channels, channels_last=last)
    for name in [*seen, *(name for name in doubtful if name not in seen)]:
        found = seen.get(name)
        unknown = found[0].unknown if found and found[0] else (tracing.last,) if broken else ()
        if name in probed:
            fields[name] = _from_probe(name, probed[name], size, unknown, why)
            continue
        if name in doubtful and has_data:
            problems[name] = _not_spatial(name, None)
            continue
        if found is None or found[0] is None:
            problems[name] = _not_spatial(name, found[1] if found else None, constant=bool(found))
            continue
        field_or_none = _from_provenance(name, found[0], found[1], size)
        if field_or_none is None:
            problems[name] = _not_spatial(name, found[1])
        else:
            fields[name] = field_or_none
    return fields, problems


def _never_ran(name: str, model: nn.Module) -> str:
    return f"layer: {name!r} never ran in the forward pass of the {type(model).__name__}"


def _not_spatial(name: str, shape: tuple[int, ...] | None, *, constant: bool = False) -> str:
    what = f"layer {name!r}" if name else "the model's output"
    if constant:
        return f"layer: {what} does not depend on the image"
    came = "an output that is not one tensor" if shape is None else f"shape {shape}"
    return f"layer: expected {what} to give a spatial map (N, C, H, W), got {came}"


def _from_provenance(
    name: str, found: Provenance, shape: tuple[int, ...], size: tuple[int, int]
) -> ReceptiveField | None:
    """Read the map's units off the provenance of a layer's output, or ``None`` if it has no map."""
    dims: tuple[int, ...]
    if len(shape) == 4:
        channels_last = _is_channels_last(found)
        dims = (1, 2) if channels_last else (2, 3)
    elif len(shape) <= 2:
        channels_last, dims = False, ()
    else:
        return None
    height, width = (shape[dims[0]], shape[dims[1]]) if dims else (1, 1)

    def line(axis: Axis, length: int) -> _Line:
        others = [d for d in range(len(shape)) if d not in dims]
        ids = axis.sets.unite_along(axis.ids, others)
        return _Line(ids.reshape([ids.shape[d] for d in dims] or [1, 1]), axis.sets.entries, length)

    rows, columns = line(found.rows, size[0]), line(found.columns, size[1])
    jumps = found.rows.jump, found.columns.jump
    unit = (height // 2, width // 2)
    stride = tuple(
        _plain(jump) if dims and line.entry(unit)[1] else length
        for jump, line, length in zip(jumps, (rows, columns), size, strict=True)
    )
    notes = ["the output is in (N, H, W, C) order"] if channels_last else []
    kinds = (rows.kind(), columns.kind())
    return _describe(
        name,
        size,
        (height, width),
        (stride[0], stride[1]),
        (rows, columns),
        kinds,
        "operators",
        found.unknown,
        notes,
    )


def _is_channels_last(found: Provenance | None) -> bool:
    return found is not None and (found.rows.dim, found.columns.dim) == (1, 2)


def _plain(value: Fraction) -> Number:
    return int(value) if value.denominator == 1 else float(value)


def _describe(
    name: str,
    size: tuple[int, int],
    output_size: tuple[int, int],
    stride: tuple[Number, Number],
    lines: Sequence[_Line],
    kinds: tuple[str, str],
    method: str,
    unknown: tuple[str, ...],
    notes: list[str],
) -> ReceptiveField:
    unit = (output_size[0] // 2, output_size[1] // 2)
    rows, columns = lines
    if unknown and method == "operators":
        status = "upper bound"
        notes.append("operators that are not understood were taken to read everything before them")
    else:
        ranked = ("position-dependent", "whole image", "upper bound", "exact")
        status = next(kind for kind in ranked if kind in kinds)
        if status == "whole image" and kinds[0] != kinds[1]:
            notes.append(f"whole image along {'rows' if kinds[0] == status else 'columns'} only")
        if status == "position-dependent":
            notes.append(f"units differ by more than their place; size is that of unit {unit}")
    spans = [(line.bounds(unit), line.local(unit)) for line in (rows, columns)]
    for axis, line in (("rows", rows), ("columns", columns)):
        real = line.entry(unit)[2]
        first, last = _extent(real)
        if _holes(real):
            notes.append(
                f"the centre unit touches {real.bit_count()} of {last - first + 1} {axis} in its box"
            )
        every = 0
        for entry in line.distinct():
            every |= entry[2]
        unseen = line.length - every.bit_count()
        if unseen:
            notes.append(f"{unseen} of {line.length} {axis} of the image are read by no unit")
    return ReceptiveField(
        layer=name,
        input_size=size,
        output_size=output_size,
        size=(spans[0][0][1] - spans[0][0][0] + 1, spans[1][0][1] - spans[1][0][0] + 1),
        local_size=(spans[0][1][1] - spans[0][1][0] + 1, spans[1][1][1] - spans[1][1][0] + 1),
        stride=stride,
        status=status,
        method=method,
        unknown_operators=unknown,
        note="; ".join(notes),
        _rows=rows,
        _columns=columns,
    )


@dataclass(frozen=True)
class _Probe:
    """Which poisoned rows and columns turned which units NaN: (H, height, width) and (W, height, width)."""

    rows: npt.NDArray[np.bool_]
    columns: npt.NDArray[np.bool_]


def _probe_layers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    size: tuple[int, int],
    in_channels: int,
    *,
    batch_size: int = 1,
    channels_last: Collection[str] = (),
) -> tuple[dict[str, _Probe], dict[str, str]]:
    device, dtype = device_and_dtype(model)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, in_channels, *size, generator=generator).to(device=device, dtype=dtype)
    problems: dict[str, str] = {}
    hits: dict[str, list[list[Tensor]]] = {}

    def poisoned(images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = {}

        def note(name: str, output: Any) -> None:
            tensor = _only_tensor(output)
            if tensor is None or tensor.ndim not in (2, 4):
                problems[name] = _not_spatial(name, None if tensor is None else tuple(tensor.shape))
                return
            if tensor.shape[0] != len(images):
                raise ValueError(
                    f"batch_size: {len(images)} images gave {tensor.shape[0]} outputs at {name!r}; "
                    "use batch_size=1"
                )
            nan = tensor.isnan().any(3 if name in channels_last else 1).cpu()
            maps[name] = nan if tensor.ndim == 4 else nan[:, None, None]

        with hooked(layers, note):
            model(images)
        return maps

    with untouched(model), torch.no_grad(), _attributes_kept(model), _buffers_kept(model):
        for name, nan in poisoned(clean).items():
            if nan.any():
                raise ValueError(
                    f"model: {name or 'the output'!r} is NaN for an image without NaN; nothing to probe"
                )
            hits[name] = [[], []]
        for axis, length in enumerate(size):
            for start in range(0, length, batch_size):
                indices = torch.arange(start, min(start + batch_size, length))
                images = clean.repeat(len(indices), 1, 1, 1)
                for image, index in zip(images, indices, strict=True):
                    image.select(1 + axis, int(index)).fill_(torch.nan)
                for name, nan in poisoned(images).items():
                    hits[name][axis].append(nan)
    for name in layers:
        if name not in hits and name not in problems:
            problems[name] = _never_ran(name, model)
    probes = {
        name: _Probe(torch.cat(rows).numpy(), torch.cat(columns).numpy())
        for name, (rows, columns) in hits.items()
    }
    return probes, problems


def _from_probe(
    name: str, probe: _Probe, size: tuple[int, int], unknown: tuple[str, ...] = (), why: Sequence[str] = ()
) -> ReceptiveField:
    height, width = probe.rows.shape[1:]
    lines, strides = [], []
    for table, length, axis in ((probe.rows, size[0], 0), (probe.columns, size[1], 1)):
        sets = Sets()
        packed = np.packbits(table.reshape(length, -1), axis=0, bitorder="little")
        patterns, where = np.unique(packed, axis=1, return_inverse=True)
        bits = [int.from_bytes(pattern.tobytes(), "little") for pattern in patterns.T]
        ids = np.array([sets.intern(0, value, value, 0) for value in bits], dtype=np.int64)[where.ravel()]
        ids = ids.reshape(height, width)
        line = _Line(ids, sets.entries, length)
        lines.append(line)
        middle = ids[:, width // 2] if axis == 0 else ids[height // 2]
        spans = [_extent(sets.entries[int(a)][2]) for a in middle]
        inner = [
            (b[0] + b[1] - a[0] - a[1]) / 2
            for a, b in itertools.pairwise(spans)
            if min(a[0], b[0]) > 0 and max(a[1], b[1]) < length - 1
        ]
        step = float(np.median(inner)) if inner else length / len(middle)
        strides.append(int(step) if step == int(step) else step)
    notes = [*why, "measured with NaN inside the image: boxes are clipped at its borders"]
    kinds = (_probed_kind(lines[0], (height, width)), _probed_kind(lines[1], (height, width)))
    return _describe(
        name, size, (height, width), (strides[0], strides[1]), lines, kinds, "nan probe", unknown, notes
    )


def _probed_kind(line: _Line, output_size: tuple[int, int]) -> str:
    """Status along one axis from clipped sets: units that reach the border show less than they would."""
    reads = {real for _, _, real, _ in line.distinct()}
    if reads == {(1 << line.length) - 1}:
        return "whole image"
    inner = {
        real >> _extent(real)[0] for real in reads if real and real & 1 == 0 and not real >> (line.length - 1)
    }
    centre = line.entry((output_size[0] // 2, output_size[1] // 2))[2]
    if len(inner) != 1 or centre == 0 or centre >> _extent(centre)[0] not in inner:
        return "position-dependent"
    (pattern,) = inner
    longest = max(_extent(real)[1] - _extent(real)[0] for real in reads if real) + 1
    if longest > pattern.bit_length():
        return "position-dependent"
    return "upper bound" if any(_holes(real) for real in reads) else "exact"


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
        model: As for :func:`theoretical_receptive_field`, with data.
        layer: Module or dotted name; ``None`` for the model's output.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.
        batch_size: Images in one forward pass. More than one assumes that images do not see each other.
        channels_last: The layer's output is (N, H, W, C).

    Returns:
        The receptive field, with ``method="nan probe"``. ``status`` is ``"exact"`` only if some units, the
        centre one among them, do not reach the image's border.

    Raises:
        TypeError: ``model`` is not a module, ``layer`` neither a module nor a name.
        ValueError: no such layer, it never ran, its output has no spatial map or is NaN for a clean image;
            bad ``input_size``; several images of a batch came out as one; a model on the meta device.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3, dilation=2), torch.nn.Conv2d(1, 1, 1))
        >>> nan_probe(model, input_size=8).touched((0, 1))
        ((0, 2, 4), (1, 3, 5))
    """
    size = _check_arguments(model, input_size, in_channels)
    check_positive_int("batch_size", batch_size)
    if not _has_data(model):
        raise ValueError("model: expected a model with data, got one on the meta device")
    name, module = ("", model) if layer is None else find_layer(model, layer)
    last = [name] if channels_last else []
    probes, problems = _probe_layers(
        model, {name: module}, size, in_channels, batch_size=batch_size, channels_last=last
    )
    if name in problems:
        raise ValueError(problems[name])
    return _from_probe(name, probes[name], size)
