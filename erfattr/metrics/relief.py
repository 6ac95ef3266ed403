"""How strong each pixel is by itself: the relief of a sensitivity map, with its noise held back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from erfattr._checks import Mode, as_map, check_choice
from erfattr.metrics.imbalance import local_mean, phase_profile
from erfattr.metrics.jackknife import signal_share
from erfattr.metrics.significance import estimate_phase_profile
from erfattr.metrics.statistics import MapStatistics

Period = int | tuple[int, int]


def relief(
    sensitivity_map: Any,
    mode: Mode = "phase",
    *,
    period: Period | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    r"""Return what a sensitivity map says of each pixel's own strength, relative to 1.

    ``"global"``: :math:`\rho = R / \mathrm{mean}(R)`, the paper's scaling of gradients, centre preference and
    all. ``"local"``: :math:`\rho = R / \bar R` with the mean :math:`\bar R` over the windows of one period
    around the pixel: the fine structure alone. ``"phase"``: the `phase_profile` of R, repeated: the part of
    the fine structure that repeats with the stride, from all periods of the map together, and so with the
    least noise.

    Where `MapStatistics` are given, the noise of the map is held back: each deviation from 1 is multiplied
    by :math:`\tau^2 / (\tau^2 + s^2)`, with its standard error s and the variance
    :math:`\tau^2 = \max(0, \mathrm{mean}((\rho - 1)^2 - s^2))` of the true deviations (Wiener's factor; the
    empirical Bayes form of James and Stein's). A map that is all noise corrects nothing.

    Args:
        sensitivity_map: Map R, shape (H, W), not negative; or its `MapStatistics`.
        mode: ``"phase"``, ``"local"`` or ``"global"``.
        period: Total stride of the network in pixels, or (vertical, horizontal); not used by ``"global"``.
        size: (H, W) of the images; by default the map's. Another one only under ``"phase"``, and where the
            period divides both.

    Returns:
        (H, W), float64, on the map's device, not negative, about 1 on average.

    Raises:
        TypeError: ``sensitivity_map`` or ``period`` is not numeric.
        ValueError: an unknown ``mode``; a map that is not (H, W), negative somewhere, not finite, zero
            everywhere, smaller than the period, or of another size; ``period`` missing or below 1; statistics
            of too few images.

    Example:
        >>> checkerboard = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(8, 8)
        >>> relief(checkerboard, "phase", period=2, size=(2, 4))
        tensor([[0.4444, 0.8889, 0.4444, 0.8889],
                [0.8889, 1.7778, 0.8889, 1.7778]], dtype=torch.float64)
    """
    return read_relief(sensitivity_map, mode, period).at(size)


@dataclass(frozen=True)
class Relief:
    """A relief of a map, or one period of it that repeats."""

    values: Tensor
    map_size: tuple[int, int]
    repeats: bool

    def at(self, size: tuple[int, int] | None) -> Tensor:
        """Return it for images of ``size``."""
        if not self.repeats:
            if size not in (None, self.map_size):
                raise ValueError(
                    f"sensitivity_map: expected attributions of the map's size {self.map_size}, got {size}; "
                    'make a map over images of that size, or use mode="phase", whose profile repeats'
                )
            return self.values
        height, width = size or self.map_size
        periods = self.values.shape
        if (height, width) != self.map_size:
            for length, own, steps in zip((height, width), self.map_size, periods, strict=True):
                if length % steps or own % steps:
                    raise ValueError(
                        f"sensitivity_map: expected the period {tuple(periods)} to divide the sizes of map "
                        f"and attributions where they differ, got {self.map_size} and {(height, width)}; "
                        "make a map over images of that size"
                    )
        rows, columns = (
            torch.arange(length, device=self.values.device) % steps
            for length, steps in zip((height, width), periods, strict=True)
        )
        return self.values[rows[:, None], columns]


def read_relief(sensitivity_map: Any, mode: Mode, period: Period | None) -> Relief:
    """Check a map and its period and return its relief."""
    check_choice("mode", mode, get_args(Mode))
    statistics = sensitivity_map if isinstance(sensitivity_map, MapStatistics) else None
    values = as_map("sensitivity_map", sensitivity_map if statistics is None else statistics.mean).double()
    size = values.shape[0], values.shape[1]
    if bool((values < 0).any()) or not bool(values.any()):
        raise ValueError(
            "sensitivity_map: expected no negative values and some positive ones, got "
            f"{values.min().item():g} to {values.max().item():g}"
        )
    if mode == "global":
        mean = values.mean()
        return Relief(_without_noise(values / mean, statistics, mean), size, repeats=False)
    if period is None:
        raise ValueError(f'period: mode="{mode}" needs the total stride of the network in pixels, got None')
    if mode == "phase" and period in (1, (1, 1)):
        raise ValueError(
            "period: a network of total stride 1 has no phases, so nothing would be divided out; "
            'mode="local" or "global" takes the map itself'
        )
    if mode == "local":
        envelope = local_mean(values, period)
        # Beyond the receptive field nothing is known, and nothing is to be divided.
        seen = envelope > 0
        envelope = torch.where(seen, envelope, 1.0)
        rho = torch.where(seen, values / envelope, 1.0)
        return Relief(_without_noise(rho, statistics, envelope), size, repeats=False)
    if statistics is None:
        return Relief(phase_profile(values, period), size, repeats=True)
    estimate = estimate_phase_profile(statistics, period)
    return Relief(_shrunk(estimate.profile, estimate.standard_error), size, repeats=True)


def _without_noise(rho: Tensor, statistics: MapStatistics | None, scale: Tensor) -> Tensor:
    """Hold back the noise of a map that was divided by ``scale``, where it is known."""
    if statistics is None:
        return rho
    if statistics.n_images < 2:
        raise ValueError("sensitivity_map: expected statistics of at least 2 images, got 1")
    return _shrunk(rho, statistics.standard_error / scale)


def _shrunk(rho: Tensor, s: Tensor) -> Tensor:
    """Draw each value towards 1 by the share of noise in its deviation."""
    # What the deviations have beyond their noise, on average over the map.
    tau_squared = ((rho - 1).square() - s.square()).mean().clamp_min(0)
    return 1 + (rho - 1) * signal_share(tau_squared, s.square())
