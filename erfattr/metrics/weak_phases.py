"""Which phases of the stride's grid receive less than the others, beyond what noise explains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from erfattr._checks import check_fraction
from erfattr.metrics.imbalance import phase_profile
from erfattr.metrics.jackknife import group_sums, standard_error, with_and_without
from erfattr.metrics.significance import PhaseEstimate, estimate_phase_profile
from erfattr.metrics.statistics import MapStatistics

# Share of the phases at either end of the profile that is spoken of.
_END = 0.05


@dataclass(frozen=True)
class WeakPhases:
    """Phases that are significantly weak, and what the ends of the profile receive.

    The weakest phase of a noisy profile looks weaker than it is, since it was chosen. So the ends are chosen
    on one half of the groups of images and measured on the other, and both ways are averaged.

    Attributes:
        mask: (p_y, p_x), bool: phases significantly below the mean.
        weakest: Sensitivity of the weakest 5 % of the phases (at least one), in units of the mean; what
            noise alone makes of it is 1.
        weakest_error: One standard deviation of it.
        strongest: The same of the strongest 5 %.
        strongest_error: One standard deviation of it.
        fdr: Accepted share of false discoveries among the weak phases.
        n_images: Number of images.
    """

    mask: Tensor
    weakest: float
    weakest_error: float
    strongest: float
    strongest_error: float
    fdr: float
    n_images: int

    @property
    def sentence(self) -> str:
        """What a person reads."""
        weak, total = int(self.mask.sum()), self.mask.numel()
        ends = [
            f"{100 * value:.1f} +- {100 * error:.1f} %"
            for value, error in (
                (self.weakest, self.weakest_error),
                (self.strongest, self.strongest_error),
            )
        ]
        if weak:
            said = f"{weak} of {total} phases receive significantly less than the mean"
            together = ""
        else:  # many of which none is known well may be known well together
            said = f"none of {total} phases is known alone to receive less than the mean"
            together = "together "
        return (
            f"{said} ({100 * self.fdr:g} % FDR); {together}the weakest {100 * _END:g} % receive {ends[0]}, "
            f"the strongest {100 * _END:g} % {ends[1]}"
        )


def weak_phases(stats: MapStatistics, period: int | tuple[int, int], fdr: float = 0.05) -> WeakPhases:
    r"""Find the phases that receive less than the mean, beyond what noise explains.

    For each phase of the profile P (`phase_profile`, mean 1) the hypothesis :math:`P_{ab} \ge 1` is tested
    with

    .. math:: z_{ab} = \frac{P_{ab} - 1}{s}, \quad s^2 = \overline{s_{ab}^2},

    where the :math:`s_{ab}` are the jackknife's errors over groups of images. They are pooled over the
    phases: one phase's own error stands on a few groups, and is smallest where the phase came out weak by
    chance. The p-values of the normal distribution go through the Benjamini-Hochberg procedure.

    Args:
        stats: What ``attribute(..., return_statistics=True)`` returns, of at least four groups.
        period: The network's total stride in pixels, or (vertical, horizontal); above 1.
        fdr: Accepted share of false discoveries, in (0, 1].

    Returns:
        The `WeakPhases`; its ``sentence`` says it in words.

    Raises:
        TypeError: ``stats`` is not a `MapStatistics`; ``period`` is not an integer or two; ``fdr`` is not a
            number.
        ValueError: fewer than four groups; a ``period`` of one phase; ``fdr`` outside (0, 1]; a map whose
            mass spreads over less than a period (one standard deviation), so that its bell would count as a
            pattern; or what `estimate_phase_profile` refuses.

    Example:
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> pattern = torch.tensor([[1.2, 0.8], [1.0, 1.0]]).repeat(8, 8)
        >>> maps = pattern * (1 + 0.1 * torch.randn(64, 16, 16, generator=torch.Generator().manual_seed(0)))
        >>> statistics = StreamingStatistics()
        >>> statistics.update(maps)
        >>> found = weak_phases(statistics.result(), period=2)
        >>> found.mask.tolist()
        [[False, True], [False, False]]
        >>> round(found.weakest, 2), round(found.strongest, 2)
        (0.8, 1.2)

    References:
        Y. Benjamini and Y. Hochberg: Controlling the false discovery rate. Journal of the Royal Statistical
        Society B 57, 1995.
    """
    from scipy.stats import false_discovery_control

    check_fraction("fdr", fdr)
    estimate = estimate_phase_profile(stats, period)
    if estimate.profile.numel() == 1:
        raise ValueError(f"period: expected more than one phase, got {period}")
    sums, sizes = group_sums("stats", stats)
    if len(sizes) < 4:
        raise ValueError(f"stats: expected at least 4 groups of images, two for each half, got {len(sizes)}")
    _refuse_narrow(stats.mean, period)
    adjusted = false_discovery_control(_p_values(estimate).numpy(), method="bh")
    mask = torch.from_numpy(adjusted <= fdr).reshape(estimate.profile.shape) & (estimate.profile < 1)
    ends = [_end(sums, sizes, period, largest) for largest in (False, True)]
    (weakest, weakest_error), (strongest, strongest_error) = ends
    return WeakPhases(mask, weakest, weakest_error, strongest, strongest_error, fdr, stats.n_images)


def _refuse_narrow(mean: Tensor, period: int | tuple[int, int]) -> None:
    periods = period if isinstance(period, tuple) else (period, period)
    for axis, name in ((0, "rows"), (1, "columns")):
        mass = mean.sum(1 - axis)
        place = torch.arange(len(mass), dtype=mass.dtype)
        middle = (mass * place).sum() / mass.sum()
        spread = float(((mass * (place - middle) ** 2).sum() / mass.sum()).sqrt())
        if 1 < periods[axis] > spread:
            raise ValueError(
                f"period: expected at most the spread of the map's {name}, a standard deviation of "
                f"{spread:.1f} pixels, got {periods[axis]}: the bell of so narrow a map would "
                "count as a pattern"
            )


def _p_values(estimate: PhaseEstimate) -> Tensor:
    """Return the chance that a phase of mean sensitivity comes out as weak as it did, of each phase."""
    s = estimate.standard_error.square().mean().sqrt()
    difference = (estimate.profile - 1).flatten()
    # Without any noise the sign decides; what is equal to rounding is equal.
    certain = torch.where(difference < -1e-12, -torch.inf, torch.inf)
    chances: Tensor = torch.special.ndtr(difference / s if s > 1e-12 else certain)
    return chances


def _end(sums: Tensor, sizes: Tensor, period: int | tuple[int, int], largest: bool) -> tuple[float, float]:
    """Return what the phases at one end receive, and its standard error; chosen and measured apart."""
    values, variances = [], []
    for first in (0, 1):
        chosen_on, measured_on = sums[first::2], sums[1 - first :: 2]
        counts = sizes[1 - first :: 2]
        ranked = phase_profile(chosen_on.sum(0) / sizes[first::2].sum(), period).flatten()
        end = ranked.topk(max(round(_END * len(ranked)), 1), largest=largest).indices
        # Rounding must not make a zero negative where one group alone had the mass.
        parts = with_and_without(measured_on).clamp_min(0) / with_and_without(counts)[:, None, None]
        whole, *without = (phase_profile(part, period).flatten()[end].mean() for part in parts)
        values.append(whole)
        variances.append(standard_error(whole, torch.stack(without), counts).square())
    # Each half serves once for either purpose: the two measurements share no image.
    return float(sum(values) / 2), float((sum(variances) / 4) ** 0.5)
