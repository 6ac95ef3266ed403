"""A map and every number about it: how large, how uneven, how sure."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from erfattr._files import plain
from erfattr.metrics.corrected_imbalance import Estimate, corrected_imbalance
from erfattr.metrics.dependence import dependence
from erfattr.metrics.gaussian_fit import GaussianFit, GaussianFitError, fit_gaussian
from erfattr.metrics.imbalance import imbalance_index, phase_contrast, phase_profile
from erfattr.metrics.jackknife import FEWEST_GROUPS
from erfattr.metrics.precision import images_for, relative_error, relative_error_of_index
from erfattr.metrics.significance import PhaseEstimate, dead_pixels, estimate_phase_profile
from erfattr.metrics.sizes import SizeScores, centroid_error, size_scores
from erfattr.metrics.statistics import MapSource, MapStatistics
from erfattr.metrics.weak_phases import WeakPhases, weak_phases
from erfattr.receptive_field.field import ReceptiveField

# The relative standard error that a report says how to reach.
WANTED = 0.1
# Side in pixels of what a pixel is compared with, as `dead_pixels` takes it.
_NEIGHBORHOOD = 9
_IN_WORDS = {"predicted": "predicted class", "label": "class of the label", "mean": "mean of all"}


@dataclass(frozen=True)
class MapReport:
    """A map and every number about it.

    Attributes:
        statistics: The map, with its source.
        center: Pixel (y, x) that sizes are measured about: the unit's projected centre; for the output, and
            where the centre is not known, the image centre.
        receptive_field: Theoretical receptive field of the unit's layer; ``None`` for the output.
        fit: Gaussian fit; ``None`` where it did not converge.
        fit_error: Why it did not.
        sizes: Size scores about ``center``.
        centroid_error: Standard errors (y, x) of the centroid; ``None`` for fewer images than that needs.
        imbalance: L1 and L2 of eq. 4 and 5, of the raw map and of the map divided by its mean.
        corrected: L1 and L2 of the map divided by its mean, without its sampling noise; empty for fewer
            images than that needs.
        period: (vertical, horizontal) total stride in pixels that the profile is folded by; ``None`` where
            there is none or the map is smaller.
        profile: The phase profile; ``None`` without a period.
        phase: The profile with its standard errors; ``None`` as above, for fewer images than that needs, and
            where a few of the images alone reach some phase.
        weak: Phases that are significantly weak, and what the ends of the profile receive; ``None`` as above.
        dead: Share of the pixels that are significantly weaker than half of their neighbourhood, as
            `dead_pixels` marks them; ``None`` where it cannot be told.
        dependence: Why the errors are too small: images that depend on each other; empty where none shows.
        relative_error: Median over pixels of standard error / mean, over pixels that are not zero.
        images_needed: Images in all that bring a relative standard error down to 10 %, as
            `images_needed` forecasts: of ``"pixels"`` (the median one), and of ``"L1"`` without its noise.
            ``None``: no number can be told.
    """

    statistics: MapStatistics
    center: tuple[float, float]
    receptive_field: ReceptiveField | None
    fit: GaussianFit | None
    fit_error: str | None
    sizes: SizeScores
    centroid_error: tuple[float, float] | None
    imbalance: dict[str, float]
    corrected: dict[str, Estimate]
    period: tuple[int, int] | None
    profile: Tensor | None
    phase: PhaseEstimate | None
    weak: WeakPhases | None
    dead: float | None
    dependence: str
    relative_error: float
    images_needed: dict[str, int | None]

    @property
    def source(self) -> MapSource:
        """What the map is the sensitivity of."""
        if self.statistics.source is None:
            raise ValueError("statistics: expected a source, got None")
        return self.statistics.source

    @property
    def title(self) -> str:
        """Layer and unit, for a figure's title."""
        if self.source.unit is None:
            target = str(self.source.target)
            return f"output, {_IN_WORDS.get(target, f'target {target}')}"
        return f"{self.source.layer}, unit {self.source.unit}"

    @property
    def warning(self) -> str:
        """What must be known to read the numbers; empty where there is nothing."""
        return "; ".join(filter(None, (self._of_output, self.dependence)))

    @property
    def _of_output(self) -> str:
        if self.source.layer == "output" and self.source.target == "mean":
            return (
                "y is the mean of all outputs, which nearly cancel in a trained classifier: scale and "
                'unevenness of this map are not those of its decisions, which target="predicted" maps'
            )
        return ""

    def numbers(self) -> dict[str, Any]:
        """Return everything but the map itself as plain numbers, texts, lists and dicts."""
        field = self.receptive_field
        unit = self.source.unit
        described = None
        if field is not None and unit is not None:
            described = {
                "size": field.size,
                "stride": field.stride,
                "center": field.center(unit),
                "bounds": field.bounds(unit),
                "status": field.status,
                "method": field.method,
                "unknown_operators": field.unknown_operators,
                "note": field.note,
            }
        numbers: dict[str, Any] = plain(
            {
                **asdict(self.source),
                "measured_about": self.center,
                "n_images": self.statistics.n_images,
                "map_mean": self.statistics.mean.mean(),
                "map_max": self.statistics.mean.max(),
                "median_relative_standard_error": self.relative_error,
                "images_needed_for_10_percent": self.images_needed,
                "theoretical_receptive_field": described,
                "gaussian_fit": self.fit,
                "gaussian_fit_error": self.fit_error,
                "sizes": self.sizes,
                "centroid_standard_error": self.centroid_error,
                "imbalance": self.imbalance,
                "imbalance_without_noise": self.corrected,
                "phase_period": self.period,
                "phase_contrast": None if self.profile is None else phase_contrast(self.profile),
                "phase_contrast_without_noise": None
                if self.phase is None
                else {
                    "value": self.phase.corrected_contrast,
                    "standard_error": self.phase.contrast_standard_error,
                },
                "phase_profile": self.profile,
                "weak_phases": self.weak,
                "share_of_dead_pixels": self.dead,
                "computed": self.statistics.computed,
                "warning": self.warning,
            }
        )
        return numbers


