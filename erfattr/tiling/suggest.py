"""`suggest_tiling`: how much overlap tiles need, and where they may begin."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from erfattr._checks import check_fraction
from erfattr._model import attributes_kept, buffers_kept, tensors_of, untouched
from erfattr.attr.selection import Select
from erfattr.receptive_field._passes import check_arguments, has_data
from erfattr.receptive_field.operators_seen import OperatorsSeen, SeenOperator, operators_seen
from erfattr.receptive_field.trace import theoretical_receptive_field
from erfattr.tiling._dense import Dense, dense, in_float64, output_of
from erfattr.tiling._margins import Margins, margins
from erfattr.tiling.tiles import Axis

# Strides are read from an image of this size at most: how a network repeats does not depend on it.
_FIRST_LOOK = 768
# Most periods are powers of two, so an image that is shorter by whole 256 pixels lies to them as the long one.
_SHORTER_BY = 256
# A multiple of most networks' strides.
_PADDED_TO = 64
# Float64 sums of another order differ by some 1e-16 of the largest value; a wrong pixel by far more.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Tiling:
    """How to cut images into tiles for a network.

    A tile's kept part begins at a multiple of ``alignment`` and is that long, or a multiple; the network is
    given ``halo`` pixels more on each side, but for the sides that are the image's own border.

    Attributes:
        halo: (rows, columns) on each side, a multiple of ``alignment``.
        alignment: (rows, columns): tiles begin at multiples of this.
        minimum_tile: (rows, columns) of the smallest tile, halo included.
        exact: Whether stitched tiles equal the whole image: proven from the operators, and checked in
            float64.
        note: Why not, or what the halo leaves; may be empty.
        input_size: (H, W) of the image that it is for. It holds for images whose size leaves the same
            remainder when divided by ``alignment``.
        step: (rows, columns) of the output for ``alignment`` pixels.
        margins: ((above, below), (left, right)): how many pixels the worst unit really needs.
        coverage: Share of the effective receptive field inside the halo; 1.0: the halo is the theoretical.
        error: Of ``coverage`` below 1 what was measured on the images: the largest difference between tiles
            and whole image, relative to the largest value of the output.
        layer: The layer that is tiled, ``""`` for the output.
        select: Which of several tensors of it.
    """

    halo: tuple[int, int]
    alignment: tuple[int, int]
    minimum_tile: tuple[int, int]
    exact: bool
    note: str
    input_size: tuple[int, int]
    step: tuple[int, int]
    margins: tuple[tuple[int, int], tuple[int, int]]
    coverage: float = 1.0
    error: float | None = None
    layer: str = ""
    select: Select = field(default=None, repr=False)

    def axes(self, size: Sequence[int]) -> tuple[Axis, Axis]:
        """Return how the two axes of an image of ``size`` (H, W) are cut.

        Raises:
            ValueError: the size lies otherwise to the network's strides than the one this was made for.
        """
        for name, length, mine, period in zip(
            ("height", "width"), size, self.input_size, self.alignment, strict=True
        ):
            if (length - mine) % period:
                raise ValueError(
                    f"image: expected a {name} that leaves {mine % period} when divided by {period}, as that of "
                    f"the image that the tiling was made for, got {length}; call suggest_tiling for this size"
                )
        rows, columns = (
            Axis(int(length), *rest)
            for length, *rest in zip(size, self.halo, self.alignment, self.step, strict=True)
        )
        return rows, columns

    def with_halo(self, halo: tuple[int, int]) -> Tiling:
        """Return the same with another halo, which is exact only where it covers the margins."""
        for length, period in zip(halo, self.alignment, strict=True):
            if length < 0 or length % period:
                raise ValueError(f"halo: expected multiples of {self.alignment}, got {tuple(halo)}")
        covers = all(length >= max(margin) for length, margin in zip(halo, self.margins, strict=True))
        rows, columns = (2 * h + a for h, a in zip(halo, self.alignment, strict=True))
        return replace(self, halo=halo, minimum_tile=(rows, columns), exact=self.exact and covers)

    def to_json(self) -> str:
        """Return all but ``select`` as JSON."""
        return json.dumps({key: value for key, value in asdict(self).items() if key != "select"}, indent=1)


def suggest_tiling(
    model: nn.Module,
    input_size: int | tuple[int, int],
    coverage: float = 1.0,
    layer: nn.Module | str | None = None,
    *,
    images: Any = None,
    in_channels: int = 3,
    select: Select = None,
    check: bool = True,
) -> Tiling:
    r"""Return the halo and the alignment with which tiles, stitched, are the whole image.

    A unit of the output reads an interval of rows; units of one period (the least common multiple P of all
    strides on the way) reach :math:`\max_u (P \lfloor u / s \rfloor - \mathrm{first}_u)` rows above their
    period, s being the period in units, and correspondingly far below. The halo is the larger of the two,
    rounded up to whole periods, for a tile that begins elsewhere lies to the strides in another way: every
    unit would be another one. The intervals are those of an image without borders, so no unit that is kept
    has seen a tile's padding. What the operators show is then checked: three tiles against a whole image of
    noise, in float64.

    Args:
        model: A network whose output has positions (N, C, H, W).
        input_size: (H, W) of the images, or one number for both. It costs nothing to be large.
        coverage: 1.0: exact. Below: the smallest halo that holds this share of the effective receptive field
            of the output's centre unit over ``images``; the error that it leaves is measured on them.
        layer: Tile this layer's output instead of the model's.
        images: For ``coverage`` below 1: batches of images, or one batch.
        in_channels: C of the images.
        select: Which part of an output of several tensors; ``None``: the only one, or ``"out"``.
        check: Check what the operators show on noise. Without it (and for a model on the meta device)
            ``exact`` rests on the operators alone, and the note says so.

    Returns:
        The tiling. Where an operator sees the whole image no halo is exact: the note names it, and ``halo``
        is that of the other operators.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an output without positions; ``coverage`` outside (0, 1], or below 1 without ``images``;
            a model that does not run on images of ``input_size``.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 5, stride=2, padding=2), nn.Upsample(scale_factor=2))
        >>> tiling = suggest_tiling(model, (4096, 4096), in_channels=1)
        >>> tiling.halo, tiling.alignment, tiling.minimum_tile, tiling.margins, tiling.exact
        ((2, 2), (2, 2), (6, 6), ((2, 1), (2, 1)), True)
    """
    size = check_arguments(model, input_size, in_channels)
    check_fraction("coverage", coverage)
    if coverage < 1 and images is None:
        raise ValueError(f"images: expected some to measure the error of coverage={coverage} on, got None")
    network = dense(model, layer, select)
    tiling = _exact_tiling(network, size, in_channels, check=check and has_data(model))
    if coverage == 1:
        return tiling
    from erfattr.tiling.effective import effective_tiling

    return effective_tiling(model, tiling, coverage, images)


def _exact_tiling(network: Dense, size: tuple[int, int], channels: int, *, check: bool) -> Tiling:
    first = _pair(min(length, _FIRST_LOOK + (length - _FIRST_LOOK) % _SHORTER_BY) for length in size)
    seen = operators_seen(
        network, first, in_channels=channels, layer=network.layer and f"network.{network.layer}"
    )
    if len(seen.output_shape) != 4:
        raise ValueError(
            f"model: expected an output with positions (N, C, H, W), got shape {seen.output_shape}; name the "
            "layer that is wanted"
        )
    rf = theoretical_receptive_field(network, None, first, in_channels=channels)
    if rf.output_size != seen.output_shape[2:]:
        raise ValueError(
            f"model: expected an output (N, C, H, W), got one of shape {seen.output_shape} with a map of "
            f"{rf.output_size[0]} x {rf.output_size[1]}"
        )
    problems = _problems(seen)
    if any(period >= length for period, length in zip(seen.period, first, strict=True)):
        tiling = _padded(network, size, first, channels)
        if tiling is not None:
            return replace(tiling, note="; ".join([*problems, tiling.note]))
        problems.append("its strides repeat nowhere in the image")
        seen = replace(seen, period=(1, 1))
    step = _steps(rf.stride, seen.period)
    if step is None:
        problems.append(
            f"its strides repeat after {seen.period[0]} x {seen.period[1]} pixels, which is no whole number of "
            f"the output's units, {rf.stride[0]:g} x {rf.stride[1]:g} pixels apart"
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
    found = [
        margins(rf, axis, seen.period[axis], step[axis], mixed=bool(seen.mixing)) for axis in (0, 1)
    ]
    if not problems:
        problems += list(dict.fromkeys(margin.problem for margin in found if margin.problem))
    tiling = _tiling(network, size, seen.period, step, found, problems)
    if problems:
        return tiling
    if not check:
        return replace(tiling, note="not checked with numbers: what the operators show is all that is known")
    difference = _checked(network, tiling, channels)
    if difference <= _ROUNDING:
        return tiling
    return replace(
        tiling,
        exact=False,
        note=f"the operators show nothing, but tiles of noise differ by {difference:.2g} of the largest value: the "
        "network knows where in the image it is, or how large that is",
    )


def _padded(
    network: Dense, size: tuple[int, int], first: tuple[int, int], channels: int
) -> Tiling | None:
    """Return the tiling of the smallest larger image in which the strides repeat; ``None`` if there is none.

    A network that resizes to the size of an earlier map has a scale that is a ratio of two odd numbers where
    the image's size is no multiple of its strides.
    """
    larger = _pair(-(-length // _PADDED_TO) * _PADDED_TO for length in first)
    if larger == first:
        return None
    tiling = _exact_tiling(network, larger, channels, check=False)
    if any(period >= length for period, length in zip(tiling.alignment, larger, strict=True)):
        return None
    wanted = _pair(-(-length // p) * p for length, p in zip(size, tiling.alignment, strict=True))
    return replace(
        tiling,
        exact=False,
        input_size=size,
        note=f"on an image of {size[0]} x {size[1]} its strides repeat nowhere, since it resizes by ratios of "
        f"odd sizes; on one of {wanted[0]} x {wanted[1]} they do: pad the image to that",
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
        minimum_tile=_pair(2 * h + p for h, p in zip(halo, period, strict=True)),
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
    steps = [Fraction(p) / Fraction(s).limit_denominator(1 << 12) for s, p in zip(stride, period, strict=True)]
    return None if any(step.denominator != 1 for step in steps) else _pair(int(step) for step in steps)


def _congruent(least: int, length: int, period: int) -> int:
    """Return the smallest number of at least ``least`` that leaves what ``length`` leaves, divided by period."""
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
            except (RuntimeError, ValueError):
                if size == sizes[-1]:
                    raise
    return worst


def _difference(network: Dense, tiling: Tiling, axis: int, size: tuple[int, int], channels: int) -> float:
    """Return the largest difference of three tiles along one axis: the first, one inside, the last."""
    dtype = next((t.dtype for t in tensors_of(network) if t.is_floating_point()), torch.float64)
    noise = torch.randn(1, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    cut = replace(tiling, input_size=size).axes(size)[axis]
    period, dim = cut.alignment, axis + 2
    inside = cut.halo + period  # not in the middle, where a ramp over the image has the same value as over a tile
    end = (size[axis] - 1) // period * period
    worst = 0.0
    with torch.no_grad(), untouched(network), attributes_kept(network), buffers_kept(network):
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
