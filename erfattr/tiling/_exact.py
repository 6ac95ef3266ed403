"""The exact tiling: read from the operators of a pass without data, and checked on noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch

from erfattr._model import attributes_kept, buffers_kept, tensors_of, untouched
from erfattr.receptive_field.operators_seen import OperatorsSeen, SeenOperator, operators_seen
from erfattr.receptive_field.trace import theoretical_receptive_field
from erfattr.tiling._dense import Dense, in_float64, output_of
from erfattr.tiling._margins import Margins, margins
from erfattr.tiling.plan import Tiling, minimum_tile

# Strides are read from an image of this size at most: how a network repeats does not depend on it.
_FIRST_LOOK = 768
# Most periods are powers of two: an image that is shorter by whole 256 pixels lies to them as the long one.
_SHORTER_BY = 256
# A multiple of most networks' strides.
_PADDED_TO = 64
# Float64 sums of another order differ by some 1e-16 of the largest value; a wrong pixel by far more.
_ROUNDING = 1e-10


def exact_tiling(network: Dense, size: tuple[int, int], channels: int, *, check: bool) -> Tiling:
    """Return the tiling for images of ``size``; without ``check`` what the operators show is not tried."""
    first = _pair(min(length, _FIRST_LOOK + (length - _FIRST_LOOK) % _SHORTER_BY) for length in size)
    seen = operators_seen(
        network, first, in_channels=channels, layer=network.layer and f"network.{network.layer}"
    )
    problems = _problems(seen)
    besides = "".join(f"; {problem}" for problem in problems)
    if len(seen.output_shape) != 4:
        raise ValueError(
            f"model: expected an output with positions (N, C, H, W), got shape {seen.output_shape}; name the "
            f"layer that is wanted{besides}"
        )
    rf = theoretical_receptive_field(network, None, first, in_channels=channels)
    if rf.output_size != seen.output_shape[2:]:
        raise ValueError(
            f"model: expected an output (N, C, H, W), got one of shape {seen.output_shape} with a map of "
            f"{rf.output_size[0]} x {rf.output_size[1]}{besides}"
        )
    if any(period >= length for period, length in zip(seen.period, first, strict=True)):
        tiling = _padded(network, size, first, channels)
        if tiling is not None:
            return replace(tiling, note="; ".join([*problems, tiling.note]))
        problems.append("its strides repeat nowhere in the image")
        seen = replace(seen, period=(1, 1))
    step = _steps(rf.stride, seen.period)
    if step is None:
        problems.append(
            f"its strides repeat after {seen.period[0]} x {seen.period[1]} pixels, which is no whole number "
            f"of the output's units, {rf.stride[0]:g} x {rf.stride[1]:g} pixels apart"
        )
        step = (1, 1)
    # Long enough for units that see no border, and lying to the strides as the real image does.
    wide = _pair(
        _congruent(2 * local + 6 * period, length, period)
        for local, length, period in zip(rf.local_size, size, seen.period, strict=True)
    )
    if not problems and wide != first:
        try:
            rf = theoretical_receptive_field(network, None, wide, in_channels=channels)
        except ValueError as error:
            problems.append(f"it does not run on an image of {wide[0]} x {wide[1]} ({error})")
    found = [margins(rf, axis, seen.period[axis], step[axis], mixed=bool(seen.mixing)) for axis in (0, 1)]
    if not problems:
        problems += list(dict.fromkeys(margin.problem for margin in found if margin.problem))
    tiling = _tiling(network, size, seen.period, step, found, problems)
    if problems:
        return tiling
    if not check:
        return replace(tiling, note="not checked with numbers: what the operators show is all that is known")
    try:
        difference = _checked(network, tiling, channels)
    except Exception as error:  # whatever a network raises on an image of another size
        return replace(tiling, exact=False, note=f"not checked: it does not run on a tile ({error})")
    if difference <= _ROUNDING:
        return tiling
    return replace(
        tiling,
        exact=False,
        note=f"the operators show nothing, but tiles of noise differ by {difference:.2g} of the largest "
        "value: the network knows where in the image it is, or how large that is",
    )


def _padded(network: Dense, size: tuple[int, int], first: tuple[int, int], channels: int) -> Tiling | None:
    """Return the tiling of the smallest larger image in which the strides repeat; ``None`` if there is none.

    A network that resizes to the size of an earlier map has a scale that is a ratio of two odd numbers where
    the image's size is no multiple of its strides.
    """
    larger = _pair(-(-length // _PADDED_TO) * _PADDED_TO for length in first)
    if larger == first:
        return None
    tiling = exact_tiling(network, larger, channels, check=False)
    if any(period >= length for period, length in zip(tiling.alignment, larger, strict=True)):
        return None
    wanted = _pair(-(-length // p) * p for length, p in zip(size, tiling.alignment, strict=True))
    return replace(
        tiling,
        exact=False,
        minimum_tile=minimum_tile(tiling.halo, tiling.alignment, size),
        input_size=size,
        note=f"on an image of {size[0]} x {size[1]} its strides repeat nowhere, since it resizes by ratios "
        f"of odd sizes; on one of {wanted[0]} x {wanted[1]} they do: pad the image to that",
    )


def _tiling(
    network: Dense,
    size: tuple[int, int],
    period: tuple[int, int],
    step: tuple[int, int],
    found: Sequence[Margins],
    problems: Sequence[str],
) -> Tiling:
    halo = _pair(-(-max(m.before, m.after) // p) * p for m, p in zip(found, period, strict=True))
    return Tiling(
        halo=halo,
        alignment=period,
        minimum_tile=minimum_tile(halo, period, size),
        exact=not problems,
        note="; ".join(problems),
        input_size=size,
        step=step,
        margins=((found[0].before, found[0].after), (found[1].before, found[1].after)),
        layer=network.layer,
        select=network.select,
    )


def _problems(seen: OperatorsSeen) -> list[str]:
    """Return why no finite halo is exact, as far as single operators show it."""
    problems = []
    if seen.mixing:
        problems.append(f"no finite halo is exact: the whole image is seen by {_named(seen.mixing)}")
    if seen.size_bound:
        problems.append(f"no finite halo is exact: the size of the image sets {_named(seen.size_bound)}")
    if seen.unknown:
        problems.append(f"not proven: {', '.join(seen.unknown)} is not understood")
    return problems


def _named(operators: Sequence[SeenOperator]) -> str:
    words = ", ".join(
        str(replace(operator, layer=operator.layer.removeprefix("network").removeprefix(".")))
        for operator in operators[:3]
    )
    return words + (f" and {len(operators) - 3} more" if len(operators) > 3 else "")


def _steps(stride: tuple[float, float], period: tuple[int, int]) -> tuple[int, int] | None:
    """Return how many units stand on one period; ``None`` where that is no whole number."""
    steps = [
        Fraction(p) / Fraction(s).limit_denominator(1 << 12) for s, p in zip(stride, period, strict=True)
    ]
    return None if any(step.denominator != 1 for step in steps) else _pair(int(step) for step in steps)


def _congruent(least: int, length: int, period: int) -> int:
    """Return the smallest number from ``least`` on that leaves what ``length`` leaves, divided by period."""
    return least + (length - least) % period


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _checked(network: Dense, tiling: Tiling, channels: int) -> float:
    """Return the largest difference between tiles and a whole image of noise, relative to the largest value.

    Strips are enough: rows and columns are cut apart.
    """
    own = in_float64(network)
    worst = 0.0
    long = [
        _congruent(2 * halo + 5 * period, length, period)
        for halo, length, period in zip(tiling.halo, tiling.input_size, tiling.alignment, strict=True)
    ]
    thin = [
        _congruent(max(32, 2 * period), length, period)
        for length, period in zip(tiling.input_size, tiling.alignment, strict=True)
    ]
    for axis in (0, 1):
        sizes = [
            (long[0], thin[1]) if axis == 0 else (thin[0], long[1]),
            (long[0], long[1]),  # for networks that do not run on a strip
        ]
        for size in sizes:
            try:
                worst = max(worst, _difference(own, tiling, axis, size, channels))
                break
            except Exception:  # whatever a network raises on a strip
                if size == sizes[-1]:
                    raise
    return worst


def _difference(network: Dense, tiling: Tiling, axis: int, size: tuple[int, int], channels: int) -> float:
    """Return the largest difference of three tiles along one axis: the first, one inside, the last."""
    dtype = next((t.dtype for t in tensors_of(network) if t.is_floating_point()), torch.float64)
    noise = torch.randn(1, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    cut = replace(tiling, input_size=size).axes(size)[axis]
    period, dim = cut.alignment, axis + 2
    inside = (
        cut.halo + period
    )  # not in the middle, where a ramp over the image has the same value as over a tile
    end = (size[axis] - 1) // period * period - period  # no sliver, which stitching does not make either
    worst = 0.0
    with torch.no_grad(), untouched(network.network), attributes_kept(network), buffers_kept(network):
        whole = output_of(network, noise)
        largest = float(whole.abs().max()) or 1.0
        for kept in ((0, period), (inside, inside + period), (end, size[axis])):
            tile = cut.tile(*kept)
            part = output_of(network, noise.narrow(dim, tile.start, tile.stop - tile.start))
            at = cut.in_output(tile.start)
            count = whole.shape[dim]
            if tile.last and part.shape[dim] + at != count:
                return math.inf
            first = min(cut.in_output(tile.keep_from), count)
            last = count if tile.last else min(cut.in_output(tile.keep_to), count)
            wanted, got = whole.narrow(dim, first, last - first), part.narrow(dim, first - at, last - first)
            if wanted.shape != got.shape:
                return math.inf
            if last > first:
                worst = max(worst, float((wanted - got).abs().max()) / largest)
    return worst
