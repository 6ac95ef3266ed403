"""Run a network tile by tile, and find out what that changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from erfattr._checks import as_int, describe, is_int
from erfattr._model import attributes_kept, buffers_kept, untouched
from erfattr.tiling._dense import Dense, dense, output_of
from erfattr.tiling._tiles import Tile
from erfattr.tiling.plan import Tiling


class TilingError(NamedTuple):
    """What tiles change against the whole image.

    Attributes:
        largest: Largest difference, relative to the largest value of the output.
        rms: Root mean square of the difference, relative to that of the output.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from erfattr import suggest_tiling
        >>> model = nn.Conv2d(1, 1, 5, padding=2).double()
        >>> tiling = suggest_tiling(model, 64, in_channels=1)
        >>> error = tiling_error(model, torch.rand(1, 1, 64, 64).double(), tiling)
        >>> max(error.largest, error.rms) < 1e-14
        True
    """

    largest: float
    rms: float


class HaloError(ValueError):
    """A halo is so small that a tile's output, which shrinks without padding, lacks what is kept of it."""


def stitch(
    model: nn.Module,
    images: Tensor,
    tiling: Tiling,
    tile_size: int | tuple[int, int] = 512,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Run a network on tiles of images, and put together what is right of each.

    The network never sees more than one tile, so memory is that of a tile, the images and the output; both
    may be files (``torch.from_numpy(numpy.memmap(...))``). Tiles go to the network's device one by one.

    Args:
        model: The network that ``tiling`` was made for; run in evaluation mode, and left as it was.
        images: (N, C, H, W), where they are.
        tiling: What `suggest_tiling` returned for images of this size.
        tile_size: (rows, columns) of a tile, halo included, or one number for both; at least
            ``tiling.minimum_tile``. Rounded down to whole periods.
        out: Write the output there; ``None``: into a new tensor where the images are.

    Returns:
        (N, K, rows, columns), as the network gives it for the whole images: exactly, if ``tiling.exact``, to
        the rounding of sums that a library adds in another order for another size.

    Raises:
        TypeError: ``images`` is no tensor, ``tile_size`` no integers.
        ValueError: images of another shape than (N, C, H, W) or of a size that the tiling is not for; a tile
            smaller than the smallest; ``out`` of another shape.

    Example:
        >>> from erfattr import suggest_tiling
        >>> model = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> images = torch.arange(64.0).reshape(1, 1, 8, 8)
        >>> tiling = suggest_tiling(model, 8, in_channels=1)
        >>> torch.equal(stitch(model, images, tiling, tile_size=4), model(images))
        True
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a tensor (N, C, H, W), got {describe(images)}")
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images: expected (N, C, H, W), got shape {tuple(images.shape)}")
    rows, columns = tiling.axes(images.shape[-2:])
    height, width = _tile_size(tile_size, tiling, images.shape[-2:])
    network = dense(model, tiling.layer or None, tiling.select)
    grid = [(down, right) for down in rows.tiles(height) for right in columns.tiles(width)]
    with torch.no_grad(), untouched(network.network), attributes_kept(network), buffers_kept(network):
        # From its end the output's size is known: the last tile goes first.
        for down, right in reversed(grid):
            part = output_of(network, images[..., down.start : down.stop, right.start : right.stop])
            top, left = rows.in_output(down.start), columns.in_output(right.start)
            if down.last and right.last:
                shape = (*part.shape[:2], top + part.shape[2], left + part.shape[3])
                if out is None:
                    out = part.new_empty(shape)
                elif out.shape != shape:
                    raise ValueError(f"out: expected shape {tuple(shape)}, got {tuple(out.shape)}")
            assert out is not None  # the last tile came first
            y = _kept(down, rows.in_output(down.keep_from), rows.in_output(down.keep_to), out.shape[2])
            x = _kept(
                right, columns.in_output(right.keep_from), columns.in_output(right.keep_to), out.shape[3]
            )
            inner = part[..., _moved(y, top), _moved(x, left)]
            if inner.shape[-2:] != (y.stop - y.start, x.stop - x.start):
                raise HaloError(
                    f"tiling: expected a halo of at least {tiling.margins}, got {tiling.halo}: a tile's "
                    "output ends before the part that is kept"
                )
            out[..., y, x] = inner
    if out is None:
        raise ValueError("images: expected at least one pixel")
    return out


def _kept(tile: Tile, first: int, last: int, count: int) -> slice:
    return slice(min(first, count), count if tile.last else min(last, count))


def _moved(kept: slice, by: int) -> slice:
    return slice(kept.start - by, kept.stop - by)


def _tile_size(given: Any, tiling: Tiling, size: Any) -> tuple[int, int]:
    pair = as_int(given)
    pair = (pair, pair) if is_int(pair) else pair
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(map(is_int, pair)):
        raise TypeError(
            f"tile_size: expected one integer, or two for rows and columns, got {describe(given)}"
        )
    for wanted, least, length in zip(pair, tiling.minimum_tile, size, strict=True):
        if wanted < min(least, length):
            raise ValueError(
                f"tile_size: expected at least {tiling.minimum_tile[0]} x {tiling.minimum_tile[1]}, halo "
                f"included, got {pair[0]} x {pair[1]}"
            )
    rows, columns = (
        wanted if wanted >= length else wanted // period * period
        for wanted, period, length in zip(pair, tiling.alignment, size, strict=True)
    )
    return int(rows), int(columns)


def tiling_error(
    model: nn.Module,
    images: Tensor,
    tiling: Tiling,
    tile_size: int | tuple[int, int] | None = None,
) -> TilingError:
    """Compare tiles, stitched, with the whole images.

    Args:
        model: The network.
        images: (N, C, H, W); the whole image must fit into memory.
        tiling: What `suggest_tiling` returned, or another.
        tile_size: As for `stitch`; ``None``: tiles that keep a quarter of the image along each axis.

    Returns:
        The differences, relative to the output of the whole images.

    Raises:
        ValueError: as `stitch`.

    Example:
        >>> from erfattr import suggest_tiling
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
        >>> tiling = suggest_tiling(model, 16, in_channels=1)
        >>> tiling_error(model.double(), torch.rand(1, 1, 16, 16).double(), tiling).largest < 1e-14
        True
    """
    whole = _whole(dense(model, tiling.layer or None, tiling.select), images)
    return _error(model, images, tiling, tile_size, whole)


def tiling_errors(
    model: nn.Module,
    images: Tensor,
    tiling: Tiling,
    halos: Any = None,
    *,
    at_most: int = 12,
) -> Iterator[tuple[tuple[int, int], TilingError]]:
    """Yield halo and error for halos from none to that of ``tiling``, which say what a smaller one costs.

    Args:
        model: The network.
        images: (N, C, H, W).
        tiling: The largest halo; the others are multiples of its alignment.
        halos: The halos, (rows, columns); ``None``: evenly spaced ones.
        at_most: How many, where none are given.

    Yields:
        The halo and its error; infinite where tiles with it cannot even cover the image.
    """
    whole = _whole(dense(model, tiling.layer or None, tiling.select), images)
    for halo in _halos(tiling, at_most) if halos is None else halos:
        try:
            yield halo, _error(model, images, tiling.with_halo(halo), None, whole)
        except HaloError:
            yield halo, TilingError(math.inf, math.inf)


def _halos(tiling: Tiling, at_most: int) -> list[tuple[int, int]]:
    periods = [halo // period for halo, period in zip(tiling.halo, tiling.alignment, strict=True)]
    count = min(at_most - 1, max(periods)) or 1
    steps = [[round(k * most / count) for most in periods] for k in range(count + 1)]
    return [(y * tiling.alignment[0], x * tiling.alignment[1]) for y, x in steps]


def quarters(tiling: Tiling, size: Sequence[int]) -> tuple[int, int]:
    """Return tiles, halo included, that keep a quarter of an image along each axis: seams, and few tiles."""
    rows, columns = (
        least + max(0, length // 4 // period - 1) * period
        for least, period, length in zip(tiling.minimum_tile, tiling.alignment, size, strict=True)
    )
    return rows, columns


def _whole(network: Dense, images: Tensor) -> Tensor:
    with torch.no_grad(), untouched(network.network), attributes_kept(network), buffers_kept(network):
        return output_of(network, images)


def _error(
    model: nn.Module, images: Tensor, tiling: Tiling, tile_size: int | tuple[int, int] | None, whole: Tensor
) -> TilingError:
    if tile_size is None:
        tile_size = quarters(tiling, images.shape[-2:])
    difference = (stitch(model, images, tiling, tile_size) - whole).double()
    largest = float(whole.abs().max()) or 1.0
    size = float(whole.double().square().mean().sqrt()) or 1.0
    return TilingError(
        float(difference.abs().max()) / largest, float(difference.square().mean().sqrt()) / size
    )
