"""Figures as files that a journal takes: PDF, SVG and PNG of an exact width, with their fonts inside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from erfattr._checks import check_choice
from erfattr._files import environment, plain, write_json, writing
from erfattr.metrics.statistics import MapStatistics
from erfattr.report.maps import layer_stem
from erfattr.report.pixel_plots import pixel_exact_dpi
from erfattr.report.stage_figure import Fields, Maps, draw_stages

Format = Literal["pdf", "svg", "png"]

# What journals ask for at least.
_DPI = 300
# TrueType in a PDF stays text that can be searched and edited; type 3, matplotlib's default, is refused by
# many journals. An SVG shows the same on every machine only where its letters are outlines.
_FONTS: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "erfattr",
}
# Without the time of the day, the same figure is the same file.
_DATES: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def save_for_print(figure: Figure, path: str | Path) -> None:
    """Write a figure as PDF, SVG or PNG, told by the file's ending, with its fonts inside.

    Every pixel of the first axes' map is the same whole number of dots wide, at 300 dpi at least; in a PDF or
    SVG the maps are pictures of that resolution, all else is drawn in lines and letters.

    Args:
        figure: whose first axes hold a map, such as `draw_stages` returns.
        path: where to; an existing file is replaced.

    Raises:
        ValueError: another ending, or a figure whose first axes have no map.
        OSError: the file cannot be written.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    check_choice("path", kind, get_args(Format))
    if not figure.axes:
        raise ValueError("figure: expected one whose first axes hold a map, got one without axes")
    dots = pixel_exact_dpi(figure.axes[0], 1)
    with rc_context(_FONTS):
        figure.savefig(path, format=kind, dpi=dots * math.ceil(_DPI / dots), metadata=_DATES[kind])


def write_stages(
    folder: str | Path,
    maps: Maps,
    fields: Fields | None = None,
    *,
    widths: Sequence[float] = (170.0,),
    formats: Sequence[Format] = ("pdf", "png"),
    record: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Path]:
    """Write the figure of stages x networks in every width and format, its maps, and a record.

    Every file is whole or not there.

    Args:
        folder: where to; made if it is not there.
        maps: as of `draw_stages`.
        fields: as of `draw_stages`.
        widths: in millimetres.
        formats: of ``"pdf"``, ``"svg"``, ``"png"``.
        record: what is needed to repeat the run; becomes ``record`` in the JSON file.
        **options: further arguments of `draw_stages`.

    Returns:
        ``stages_WIDTHmm.FORMAT`` for each of both, ``MODEL_LAYER.npy`` of each map, ``result.json``.

    Raises:
        OSError: the folder cannot be written to.
        TypeError: what `draw_stages` refuses, or a record that JSON cannot hold.
        ValueError: what `draw_stages` refuses; no or an unknown format; no width, or one twice; two maps
            whose files would have one name.
    """
    for kind in formats:
        check_choice("formats", kind, get_args(Format))
    if not formats or not widths or len(set(widths)) < len(widths):
        raise ValueError(
            f"widths: expected different ones and at least one format, got {list(widths)} and {list(formats)}"
        )
    names = {
        (model, stage): f"{layer_stem(model)}_{layer_stem(stage)}.npy"
        for model in maps
        for stage in maps[model]
    }
    if len({name.lower() for name in names.values()}) < len(names):
        raise ValueError(f"maps: expected names that make different file names, got {list(names)}")
    figures = {width: draw_stages(maps, fields, width=width, **options) for width in widths}
    described: dict[str, Any] = {}
    with writing(folder) as stage_folder:
        for (model, stage), name in names.items():
            given = maps[model][stage]
            values = given.mean if isinstance(given, MapStatistics) else given
            np.save(stage_folder / name, np.asarray(values))
            source = plain(given.source) if isinstance(given, MapStatistics) else None
            count = given.n_images if isinstance(given, MapStatistics) else None
            described.setdefault(model, {})[stage] = {"file": name, "n_images": count, "source": source}
        write_json(
            stage_folder / "result.json",
            {"record": record or {}, "environment": environment(), "maps": described},
        )
        for width, figure in figures.items():
            for kind in formats:
                save_for_print(figure, stage_folder / f"stages_{width:g}mm.{kind}")
        written = sorted(path.name for path in stage_folder.iterdir())
    return [Path(folder) / name for name in written]
