"""A halo from the effective receptive field: smaller than the exact one, with the error that it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from erfattr._batches import numbered_batches
from erfattr._model import untouched
from erfattr.attr.erf import ERF
from erfattr.execution import Execution
from erfattr.tiling._dense import dense
from erfattr.tiling.plan import Tiling
from erfattr.tiling.stitching import tiling_error

# The error is measured on so many images at most.
_MEASURED = 8


def effective_tiling(model: nn.Module, tiling: Tiling, coverage: float, images: Any) -> Tiling:
    """Return the tiling whose halo holds a share of the effective receptive field, and its error.

    The share is that of the mean absolute gradient of the centre unit (ERF with ``rectify="abs"``) in the
    unit's own period and the halo round it. The error is the largest over tiles of a quarter of the image.

    Args:
        model: The network.
        tiling: The exact one.
        coverage: The share, in (0, 1).
        images: Batches of images, or one batch; larger than the halo.

    Raises:
        ValueError: as `erfattr.attr.erf.ERF` and `stitch`.
    """
    network = dense(model, tiling.layer or None, tiling.select)
    measured = first_images(images, _MEASURED)
    # On whole images, as they are: the crop that a unit needs is what is looked for here.
    with untouched(model):
        field, statistics = ERF(network, network, rectify="abs", execution=Execution.plain()).attribute(
            images, return_statistics=True
        )
    source = statistics.source
    if source is None or source.unit is None:
        raise ValueError("model: expected an output with positions")
    halo = _halo(field, source.unit, tiling, coverage)
    smaller = replace(tiling.with_halo(halo), coverage=coverage)
    sized = replace(smaller, input_size=(int(measured.shape[-2]), int(measured.shape[-1])))
    error = tiling_error(model, measured, sized)
    held = _share(field, source.unit, tiling, halo)
    words = (
        f"the halo holds {100 * held:.1f} % of the effective receptive field; on {len(measured)} images it "
        f"leaves a largest error of {error.largest:.2g} of the largest value (rms {error.rms:.2g})"
    )
    return replace(
        smaller, error=error.largest, note="; ".join(part for part in (smaller.note, words) if part)
    )


def first_images(images: Any, count: int) -> Tensor:
    """Return the first ``count`` images of batches, or of one batch, as one tensor."""
    parts = [part for _, part, _ in numbered_batches(images, False, max_examples=count)]
    if not parts:
        raise ValueError("images: expected at least one image, got none")
    return torch.cat([part.detach() for part in parts])


def _share(field: Tensor, unit: tuple[int, int], tiling: Tiling, halo: tuple[int, int]) -> float:
    slices = []
    for index, margin, period, step, length in zip(
        unit, halo, tiling.alignment, tiling.step, field.shape, strict=True
    ):
        start = index // step * period
        slices.append(slice(max(0, start - margin), min(length, start + period + margin)))
    return float(field[slices[0], slices[1]].sum() / field.sum())


def _halo(field: Tensor, unit: tuple[int, int], tiling: Tiling, coverage: float) -> tuple[int, int]:
    """Return the smallest halo, grown by one period of both axes at a time, that holds the share."""
    most = max(halo // period for halo, period in zip(tiling.halo, tiling.alignment, strict=True))
    for count in range(most + 1):
        rows, columns = (
            min(count * period, halo) for period, halo in zip(tiling.alignment, tiling.halo, strict=True)
        )
        if _share(field, unit, tiling, (rows, columns)) >= coverage:
            return rows, columns
    return tiling.halo
