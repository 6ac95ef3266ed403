"""What one pass without data shows of the operators on the way: their strides, and which see the whole image.

A layer's own stride is not enough to know where a network repeats: one that goes back up to the image's size
has stride 1 at its end, and a functional pooling is no layer at all. So each operator is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from erfattr._model import attributes_kept, device_and_dtype, untouched, watchable
from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._operators.registry import Call, Results, results
from erfattr.receptive_field._passes import check_arguments, only_tensor
from erfattr.receptive_field._place_tracking import PlaceTracker
from erfattr.receptive_field._places import of_images
from erfattr.receptive_field._provenance import Provenance, source
from erfattr.receptive_field._tracing import Tracing

# A stride that is no whole number is a ratio of the sizes of two maps.
_LARGEST_DENOMINATOR = 4096


@dataclass(frozen=True)
class SeenOperator:
    """An operator that a layer called.

    Attributes:
        layer: Dotted name of the innermost module that was running, ``""`` for the model itself.
        kind: That module's class.
        operator: The operator's name.
    """

    layer: str
    kind: str
    operator: str

    def __str__(self) -> str:
        return f"{self.operator} in {repr(self.layer) if self.layer else 'forward'} ({self.kind})"


@dataclass(frozen=True)
class OperatorsSeen:
    """What one pass shows of the operators between the image and the output.

    Attributes:
        output_shape: Shape of the output for one image.
        period: After how many rows and columns all strides on the way repeat: the least common multiple.
        mixing: Operators that let a position see all others: pooling over the image, normalisation with its
            statistics, attention. One for each layer that has some.
        size_bound: Operators whose windows or scales depend on the size of the image: adaptive pooling,
            resizing with ``align_corners=True``.
        unknown: Names of the operators that were not understood.
    """

    output_shape: tuple[int, ...]
    period: tuple[int, int]
    mixing: tuple[SeenOperator, ...]
    size_bound: tuple[SeenOperator, ...]
    unknown: tuple[str, ...]


def operators_seen(
    model: nn.Module,
    input_size: int | tuple[int, int] = (224, 224),
    *,
    in_channels: int = 3,
    layer: str = "",
) -> OperatorsSeen:
    """Run a model once without data, and note what its operators do.

    Args:
        model: Any module that takes images (N, C, H, W) and gives one tensor. It may lie on the meta device.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.
        layer: Leave out what runs after this layer; ``""``: nothing.

    Returns:
        The strides and the operators that see more than a window.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: ``input_size`` is not one or two positive integers; the output is not one tensor that
            depends on the image; the model cannot be run without data.

    Example:
        >>> model = nn.Sequential(nn.AvgPool2d(2), nn.GroupNorm(1, 3), nn.Upsample(scale_factor=2))
        >>> seen = operators_seen(model, 16)
        >>> seen.period, [str(operator) for operator in seen.mixing]
        ((2, 2), ["native_group_norm in '1' (GroupNorm)"])
    """
    size = check_arguments(model, input_size, in_channels)
    seeing = _Seeing(model, layer)
    image = torch.empty(1, in_channels, *size, device="meta", dtype=device_and_dtype(model)[1])
    seeing[image] = source(image.shape)
    seeing.places[image] = of_images(image.shape)
    with untouched(model), torch.no_grad(), attributes_kept(model), seeing.naming():
        seeing.follow_recurrent(model)
        try:
            with seeing:
                result = only_tensor(model(image))
        except Exception as error:
            raise ValueError(
                f"model: the pass without data of the {type(model).__name__} on an image of {size[0]} x "
                f"{size[1]} stopped at {seeing.last or 'its beginning'}: {error}"
            ) from error
        found = None if result is None else seeing[result]
    if result is None or found is None:
        raise ValueError("model: expected one tensor that depends on the image")
    jumps, mixing, size_bound = seeing.noted
    return OperatorsSeen(
        tuple(result.shape),
        (_period(jumps[0]), _period(jumps[1])),
        tuple(mixing.values()),
        tuple(size_bound.values()),
        found.unknown,
    )


def _period(jumps: set[Fraction]) -> int:
    """Return the least common multiple of strides, in whole pixels."""
    period = Fraction(1)
    for jump in jumps:
        jump = abs(jump).limit_denominator(_LARGEST_DENOMINATOR)
        numerator = math.lcm(period.numerator, jump.numerator)
        period = Fraction(numerator, math.gcd(period.denominator, jump.denominator))
    return int(period)


class _Noted(NamedTuple):
    jumps: tuple[set[Fraction], set[Fraction]]
    mixing: dict[str, SeenOperator]
    size_bound: dict[str, SeenOperator]


class _Seeing(Tracing):
    """Notes strides, and asks of each operator that gives mixed entries whether it mixes by itself."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.places = PlaceTracker()
        super().__init__(None, self.places)
        self._model = model
        self._layer = layer
        self._running: list[tuple[str, str]] = [("", type(model).__name__)]
        self._jumps: tuple[set[Fraction], set[Fraction]] = (set(), set())
        self._mixing: dict[str, SeenOperator] = {}
        self._size_bound: dict[str, SeenOperator] = {}
        self._until_layer: _Noted | None = None

    @property
    def noted(self) -> _Noted:
        """Strides, what mixes, and what depends on the size, as far as the layer."""
        return self._until_layer or _Noted(self._jumps, self._mixing, self._size_bound)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Know which module is running."""
        handles = []

        def begin(name: str, module: nn.Module) -> None:
            self._running.append((name, type(module).__name__))

        try:
            for name, module in watchable(self._model).items():
                if name:
                    handles += [
                        module.register_forward_pre_hook(lambda module, _, name=name: begin(name, module)),
                        module.register_forward_hook(lambda *_, name=name: self._ended(name)),
                    ]
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _ended(self, name: str) -> None:
        self._running.pop()
        if name and name == self._layer:  # of a layer that runs several times the last run counts
            rows, columns = self._jumps
            jumps = set(rows), set(columns)
            self._until_layer = _Noted(jumps, dict(self._mixing), dict(self._size_bound))

    @override
    def __setitem__(self, tensor: Tensor, provenance: Provenance) -> None:
        super().__setitem__(tensor, provenance)
        for jumps, axis in zip(self._jumps, (provenance.rows, provenance.columns), strict=True):
            # Where a position has no place of its own there is no stride either.
            if axis.dim is not None and axis.ids.shape[axis.dim] > 1 and axis.jump and _is_placed(axis):
                jumps.add(axis.jump)

    @override
    def _propagate(self, call: Call, written: list[Tensor]) -> Results:
        found = super()._propagate(call, written)
        layer, kind = self._running[-1]
        here = SeenOperator(layer, kind, call.name.removeprefix("_"))
        if _is_size_bound(call):
            self._size_bound.setdefault(layer, here)
        # The first output is the result; those behind it are what the backward pass wants (means, indices).
        if layer not in self._mixing and found and _has_mixed(found[0]) and call.name != "copy":
            alone = results(
                Call(
                    call.func,
                    call.name,
                    call.bound,
                    call.tensors,
                    call.outputs,
                    lambda tensor: _unmixed(self[tensor]),
                )
            )
            if _has_mixed(alone[0]):
                self._mixing[layer] = here
        return found


def _is_size_bound(call: Call) -> bool:
    bound: Mapping[str, Any] = call.bound
    if not call.tensors or not call.outputs:
        return False
    before, after = call.tensors[0].shape[-2:], call.outputs[0].shape[-2:]
    if "adaptive" in call.name:
        return any(old != new > 1 for old, new in zip(before, after, strict=True))
    return "upsample" in call.name and bool(bound.get("align_corners")) and before != after


def _is_placed(axis: Axis) -> bool:
    entries = axis.sets.entries
    return any(entries[a].virtual for a in axis.ids.ravel()[:2].tolist())


def _has_mixed(found: Provenance | None) -> bool:
    if found is None:
        return False
    return any(axis.sets.entries[a].mixed for axis in (found.rows, found.columns) for a in set(axis.ids.flat))


def _unmixed(found: Provenance | None) -> Provenance | None:
    """Return what was read, as if nothing before had mixed positions."""
    return None if found is None else found.each(_unmixed_axis)


def _unmixed_axis(axis: Axis) -> Axis:
    sets = axis.sets

    def plain(a: int) -> int:
        entry = sets.entries[a]
        # What has no place of its own (the gate of a squeeze-excite block) was mixed before.
        return sets.intern(entry.low, entry.virtual, entry.real, 0) if entry.virtual else 0

    return axis.with_ids(sets.map(axis.ids, plain))
