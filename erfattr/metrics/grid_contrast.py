"""How strong a grid is in one map alone, such as one saliency, beside what its noise alone would show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erfattr._checks import as_map, check_positive_int
from erfattr._showing import Shown
from erfattr.metrics.imbalance import local_mean, phase_contrast, phase_profile


@dataclass(frozen=True, repr=False)
class GridContrast(Shown):
    """Contrast of a map's phase profile, and that of the same map with its grid scattered.

    Attributes:
        profile: (period, period), float64, mean 1: `phase_profile` of the map.
        contrast: `phase_contrast` of it: grid and noise together.
        noise_floor: What noise alone gives: root mean square of the contrasts of the scattered maps.
        noise_high: The contrast that 19 of 20 scattered maps stay below.

    Example:
        >>> import torch
        >>> from erfattr import grid_contrast
        >>> found = grid_contrast(torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(32, 32), period=2)
        >>> found.contrast > found.noise_high  # there is a grid
        True
    """

    profile: Tensor
    contrast: float
    noise_floor: float
    noise_high: float

    def _in_words(self) -> str:
        return f"contrast {self.contrast:.4f}, noise alone {self.noise_floor:.4f}"

    @property
    def is_told(self) -> bool:
        """Whether a grid is told from noise, which is so if 19 of 20 scattered maps have less contrast."""
        return self.contrast > self.noise_high

    @property
    def without_noise(self) -> float:
        """The contrast less the noise, in squares; 0 where the noise is larger."""
        return math.sqrt(max(0.0, self.contrast**2 - self.noise_floor**2))


def grid_contrast(
    sensitivity_map: Any, period: int | tuple[int, int], *, draws: int = 40, seed: int = 0
) -> GridContrast:
    """Measure the grid of a map, and what would be measured of it without one.

    A phase profile of one map is mostly noise: of 224 x 224 pixels and a period of 32 each phase averages
    some 30 pixels. What that noise comes to is seen on the map itself. It is cut into tiles of one period,
    and each tile of the map over its local mean is rolled by its own random step: all that repeats from tile
    to tile is scattered over the phases, all else stays what it was. The contrasts of many such maps are the
    noise floor. It is slightly high where there is a grid, which adds to the scatter.

    Over many images `estimate_phase_profile` is the better judge: it knows the noise from the images.

    Args:
        sensitivity_map: The map, shape (H, W), not negative: a sensitivity, or sizes of attributions.
        period: The network's total stride in pixels, or (vertical, horizontal).
        draws: How many maps are scattered.
        seed: Of the steps.

    Returns:
        The `GridContrast`.

    Raises:
        TypeError: ``sensitivity_map`` is not numeric, ``period`` or ``draws`` no integer.
        ValueError: what `phase_profile` refuses; ``draws`` is not positive.

    Example:
        A checkerboard without noise, which rolls cannot leave in place:

        >>> found = grid_contrast(torch.tensor([[1.5, 0.5], [0.5, 1.5]]).repeat(16, 16), period=2)
        >>> found.contrast, found.is_told
        (0.5, True)
    """
    check_positive_int("draws", draws)
    profile = phase_profile(sensitivity_map, period)
    values = as_map("sensitivity_map", sensitivity_map).double()
    envelope = local_mean(values, period)
    relative = torch.where(envelope > 0, values / envelope.clamp_min(torch.finfo(envelope.dtype).tiny), 0.0)
    tile = (int(profile.shape[0]), int(profile.shape[1]))
    generator = torch.Generator().manual_seed(seed)
    contrasts = []
    for _ in range(draws):
        scattered = _rolled(relative, tile, generator) * envelope
        try:
            contrasts.append(phase_contrast(phase_profile(scattered, period)))
        except ValueError:  # a roll has left a phase without mass
            continue
    if not contrasts:
        return GridContrast(profile, phase_contrast(profile), math.inf, math.inf)
    found = torch.tensor(contrasts, dtype=torch.float64)
    return GridContrast(
        profile=profile,
        contrast=phase_contrast(profile),
        noise_floor=float(found.square().mean().sqrt()),
        noise_high=float(found.quantile(0.95)),
    )


def _rolled(values: Tensor, tile: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return a map with each tile, cut ones at the border too, rolled by its own step."""
    rows, columns = (torch.arange(length) for length in values.shape)
    which = (rows[:, None] // tile[0], columns[None, :] // tile[1])
    tiles = (int(which[0].max()) + 1, int(which[1].max()) + 1)
    sources = []
    for places, number, side, length in zip(
        (rows[:, None], columns[None, :]), which, tile, values.shape, strict=True
    ):
        step = torch.rand(tiles, generator=generator)[which]
        begin = number * side
        long = (length - begin).clamp_max(side)
        sources.append(begin + (places - begin + (step * long).long()) % long)
    return values[sources[0], sources[1]]