def analyse_map(
    statistics: MapStatistics,
    receptive_field: ReceptiveField | None = None,
    period: tuple[int, int] | None = None,
    *,
    grouped_by_label: bool = False,
) -> MapReport:
    """Measure a map: fit, sizes, imbalance, phase profile.

    Args:
        statistics: The map, with its source.
        receptive_field: Of the unit's layer.
        period: (vertical, horizontal) stride in pixels to fold the map by; by default the receptive field's
            stride. Left out where the map is smaller than the period, or the period is 1.
        grouped_by_label: The statistics' groups are of images that belong together, so their order says
            nothing.

    Raises:
        ValueError: the statistics have no source, or the map is zero or not finite.
    """
    if statistics.source is None:
        raise ValueError("statistics: expected a source, got None")
    mean = statistics.mean
    height, width = mean.shape
    center = statistics.source.center or ((height - 1) / 2, (width - 1) / 2)
    fit, fit_error = None, None
    grouped = len(statistics.group_sizes) >= FEWEST_GROUPS
    try:
        fit = fit_gaussian(statistics if grouped else mean)
    except GaussianFitError as error:
        fit_error = str(error)
    if period is None and receptive_field is not None:
        period = receptive_field.period
    profile, phase, weak, dead = None, None, None, None
    positive = bool((mean >= 0).all())
    usable = period is not None and max(period) > 1 and period[0] <= height and period[1] <= width
    if period is not None and usable and positive and _every_phase(mean, period):
        profile = phase_profile(mean, period)
        # Without one group, or on one half of them, a phase may have no mass: then there is no error to tell.
        with suppress(ValueError):
            phase = estimate_phase_profile(statistics, period) if grouped else None
            weak = weak_phases(statistics, period) if len(statistics.group_sizes) >= 4 else None
    if grouped and positive and min(height, width) >= _NEIGHBORHOOD:
        dead = float(dead_pixels(statistics, neighborhood=_NEIGHBORHOOD).double().mean())
    orders = (1, 2) if grouped and positive else ()
    corrected = {f"L{order}": corrected_imbalance(statistics, order) for order in orders}
    # One image has no error.
    of_pixels = relative_error(statistics) if statistics.n_images > 1 else math.inf
    found = None if grouped_by_label else dependence(statistics)
    return MapReport(
        statistics=statistics,
        center=center,
        receptive_field=receptive_field,
        fit=fit,
        fit_error=fit_error,
        sizes=size_scores(mean.abs(), center),
        centroid_error=centroid_error(statistics) if grouped and positive else None,
        imbalance={
            f"L{order}{suffix}": float(imbalance_index(mean.abs(), order, normalize))
            for order in (1, 2)
            for suffix, normalize in (("", "none"), ("_relative_to_mean", "mean"))
        },
        corrected=corrected,
        period=period if profile is not None else None,
        profile=profile,
        phase=phase,
        weak=weak,
        dead=dead,
        dependence="" if found is None else found.warning.removeprefix("inputs: "),
        relative_error=of_pixels,
        images_needed={
            of: images_for(known, statistics.n_images, WANTED)
            for of, known in (
                ("pixels", of_pixels),
                *(
                    (name, relative_error_of_index(index))
                    for name, index in corrected.items()
                    if name == "L1"
                ),
            )
        },
    )


def _every_phase(mean: Tensor, period: tuple[int, int]) -> bool:
    """Whether the map reaches every phase: the field of a shallow layer is smaller than a period."""
    # Two of each phase at least: the profile compares a pixel with those of its own phase beside it.
    rows, columns = (mean.sum(axis) > 0 for axis in (1, 0))
    return int(rows.sum()) >= 2 * period[0] and int(columns.sum()) >= 2 * period[1]
