"""From maps to what a person reads: numbers, figures, and files that are whole or not there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from erfattr._files import environment, plain, writing
from erfattr.metrics.corrected_imbalance import Estimate, corrected_imbalance
from erfattr.metrics.gaussian_fit import GaussianFit, GaussianFitError, fit_gaussian
from erfattr.metrics.imbalance import imbalance_index, phase_contrast, phase_profile
from erfattr.metrics.jackknife import FEWEST_GROUPS
from erfattr.metrics.significance import PhaseEstimate, dead_pixels, estimate_phase_profile
from erfattr.metrics.sizes import SizeScores, size_scores
from erfattr.metrics.statistics import MapSource, MapStatistics
from erfattr.receptive_field.field import ReceptiveField
from erfattr.report.plots import (
    pixel_exact_dpi,
    plot_gaussian_fit,
    plot_map,
    plot_map_row,
    plot_phase_profile,
    plot_zoom,
)

_NEIGHBORHOOD = 9


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
        imbalance: L1 and L2 of eq. 4 and 5, of the raw map and of the map divided by its mean.
        corrected: L1 and L2 of the map divided by its mean, without its sampling noise; empty for fewer
            images than that needs.
        period: (vertical, horizontal) total stride in pixels that the profile is folded by; ``None`` where
            there is none or the map is smaller.
        profile: The phase profile; ``None`` without a period.
        phase: The profile with its standard errors; ``None`` as above, or for fewer images than that needs.
        dead: Share of the pixels that are significantly weaker than half of their neighbourhood, as
            `dead_pixels` marks them; ``None`` where it cannot be told.
        relative_error: Median over pixels of standard error / mean, over pixels that are not zero.
    """

    statistics: MapStatistics
    center: tuple[float, float]
    receptive_field: ReceptiveField | None
    fit: GaussianFit | None
    fit_error: str | None
    sizes: SizeScores
    imbalance: dict[str, float]
    corrected: dict[str, Estimate]
    period: tuple[int, int] | None
    profile: Tensor | None
    phase: PhaseEstimate | None
    dead: float | None
    relative_error: float

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
            return "output"
        return f"{self.source.layer}, unit {self.source.unit}"

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
                "theoretical_receptive_field": described,
                "gaussian_fit": self.fit,
                "gaussian_fit_error": self.fit_error,
                "sizes": self.sizes,
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
                "share_of_dead_pixels": self.dead,
                "computed": self.statistics.computed,
            }
        )
        return numbers


def analyse_map(
    statistics: MapStatistics,
    receptive_field: ReceptiveField | None = None,
    period: tuple[int, int] | None = None,
) -> MapReport:
    """Measure a map: fit, sizes, imbalance, phase profile.

    Args:
        statistics: The map, with its source.
        receptive_field: Of the unit's layer.
        period: (vertical, horizontal) stride in pixels to fold the map by; by default the receptive field's
            stride. Left out where the map is smaller than the period, or the period is 1.

    Raises:
        ValueError: the statistics have no source, or the map is zero or not finite.
    """
    if statistics.source is None:
        raise ValueError("statistics: expected a source, got None")
    mean = statistics.mean
    height, width = mean.shape
    center = statistics.source.center or ((height - 1) / 2, (width - 1) / 2)
    fit, fit_error = None, None
    try:
        fit = fit_gaussian(mean)
    except GaussianFitError as error:
        fit_error = str(error)
    if period is None and receptive_field is not None:
        period = _whole(receptive_field.stride)
    profile, phase, dead = None, None, None
    grouped = len(statistics.group_sizes) >= FEWEST_GROUPS
    positive = bool((mean >= 0).all())
    usable = period is not None and max(period) > 1 and period[0] <= height and period[1] <= width
    if period is not None and usable and positive and _every_phase(mean, period):
        profile = phase_profile(mean, period)
        phase = estimate_phase_profile(statistics, period) if grouped else None
    if grouped and positive and min(height, width) >= _NEIGHBORHOOD:
        dead = float(dead_pixels(statistics, neighborhood=_NEIGHBORHOOD).double().mean())
    seen = mean != 0
    return MapReport(
        statistics=statistics,
        center=center,
        receptive_field=receptive_field,
        fit=fit,
        fit_error=fit_error,
        sizes=size_scores(mean.abs(), center),
        imbalance={
            f"L{order}{suffix}": float(imbalance_index(mean.abs(), order, normalize))
            for order in (1, 2)
            for suffix, normalize in (("", "none"), ("_relative_to_mean", "mean"))
        },
        corrected={
            f"L{order}": corrected_imbalance(statistics, order) for order in (1, 2) if grouped and positive
        },
        period=period if profile is not None else None,
        profile=profile,
        phase=phase,
        dead=dead,
        relative_error=float((statistics.standard_error[seen] / mean[seen].abs()).median()),
    )


