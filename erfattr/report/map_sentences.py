"""What a person reads of one map, line by line."""

from __future__ import annotations

from typing import Literal

from erfattr.metrics.gaussian_fit import GaussianFit
from erfattr.report.map_report import WANTED, MapReport

WEAK_GRID, STRONG_GRID = 0.05, 0.15
"""Phase contrasts, as shares of the mean; below the first a grid is weak, above the second strong."""

Grid = Literal["none", "not told", "weak", "there", "strong"]
_GRIDS: dict[Grid, str] = {
    "none": "No grid beyond the noise",
    "not told": "A grid cannot be told from the noise yet",
    "weak": "There is a grid, and it is weak",
    "there": "There is a grid",
    "strong": "There is a strong grid",
}


def grid_of(report: MapReport) -> tuple[Grid, str, str] | None:
    """Judge the grid of a map by its corrected phase contrast.

    Returns:
        What kind of grid it is, that in words, and its period; ``None`` where it was not measured.
    """
    if report.phase is None or report.period is None:
        return None
    value, error = report.phase.corrected_contrast, report.phase.contrast_standard_error
    kind: Grid
    if value <= 2 * error:
        kind = "none" if value + 2 * error < WEAK_GRID else "not told"
    elif value < WEAK_GRID:
        kind = "weak"
    else:
        kind = "there" if value < STRONG_GRID else "strong"
    rows, columns = report.period
    return kind, _GRIDS[kind], f"{rows}" if rows == columns else f"{rows} x {columns}"


def conclusion(report: MapReport) -> str:
    """Return what a person wants to know of one map, in a line."""
    said = []
    index = report.corrected.get("L1")
    if index is not None:
        said.append(f"uneven by L1 {index.value:.3f} +- {index.standard_error:.3f} without the noise")
    grid = grid_of(report)
    if grid is not None and report.phase is not None:
        _, words, period = grid
        contrast, error = report.phase.corrected_contrast, report.phase.contrast_standard_error
        said.append(
            f"{words[0].lower()}{words[1:]} (phase contrast {contrast:.3f} +- {error:.3f} at period {period})"
        )
    if report.source.unit is not None and report.fit is not None:
        said.append(f"sigma {report.fit.sigma_y:.1f} x {report.fit.sigma_x:.1f} pixels")
    if not said:
        said.append("too few images to tell more than the map")
    return f"{report.title}: {'; '.join(said)}"


def map_lines(report: MapReport, seconds_per_image: float | None = None) -> list[str]:
    """Return everything about a map in words, a fact a line; the first line is its title.

    Args:
        report: What `analyse_map` gave.
        seconds_per_image: How long an image took; ``None``: no time is forecast.
    """
    numbers = report.numbers()
    lines = [report.title]
    if report.source.layout not in ("", "(N, C, H, W), traced"):
        lines.append(f"layout: {report.source.layout}")
    if report.warning:
        lines.append(f"warning: {report.warning}")
    if report.weak is not None:
        lines.append(report.weak.sentence)
    field = report.receptive_field
    if field is not None and report.source.unit is not None:
        y, x = field.center(report.source.unit)
        lines.append(
            f"centred on pixel ({y:g}, {x:g}), stride {field.stride[0]:g}; "
            f"theoretical receptive field {field.size[0]} x {field.size[1]} ({field.status})"
        )
    if report.fit is None:
        lines.append(f"Gaussian fit: none ({report.fit_error})")
    else:
        lines.append(f"Gaussian fit: {_fit_in_words(report.fit)}")
    index = report.imbalance
    lines.append(
        f"imbalance of R / mean(R): L1 {index['L1_relative_to_mean']:.4f}, "
        f"L2 {index['L2_relative_to_mean']:.4f} (sampling noise of {numbers['n_images']} images included)"
    )
    lines += [f"without the noise: {estimate}" for estimate in report.corrected.values()]
    if report.profile is not None and report.period is not None:
        lines.append(f"phase contrast at period {report.period[0]}: {numbers['phase_contrast']:.4f}")
        if report.phase is not None:
            lines[-1] += (
                f", without the noise {report.phase.corrected_contrast:.4f} "
                f"+- {report.phase.contrast_standard_error:.4f}"
            )
    if report.dead is not None:
        lines.append(f"pixels significantly below half of their neighbourhood: {100 * report.dead:.1f} %")
    lines.append(
        f"standard error of a pixel, median: {100 * report.relative_error:.0f} % of its value, over "
        f"{numbers['n_images']} images"
    )
    lines.append(f"to know it to {100 * WANTED:g} %: {needed_in_words(report, seconds_per_image)}")
    return lines


def needed_in_words(report: MapReport, seconds_per_image: float | None = None) -> str:
    """Return how many images, and how much time, a well known pixel and imbalance would take."""
    there, said = report.statistics.n_images, []
    for of, count in report.images_needed.items():
        what = {"pixels": "the median pixel", "L1": "L1 without its noise"}[of]
        if count is None:
            said.append(f"no number of images can be told for {what}")
        elif count <= there:
            said.append(f"{there} images are enough for {what}")
        else:
            more = count - there
            time_left = "" if seconds_per_image is None else f" ({_duration(more * seconds_per_image)})"
            said.append(f"about {more} more images{time_left} for {what}")
    return "; ".join(said)


def _fit_in_words(fit: GaussianFit) -> str:
    """Return the parameters of a fit, with their errors where these are over images."""
    (y, x), errors = fit.center, fit.standard_errors
    values = [y, x, fit.sigma_y, fit.sigma_x, fit.r_squared]
    said = [f"{value:.1f}" for value in values[:4]] + [f"{values[4]:.3f}"]
    if errors.source == "images" and errors.r_squared is not None:
        spreads = [*errors.center, errors.sigma_y, errors.sigma_x]
        said = [f"{value} +- {spread:.1f}" for value, spread in zip(said, spreads, strict=False)]
        said.append(f"{fit.r_squared:.3f} +- {errors.r_squared:.3f}")
    return f"centre ({said[0]}, {said[1]}), sigma_y {said[2]}, sigma_x {said[3]} px, R^2 {said[4]}"


def _duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
