"""Maps as figures and files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from erfattr._files import environment, write_json, writing
from erfattr.metrics.statistics import MapSource
from erfattr.report.figures import draw_figures
from erfattr.report.map_plots import plot_map, plot_map_row
from erfattr.report.map_report import MapReport
from erfattr.report.pixel_plots import plot_zoom, save_figure
from erfattr.report.profile_plots import plot_gaussian_fit, plot_phase_profile

# Millimetres: the width of a page's text. Two panels beside each other are then legible in a column as well.
_PAGE = 170.0


def draw_map(report: MapReport, heading: str | None = None) -> Figure:
    """Draw one map: as a whole, its pixels around the centre, its profile with the fit, its phase profile.

    Four panels, two by two, 170 mm wide. Where the map has no phase profile, the fourth is the fit along the
    other axis.

    Args:
        report: What `analyse_map` gave.
        heading: What to write above all, such as the model and its weights.
    """
    with rc_context({"font.size": 8}):
        figure = Figure(figsize=(_PAGE / 25.4, 0.95 * _PAGE / 25.4), dpi=150, layout="constrained")
        (whole, zoom), (fitted, last) = figure.subplots(2, 2)
        figure.suptitle(heading or "", fontsize="medium", wrap=True)
        unit, field = report.source.unit, report.receptive_field
        plot_map(
            report.statistics,
            whole,
            unit=unit,
            center=report.center if unit is not None else None,
            bounds=field.bounds(unit) if field is not None and unit is not None else None,
            title=f"{report.title}, {report.statistics.n_images} images",
        )
        plot_zoom(report.statistics, report.center, ax=zoom)
        if report.fit is not None:
            plot_gaussian_fit(report.statistics, report.fit, ax=fitted).set_box_aspect(1)
        else:
            fitted.set_axis_off()
            fitted.text(0.5, 0.5, "no Gaussian fits this map", ha="center", transform=fitted.transAxes)
        if report.profile is not None:
            plot_phase_profile(report.profile, last)
        elif report.fit is not None:
            plot_gaussian_fit(report.statistics, report.fit, "y", last).set_box_aspect(1)
        else:
            last.set_axis_off()
    return figure


def draw_maps(reports: Sequence[MapReport], heading: str | None = None) -> Figure:
    """Draw maps side by side, as in Figure 1 of the paper; ``heading`` is written above all."""
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.3 * len(reports), 3.8), dpi=150, layout="constrained")
        axes = figure.subplots(1, len(reports), squeeze=False)[0]
        figure.suptitle(heading or "")
        plot_map_row([report.statistics for report in reports], axes, [report.title for report in reports])
    return figure


def file_stem(source: MapSource) -> str:
    """Return the name under which a map is written: its layer's, with what file systems dislike replaced."""
    return layer_stem(source.layer)


def layer_stem(layer: str) -> str:
    """Return a name as part of a file name, with what file systems dislike replaced."""
    return re.sub(r"[^\w.-]+", "_", layer) or "model"


def refuse_same_files(layers: Sequence[str]) -> None:
    """Raise unless every map of these layers has files of its own.

    Raises:
        ValueError: two would be written to one file.
    """
    owners = {"maps.png": "the figure of all maps", "result.json": "the record"}
    for layer in layers:
        stem = layer_stem(layer)
        for name in (f"{stem}.npy", f"{stem}_standard_error.npy", f"{stem}.png"):
            # Some file systems do not tell capitals.
            if name.lower() in owners:
                raise ValueError(
                    f"layers: expected ones whose files have different names, but {name} of {layer!r} would "
                    f"be that of {owners[name.lower()]}"
                )
            owners[name.lower()] = repr(layer)


def write_maps(
    folder: str | Path,
    reports: Sequence[MapReport],
    record: Mapping[str, Any],
    heading: str | None = None,
) -> list[Path]:
    """Write maps, figures and one JSON file.

    Every file is written beside its place and then renamed, so a file that is there is whole. The figures
    come last: one that cannot be drawn is left out with a `FigureWarning`.

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
        ValueError: no report, or two whose files would have one name.
    """
    if not reports:
        raise ValueError("reports: expected reports of different layers, got none")
    refuse_same_files([report.source.layer for report in reports])
    stems = [file_stem(report.source) for report in reports]
    with writing(folder) as stage:
        for stem, report in zip(stems, reports, strict=True):
            np.save(stage / f"{stem}.npy", report.statistics.mean.numpy())
            np.save(stage / f"{stem}_standard_error.npy", report.statistics.standard_error.numpy())
        result = {
            "record": record,
            "environment": environment(),
            "maps": {stem: report.numbers() for stem, report in zip(stems, reports, strict=True)},
            "sha256_of_files": {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(stage.iterdir())
            },
        }
        write_json(stage / "result.json", result)
        names = [path.name for path in stage.iterdir()]
    figures: dict[str, Callable[[Path], None]] = {
        f"{stem}.png": lambda path, report=report: save_figure(draw_map(report, heading), path)  # type: ignore[misc]
        for stem, report in zip(stems, reports, strict=True)
    }
    figures["maps.png"] = lambda path: save_figure(draw_maps(reports, heading), path)
    names += draw_figures(Path(folder), figures)
    return [Path(folder) / name for name in sorted(names)]
