"""How unequal neighbouring pixels are: imbalance indices, strong and weak pixels, the phase profile."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from erfattr._checks import as_map, check_choice, check_not_negative, check_positive_int, describe
from erfattr.metrics.ranking import first_pixels


def imbalance_index(sensitivity_map: Any, order: int = 1, normalize: str = "none") -> Tensor:
    r"""Measure pixel sensitivity imbalance: mean absolute difference of neighbouring pixels.

    For a map R of H rows and W columns, eq. 4 (``order=1``, first differences) and eq. 5 (``order=2``, second
    differences, filter 1, -2, 1) are

    .. math::

        L_1 = \frac{\sum_{x,y} |\partial_x R_{xy}| + |\partial_y R_{xy}|}{H (W - 1) + (H - 1) W}, \qquad
        L_2 = \frac{\sum_{x,y} |\partial^2_x R_{xy}| + |\partial^2_y R_{xy}|}{H (W - 2) + (H - 2) W}

    The denominator is the number of terms: 224 * 223 * 2 and 224 * 222 * 2 for the paper's 224 x 224 maps.

    The raw index carries the scale of the gradients, which differs between networks by orders of magnitude:
    to compare networks, layers or training states use ``normalize="mean"``, which measures R / mean(R). The
    raw one is the paper's. Neither says where the imbalance comes from: a steep but smooth envelope and the
    sampling noise of a map over few images raise it as well as a checkerboard does, and maps over different
    numbers of images are not comparable.

    Args:
        sensitivity_map: one map or several, shape (..., H, W), at least ``order + 1`` pixels high and wide.
        order: 1 for eq. 4, 2 for eq. 5.
        normalize: "none" for R itself, "mean" for each map divided by its own mean.

    Returns:
        float64 tensor of the leading shape (...): a scalar tensor for one map. Not negative; zero for a
        constant map (and, at order 2, for a linear one). In the map's unit per pixel, or without unit under
        "mean".

    Raises:
        TypeError: ``sensitivity_map`` is not a tensor, array or nested list of real numbers.
        ValueError: ``sensitivity_map`` has fewer than two axes, too few pixels or values that are not finite;
            ``order`` or ``normalize`` is none of the choices; the mean to divide by is not positive.

    Example:
        Rows 1, 0, 1, 0: along a row every step is 1 (12 of them), down a column every step is 0 (12 too).

        >>> import torch
        >>> stripes = torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(4, 1)
        >>> imbalance_index(stripes).item()
        0.5
        >>> imbalance_index(stripes, normalize="mean").item()
        1.0
        >>> imbalance_index(stripes, order=2).item()
        1.0

    References:
        B. J. Kim et al.: Dead Pixel Test Using Effective Receptive Field, eq. 4 and 5.
    """
    maps = as_map("sensitivity_map", sensitivity_map, batched=True).double()
    check_choice("order", order, (1, 2))
    check_choice("normalize", normalize, ("none", "mean"))
    height, width = maps.shape[-2:]
    if min(height, width) <= order:
        raise ValueError(
            f"sensitivity_map: expected at least {order + 1} x {order + 1} pixels for order={order},"
            f" got {height} x {width}"
        )
    if normalize == "mean":
        maps = maps / _positive_mean(maps)
    down = torch.diff(maps, n=order, dim=-2).abs()
    across = torch.diff(maps, n=order, dim=-1).abs()
    terms = down.shape[-2] * width + height * across.shape[-1]
    return (down.sum(dim=(-2, -1)) + across.sum(dim=(-2, -1))) / terms


def strong_pixels(sensitivity_map: Any, fraction: float) -> Tensor:
    """Mark the strongest pixels of a map: exactly ``fraction * H * W`` of them, rounded, a half up.

    Equal values are ranked by position, row by row from the top left, and the product is rounded as
    :func:`~erfattr.metrics.ranking.pixel_count` says, so the mask is the same on every machine. The mask says
    which pixels rank highest, not that they are much stronger than the others: that is what
    :func:`imbalance_index` and :func:`phase_contrast` are for.

    Args:
        sensitivity_map: the map, shape (H, W), any sign and scale.
        fraction: share of the pixels to mark, in (0, 1].

    Returns:
        bool tensor of shape (H, W) on the map's device, True at the strongest pixels.

    Raises:
        TypeError: ``sensitivity_map`` or ``fraction`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W) or not finite, or constant (no pixel is stronger than
            another); ``fraction`` is outside (0, 1] or so small that it rounds to no pixel.

    Example:
        >>> import torch
        >>> strong_pixels(torch.tensor([[1.0, 4.0], [2.0, 3.0]]), fraction=0.5)
        tensor([[False,  True],
                [False,  True]])
    """
    return first_pixels(_uneven(sensitivity_map), fraction)


def weak_pixels(sensitivity_map: Any, fraction: float) -> Tensor:
    """Mark the weakest pixels of a map: exactly ``fraction * H * W`` of them, rounded, a half up.

    The twin of :func:`strong_pixels`; equal values are ranked by position here too, row by row from the top
    left. A weak pixel is not a dead one: the mask marks this many pixels however sensitive they are.

    Args:
        sensitivity_map: the map, shape (H, W), any sign and scale.
        fraction: share of the pixels to mark, in (0, 1].

    Returns:
        bool tensor of shape (H, W) on the map's device, True at the weakest pixels.

    Raises:
        TypeError: ``sensitivity_map`` or ``fraction`` is not numeric.
        ValueError: ``sensitivity_map`` is not (H, W) or not finite, or constant; ``fraction`` is outside
            (0, 1] or so small that it rounds to no pixel.

    Example:
        >>> import torch
        >>> weak_pixels(torch.tensor([[1.0, 4.0], [2.0, 3.0]]), fraction=0.25)
        tensor([[ True, False],
                [False, False]])
    """
    return first_pixels(_uneven(sensitivity_map), fraction, strongest=False)


def phase_profile(sensitivity_map: Any, period: int | tuple[int, int]) -> Tensor:
    r"""Fold a map by pixel index modulo the stride: the repeating pattern without the envelope under it.

    The map is divided by its local mean and the quotient averaged over all pixels of the same phase,

    .. math::

        P_{ab} \propto \operatorname{mean}\{R_{xy} / \bar R_{xy} : y \bmod p = a,\; x \bmod p = b\}.

    The local mean of a pixel is the mean over all windows of exactly one period (p x p pixels) that contain
    the pixel and lie inside the map. Every such window holds each phase once, so a periodic map times a
    constant comes back exactly, at the border and for any map size; and as the windows lie evenly around a
    pixel, so does, away from the border, a periodic map times a bilinear slope. (One window centred on the
    pixel lacks both: an even period has no centre, and under a slope the pattern leaks into the mean.)
    Therefore pixels within ``period - 1`` of the border are left out, along each axis where that leaves a
    whole period (at least ``3 * period - 2`` pixels); on smaller maps all pixels count. What remains under
    a curved envelope grows with the square of period over envelope width: for a period of 32 and a Gaussian
    of sigma 60 on 224 x 224 pixels, the error is 0.7 % of the contrast.

    The profile describes a pattern locked to the pixel grid. It says nothing about patterns of another
    period, and noise leaves a contrast of its own, larger for long periods (fewer pixels to average per
    phase).

    Args:
        sensitivity_map: the map, shape (H, W), not negative, at least one period high and wide.
        period: the network's total stride in pixels, or (vertical, horizontal).

    Returns:
        Tensor of shape (period, period), float64, mean 1: entry (a, b) is the mean relative sensitivity of
        the pixels (y, x) with y mod period = a and x mod period = b; 1 everywhere means no pattern.

    Raises:
        TypeError: ``sensitivity_map`` is not numeric; ``period`` is not an integer or two.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, negative somewhere, smaller than the
            period, or zero around every pixel of some phase; ``period`` is below 1.

    Example:
        The mean of 1, 2, 2, 4 is 9/4, so the pattern is 4/9, 8/9, 8/9, 16/9 of it, whatever the scale.

        >>> import torch
        >>> checkerboard = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(8, 8)
        >>> phase_profile(100 * checkerboard, period=2)
        tensor([[0.4444, 0.8889],
                [0.8889, 1.7778]], dtype=torch.float64)
    """
    values, periods = _map_and_periods(sensitivity_map, period)
    around = window_mean(values, periods)
    keep = around > 0
    for axis, (size, steps) in enumerate(zip(values.shape, periods, strict=True)):
        if size >= 3 * steps - 2:
            margin = torch.arange(size, device=values.device)
            inside = (margin >= steps - 1) & (margin <= size - steps)
            keep = keep & (inside[:, None] if axis == 0 else inside[None, :])
    rows = torch.arange(values.shape[0], device=values.device) % periods[0]
    columns = torch.arange(values.shape[1], device=values.device) % periods[1]
    phase = (rows[:, None] * periods[1] + columns)[keep]
    bins = periods[0] * periods[1]
    counts = torch.bincount(phase, minlength=bins)
    if bool((counts == 0).any()):
        raise ValueError(
            f"sensitivity_map: expected mass around some pixel of every phase,"
            f" got only zeros for {int((counts == 0).sum())} of {bins} phases"
        )
    sums = values.new_zeros(bins).index_add(0, phase, values[keep] / around[keep])
    profile = sums / counts
    return (profile / profile.mean()).reshape(periods)


def local_mean(sensitivity_map: Any, period: int | tuple[int, int]) -> Tensor:
    """Average a map over the surroundings of each pixel: its envelope, free of patterns of that period.

    Each pixel's value is the mean over all windows of exactly one period that contain it and lie inside the
    map, as `phase_profile` uses it: a periodic map has the same value everywhere.

    Args:
        sensitivity_map: the map, shape (H, W), not negative, at least one period high and wide.
        period: the network's total stride in pixels, or (vertical, horizontal).

    Returns:
        (H, W), float64.

    Raises:
        TypeError: ``sensitivity_map`` is not numeric; ``period`` is not an integer or two.
        ValueError: ``sensitivity_map`` is not (H, W), not finite, negative somewhere, or smaller than the
            period; ``period`` is below 1.

    Example:
        >>> import torch
        >>> local_mean(torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(2, 2), period=2)[0]
        tensor([2.2500, 2.2500, 2.2500, 2.2500], dtype=torch.float64)
    """
    return window_mean(*_map_and_periods(sensitivity_map, period))


def phase_contrast(profile: Any) -> float:
    """Measure how strong a repeating pattern is: the standard deviation of a phase profile.

    Args:
        profile: what :func:`phase_profile` returns, shape (period, period), mean 1.

    Returns:
        Population standard deviation over the phases: 0 without a pattern, sqrt(3) where only one pixel in
        every 2 x 2 is used.

    Raises:
        TypeError: ``profile`` is not numeric.
        ValueError: ``profile`` is not two-dimensional, not finite, or its mean is not 1 (a map was passed).

    Example:
        >>> import torch
        >>> phase_contrast(torch.tensor([[1.5, 0.5], [0.5, 1.5]]))
        0.5
    """
    values = as_map("profile", profile).double()
    mean = values.mean().item()
    # Wide enough for a profile kept in half precision, far narrower than any map passed by mistake.
    if abs(mean - 1) > 1e-2:
        raise ValueError(f"profile: expected a phase profile with mean 1, got mean {mean:g}")
    return values.std(correction=0).item()


def _map_and_periods(sensitivity_map: Any, period: Any) -> tuple[Tensor, tuple[int, int]]:
    """Return a map that is not negative, and a period that fits into it, both checked."""
    values = as_map("sensitivity_map", sensitivity_map).double()
    periods = (period, period) if not isinstance(period, tuple) else period
    if len(periods) != 2:
        raise TypeError(f"period: expected an integer or (vertical, horizontal), got {describe(period)}")
    for steps in periods:
        check_positive_int("period", steps)
    check_not_negative("sensitivity_map", values)
    if values.shape[0] < periods[0] or values.shape[1] < periods[1]:
        raise ValueError(
            f"sensitivity_map: expected at least one period of {periods[0]} x {periods[1]} pixels,"
            f" got {values.shape[0]} x {values.shape[1]}"
        )
    return values, periods


def _positive_mean(maps: Tensor) -> Tensor:
    """Return the mean of each map, kept as (..., 1, 1), or raise where it cannot be divided by."""
    means = maps.mean(dim=(-2, -1), keepdim=True)
    if not bool((means > 0).all()):
        raise ValueError(
            f'sensitivity_map: expected a positive mean for normalize="mean", got {means.min().item():g}'
        )
    return means


def _uneven(sensitivity_map: Any) -> Tensor:
    """Return a map, or raise where no pixel ranks before another."""
    values = as_map("sensitivity_map", sensitivity_map)
    first = values[0, 0]
    if bool((values == first).all()):
        raise ValueError(
            f"sensitivity_map: expected pixels of different strength, got {first.item():g} everywhere"
        )
    return values


def window_mean(values: Tensor, periods: tuple[int, int]) -> Tensor:
    """Return, for each pixel, the mean over all one-period windows inside the map that contain it.

    Sums over windows, not differences of running sums: those would leave rounding dust where the map is zero.
    """
    means = values
    for axis, length in enumerate(periods):
        windows = _window_sums(means, length, axis) / length
        # All windows that contain a pixel: sum again over the windows that exist, and count them.
        padding = (length - 1, length - 1) if axis else (0, 0, length - 1, length - 1)
        sums = _window_sums(F.pad(windows, padding), length, axis)
        ones = F.pad(
            torch.ones(windows.shape[axis], dtype=means.dtype, device=means.device), (length - 1,) * 2
        )
        counts = _window_sums(ones, length, 0)
        means = sums / (counts if axis else counts[:, None])
    return means


def _window_sums(values: Tensor, length: int, axis: int) -> Tensor:
    """Return the sum over each window of ``length`` along an axis, one for each place that it fits into.

    Windows of twice the length are sums of two, so a window of length n costs log2(n) additions and not n.
    """
    count = values.shape[axis] - length + 1
    total, begun = torch.zeros_like(values.narrow(axis, 0, count)), 0
    window, reach = values, 1  # sums over windows of the length ``reach``
    while reach <= length:
        if length & reach:
            total += window.narrow(axis, begun, count)
            begun += reach
        reach *= 2
        if reach <= length:
            size = window.shape[axis] - reach // 2
            window = window.narrow(axis, 0, size) + window.narrow(axis, reach // 2, size)
    return total
