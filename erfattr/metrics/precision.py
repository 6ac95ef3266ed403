"""How well a map and its numbers are known, and how many images it takes to know them better."""

from __future__ import annotations

import math
from typing import get_args

from erfattr._checks import ToleranceOf, check_choice, check_fraction, describe
from erfattr.metrics.corrected_imbalance import Estimate, corrected_imbalance
from erfattr.metrics.statistics import MapStatistics


def relative_error(statistics: MapStatistics, of: ToleranceOf = "pixels") -> float:
    """Return the relative standard error of a map or of its imbalance, over draws of images.

    Args:
        statistics: What ``attribute(..., return_statistics=True)`` returns, of at least two images; for an
            index of at least three groups of images.
        of: ``"pixels"``: the median over pixels that are not zero of standard error / mean; ``"L1"`` or
            ``"L2"``: the sampling error of the corrected index over its value. The shape error is left out:
            more images do not lower it.

    Returns:
        Not negative; infinite where all pixels are zero, or the index is not above zero.

    Raises:
        TypeError: ``statistics`` is not a `MapStatistics`.
        ValueError: ``of`` is none of the choices; too few images or groups.

    Example:
        Two images of 1 and 3 everywhere: the mean is 2, its standard error 1.

        >>> import torch
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> statistics = StreamingStatistics(groups=2)
        >>> statistics.update(torch.tensor([1.0, 3.0])[:, None, None].expand(2, 4, 4))
        >>> relative_error(statistics.result())
        0.5
    """
    if not isinstance(statistics, MapStatistics):
        raise TypeError(f"statistics: expected a MapStatistics, got {describe(statistics)}")
    check_choice("of", of, get_args(ToleranceOf))
    if of == "pixels":
        if statistics.n_images < 2:
            raise ValueError(f"statistics: expected at least 2 images, got {statistics.n_images}")
        seen = statistics.mean != 0
        if not bool(seen.any()):
            return math.inf
        return float((statistics.standard_error[seen] / statistics.mean[seen].abs()).median())
    return relative_error_of_index(corrected_imbalance(statistics, order=1 if of == "L1" else 2))


def relative_error_of_index(index: Estimate) -> float:
    """Return sampling error / value of a corrected index; infinite where it is not above zero."""
    return index.sampling_error / index.value if index.value > 0 else math.inf


def images_needed(
    statistics: MapStatistics, tolerance: float = 0.1, of: ToleranceOf = "pixels"
) -> int | None:
    """Forecast how many images, in all, bring a relative standard error down to a tolerance.

    An error over images falls with the square root of their number, so N images with the error e forecast
    N (e / tolerance)^2. The forecast is as good as the error is known: within some ten percent from a
    hundred images on, within a factor of two from ten. It does not know of images that depend on each other.

    Args:
        statistics: As `relative_error` takes them.
        tolerance: The relative standard error that is wanted, in (0, 1].
        of: What is to be known, as in `relative_error`.

    Returns:
        The number of images in all, those that are there included; ``None`` where no number can be told: an
        index that is not above zero.

    Raises:
        TypeError: ``statistics`` is not a `MapStatistics`.
        ValueError: ``tolerance`` is not in (0, 1]; what `relative_error` refuses.

    Example:
        Two images with an error of 50 %: a fifth of that takes 25 times as many.

        >>> import torch
        >>> from erfattr.metrics.statistics import StreamingStatistics
        >>> statistics = StreamingStatistics(groups=2)
        >>> statistics.update(torch.tensor([1.0, 3.0])[:, None, None].expand(2, 4, 4))
        >>> images_needed(statistics.result(), tolerance=0.1)
        50
    """
    check_fraction("tolerance", tolerance)
    return images_for(relative_error(statistics, of), statistics.n_images, tolerance)


def images_for(error: float, n_images: int, tolerance: float) -> int | None:
    """Return how many images bring the relative error of ``n_images`` ones down to a tolerance."""
    if not math.isfinite(error):
        return None
    # Rounded first, so that an error that is exactly the tolerance asks for no more image.
    return math.ceil(round(n_images * (error / tolerance) ** 2, 6))
