"""Dead pixels and phase profiles with the noise of their map taken into account."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from erfattr._checks import check_fraction, check_not_negative, check_positive_int
from erfattr._showing import Shown
from erfattr.metrics.imbalance import phase_contrast, phase_profile
from erfattr.metrics.jackknife import group_sums, pseudo_values, root_mean_product, standard_error
from erfattr.metrics.statistics import MapStatistics


@dataclass(frozen=True, repr=False)
class PhaseEstimate(Shown):
    """A phase profile and how well it is known.

    Attributes:
        profile: (period, period), float64, mean 1: `phase_profile` of the mean map.
        standard_error: (period, period), float64: one standard deviation of each phase.
        contrast: `phase_contrast` of the profile as it is, which noise raises.
        corrected_contrast: The contrast at infinitely many images; negative where there is none that can be
            told from noise.
        contrast_standard_error: One standard deviation of ``corrected_contrast``.
        n_images: Number of images.

    Example:
        >>> from erfattr import DeadPixelMap, demo_model, estimate_phase_profile, sample_images
        >>> images = sample_images(16, size=64).split(1)
        >>> _, statistics = DeadPixelMap(demo_model()).attribute(images, return_statistics=True)
        >>> estimate = estimate_phase_profile(statistics, period=8)
        >>> estimate.profile.shape, estimate.corrected_contrast < estimate.contrast
        (torch.Size([8, 8]), True)
    """

    profile: Tensor
    standard_error: Tensor
    contrast: float
    corrected_contrast: float
    contrast_standard_error: float
    n_images: int

    def _in_words(self) -> str:
        rows, columns = self.profile.shape
        return (
            f"period {rows} x {columns}, contrast {self.contrast:.4f}, without the noise "
            f"{self.corrected_contrast:.4f} +- {self.contrast_standard_error:.2g}, {self.n_images} images"
        )


def dead_pixels(
    stats: MapStatistics, ratio: float = 0.5, *, fdr: float = 0.05, neighborhood: int = 9
) -> Tensor:
    r"""Mark the pixels that are weaker than their neighbourhood, beyond what noise explains.

    For pixel i with sensitivity R and mean sensitivity M of the other pixels in the square window around it,
    the hypothesis :math:`R_i \ge \mathrm{ratio} \cdot M_i` is tested with

    .. math::

        z_i = \frac{R_i - \mathrm{ratio} \cdot M_i}{s_i},

    where :math:`s_i^2` is what the variance of the numerator would be under the hypothesis. A pixel that is
    just ``ratio`` times as sensitive as its neighbours is ``ratio`` times as noisy, so

    .. math:: s_i^2 = \mathrm{ratio}^2 \, (\overline{v}_i + \mathrm{var}(M_i))

    with the variances of the other pixels over groups of images, averaged over the window, and that of their
    mean. The pixel's own variance is not used: where sensitivities are skewed (many images give nothing, few
    give much) it is small exactly when the pixel came out weak by chance. The p-values of the normal
    distribution go through the Benjamini-Hochberg procedure: among the marked pixels the expected share of
    those that are not weaker is at most ``fdr``. On a map of few images the mask is empty; an empty mask does
    not say that no pixel is dead, only that so many images do not show one. Under heavy-tailed noise that
    neighbours share, pixels without any sensitivity show from about 100 images on, those at a fifth of their
    neighbours from about 400.

    Args:
        stats: What ``attribute(..., return_statistics=True)`` returns, of at least three groups.
        ratio: A pixel is dead below this share of its neighbourhood's mean, in (0, 1]; 1 marks whatever is
            significantly weaker at all, also the margin of a steep map.
        fdr: Accepted share of false discoveries, in (0, 1].
        neighborhood: Side of the window in pixels, odd, at least 3, at most the map's smaller side; at the
            border the part inside the map counts. It should hold the pattern's period.

    Returns:
        bool tensor of shape (H, W), True at dead pixels. Where the neighbourhood is zero (beyond the
        receptive field) nothing is marked.

    Raises:
        TypeError: ``stats`` is not a `MapStatistics`; ``ratio``, ``fdr`` or ``neighborhood`` is not a number.
        ValueError: fewer than three groups, values that are not finite, a map with negative values or zero
            everywhere; ``ratio`` or ``fdr`` outside (0, 1]; ``neighborhood`` even, below 3 or above the map's
            smaller side.

    Example:
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> maps = 1 + 0.1 * torch.randn(64, 5, 5, generator=torch.Generator().manual_seed(0))
        >>> maps[:, 2, 3] *= 0.2
        >>> statistics = StreamingStatistics()
        >>> statistics.update(maps)
        >>> dead_pixels(statistics.result(), neighborhood=3).nonzero().tolist()
        [[2, 3]]

    References:
        Y. Benjamini and Y. Hochberg: Controlling the false discovery rate. Journal of the Royal Statistical
        Society B 57, 1995.
    """
    from scipy.stats import false_discovery_control

    check_fraction("ratio", ratio)
    check_fraction("fdr", fdr)
    check_positive_int("neighborhood", neighborhood)
    sums, sizes = group_sums("stats", stats)
    check_not_negative("stats", stats.mean)
    smaller = min(stats.mean.shape)
    if neighborhood % 2 == 0 or not 3 <= neighborhood <= smaller:
        raise ValueError(
            f"neighborhood: expected an odd number of 3 to {smaller} (the map's smaller side),"
            f" got {neighborhood}"
        )
    maps = sums / sizes[:, None, None]
    inside = _window_sum(torch.ones_like(maps[:1]), neighborhood)
    weights = (sizes / sizes.sum())[:, None, None]

    def others(values: Tensor) -> Tensor:
        """Mean of the other pixels of each window."""
        return (_window_sum(values, neighborhood) - values) / (inside - 1)

    def variance(values: Tensor) -> Tensor:
        """Variance of the mean over groups."""
        return (weights * (values - (weights * values).sum(0)) ** 2).sum(0) / (len(sizes) - 1)

    around = others(maps)
    difference = (weights * (maps - ratio * around)).sum(0)
    s = ratio * (others(variance(maps)[None])[0] + variance(around)).sqrt()
    # Without any noise the sign decides; what is equal to rounding is equal.
    tiny = 1e-12 * stats.mean.max()
    certain = torch.where(difference < -tiny, -torch.inf, torch.inf)
    z = torch.where(s > tiny, difference / s, certain)
    p_values = torch.special.ndtr(z).flatten().numpy()
    adjusted = false_discovery_control(p_values, method="bh")
    return torch.from_numpy(adjusted <= fdr).reshape(z.shape) & (difference < 0)


def estimate_phase_profile(stats: MapStatistics, period: int | tuple[int, int]) -> PhaseEstimate:
    r"""Estimate the phase profile of a map, its standard errors, and its contrast without noise.

    The profile is `phase_profile` of the mean map; its error comes from a jackknife over the groups. Noise
    alone has a contrast too. The square of the corrected one is the mean product of the jackknife's
    pseudo-profiles of different groups (less 1), to which noise that is independent between groups adds
    nothing on average.

    Args:
        stats: What ``attribute(..., return_statistics=True)`` returns, of at least three groups.
        period: The network's total stride in pixels, or (vertical, horizontal).

    Returns:
        The `PhaseEstimate`.

    Raises:
        TypeError: ``stats`` is not a `MapStatistics`; ``period`` is not an integer or two.
        ValueError: fewer than three groups, values that are not finite, or what `phase_profile` refuses.

    Example:
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> statistics = StreamingStatistics(groups=4)
        >>> statistics.update(torch.tensor([[1.5, 0.5], [0.5, 1.5]]).repeat(4, 4, 4))
        >>> estimate = estimate_phase_profile(statistics.result(), period=2)
        >>> estimate.corrected_contrast, estimate.contrast_standard_error
        (0.5, 0.0)
    """
    sums, sizes = group_sums("stats", stats)
    profile = phase_profile(stats.mean, period)
    total = sums.sum(0)
    # Rounding must not make a zero negative where one group alone had the mass.
    without = torch.stack(
        [
            phase_profile(((total - group_sum) / (sizes.sum() - size)).clamp_min(0), period)
            for group_sum, size in zip(sums, sizes, strict=True)
        ]
    )
    root = root_mean_product((pseudo_values(profile, without, sizes) - 1).flatten(1))
    return PhaseEstimate(
        profile=profile,
        standard_error=standard_error(profile, without, sizes),
        contrast=phase_contrast(profile),
        corrected_contrast=root.value,
        contrast_standard_error=root.standard_error,
        n_images=stats.n_images,
    )


def _window_sum(maps: Tensor, side: int) -> Tensor:
    """Return the sums over the part of the square window around each pixel that lies inside the map."""
    summed = F.avg_pool2d(maps[:, None], (side, 1), 1, (side // 2, 0))
    return F.avg_pool2d(summed, (1, side), 1, (0, side // 2))[:, 0] * side**2
