"""`suggest_tiling`: how much overlap tiles need, and where they may begin."""

from __future__ import annotations

from typing import Any

from torch import nn

from erfattr._checks import check_fraction
from erfattr._model import untouched
from erfattr.attr.selection import Select
from erfattr.receptive_field._passes import check_arguments, has_data
from erfattr.tiling._dense import dense
from erfattr.tiling._effective import effective_tiling
from erfattr.tiling._exact import exact_tiling
from erfattr.tiling.plan import Tiling


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
    # The whole time: what runs below locks the wrapper, and another thread may run the model itself.
    with untouched(model):
        tiling = exact_tiling(network, size, in_channels, check=check and has_data(model))
    if coverage == 1:
        return tiling
    return effective_tiling(model, tiling, coverage, images)