def _every_phase(mean: Tensor, period: tuple[int, int]) -> bool:
    """Whether the map reaches every phase: the field of a shallow layer is smaller than a period."""
    rows, columns = (mean.sum(axis) > 0 for axis in (1, 0))
    return int(rows.sum()) >= 2 * period[0] and int(columns.sum()) >= 2 * period[1]


def _whole(stride: Sequence[float]) -> tuple[int, int] | None:
    if all(float(step).is_integer() and step >= 1 for step in stride):
        return int(stride[0]), int(stride[1])
    return None


def draw_map(report: MapReport, heading: str | None = None) -> Figure:
    """Draw one map: as a whole, its pixels around the centre, its profile with the fit, its phase profile.

    Args:
        report: What `analyse_map` gave.
        heading: What to write above all, such as the model and its weights.
    """
    panels = 3 if report.profile is None else 4
    with plt.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.3 * panels, 4.2), dpi=150, layout="constrained")
        axes = figure.subplots(1, panels)
        figure.suptitle(heading or "")
        unit = report.source.unit
        field = report.receptive_field
        plot_map(
            axes[0],
            report.statistics.mean,
            unit=unit,
            center=report.center if unit is not None else None,
            bounds=field.bounds(unit) if field is not None and unit is not None else None,
            title=f"{report.title}, {report.statistics.n_images} images",
        )
        plot_zoom(axes[1], report.statistics.mean, center=report.center)
        if report.fit is not None:
            plot_gaussian_fit(axes[2], report.statistics.mean, report.fit)
        else:
            axes[2].set_axis_off()
            axes[2].text(0.5, 0.5, "no Gaussian fits this map", ha="center", transform=axes[2].transAxes)
        if report.profile is not None:
            plot_phase_profile(axes[3], report.profile)
    return figure


def draw_maps(reports: Sequence[MapReport], heading: str | None = None) -> Figure:
    """Draw maps side by side, as in Figure 1 of the paper; ``heading`` is written above all."""
    with plt.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.3 * len(reports), 3.8), dpi=150, layout="constrained")
        axes = figure.subplots(1, len(reports), squeeze=False)[0]
        figure.suptitle(heading or "")
        plot_map_row(
            axes, [report.statistics.mean for report in reports], titles=[report.title for report in reports]
        )
    return figure


def file_stem(source: MapSource) -> str:
    """Return the name under which a map is written: its layer's, with what file systems dislike replaced."""
    return re.sub(r"[^\w.-]+", "_", source.layer) or "model"


def write_maps(
    folder: str | Path,
    reports: Sequence[MapReport],
    record: Mapping[str, Any],
    heading: str | None = None,
) -> list[Path]:
    """Write maps, figures and one JSON file.

    Every file is written beside its place and then renamed, so a file that is there is whole.

    Args:
        folder: Where to; made if it is not there.
        reports: What `analyse_map` gave, at least one, each of another layer.
        record: What is needed to repeat the run; becomes ``record`` in the JSON file.
        heading: What to write above every figure, such as the model and its weights.

    Returns:
        The files: for each map ``NAME.npy`` (the mean, float64), ``NAME_standard_error.npy`` and
        ``NAME.png``; ``maps.png`` for all of them side by side; ``result.json``.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: no report, or two of one layer.
    """
    stems = [file_stem(report.source) for report in reports]
    if not reports or len(set(stems)) < len(stems):
        raise ValueError(f"reports: expected reports of different layers, got {stems or 'none'}")
    with writing(folder) as stage:
        for stem, report in zip(stems, reports, strict=True):
            np.save(stage / f"{stem}.npy", report.statistics.mean.numpy())
            np.save(stage / f"{stem}_standard_error.npy", report.statistics.standard_error.numpy())
            save_figure(draw_map(report, heading), stage / f"{stem}.png")
        save_figure(draw_maps(reports, heading), stage / "maps.png")
        result = {
            "record": plain(record),
            "environment": environment(),
            "maps": {stem: report.numbers() for stem, report in zip(stems, reports, strict=True)},
        }
        (stage / "result.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        names = sorted(path.name for path in stage.iterdir())
    return [Path(folder) / name for name in names]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure at the resolution that draws all pixels of its first map equally large."""
    # A map's pixel must be a whole number of the file's, or scaling draws a grid of its own.
    figure.savefig(path, dpi=pixel_exact_dpi(figure.axes[0]))
