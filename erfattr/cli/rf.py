"""``erfattr rf``: table of the theoretical receptive field of every layer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from erfattr._model import find_layer
from erfattr.cli._inputs import chosen_channels
from erfattr.cli._memory import refuse_sides_beyond_memory
from erfattr.cli.tiling import tiling_lines
from erfattr.models.loading import load_model
from erfattr.receptive_field.field import ReceptiveField
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.text_table import text_table
from erfattr.tiling.suggest import suggest_tiling


def run(options: argparse.Namespace) -> None:
    """Print the fields, and what the trace has to note."""
    refuse_sides_beyond_memory(options.size)
    # Fields depend on no weights: those of the demo network are the only ones that cost nothing.
    model, info = load_model(options.model, "none" if options.model != "demo" else None)
    channels = chosen_channels(options, model, info, options.size)
    if options.tiling:
        tiling = suggest_tiling(model, options.size, layer=options.layer, in_channels=channels)
        print(tiling.to_json() if options.json else "\n".join(tiling_lines(tiling)))
        return
    fields: dict[str, ReceptiveField] = receptive_fields(model, options.size, in_channels=channels)
    if options.layer is not None:
        name, _ = find_layer(model, options.layer)
        if name not in fields:
            raise ValueError(f"--layer: {name!r} has no spatial map; see the table without --layer")
        fields = {name: fields[name]}
    if options.json:
        layers = {name: _numbers(field) for name, field in fields.items()}
        image = {"input_size": options.size, "channels": channels}
        print(json.dumps({"model": info.name, **image, "layers": layers}, indent=1))
        return
    print(text_table(_rows(fields)))
    for note in sorted({field.note for field in fields.values() if field.note}):
        print(f"note: {note}")


def _numbers(field: ReceptiveField) -> dict[str, Any]:
    return {
        "output_size": field.output_size,
        "size": field.size,
        "stride": [float(step) for step in field.stride],
        "center_unit": _center_unit(field),
        "center": field.center(),
        "bounds": field.bounds(),
        "status": field.status,
        "method": field.method,
        "unknown_operators": field.unknown_operators,
        "note": field.note,
    }


def _rows(fields: Mapping[str, ReceptiveField]) -> list[tuple[str, ...]]:
    """Return the table that a person reads, headings first."""
    rows: list[tuple[str, ...]] = [
        ("layer", "map", "size", "stride", "centre of unit", "rows", "columns", "status")
    ]
    for name, field in fields.items():
        y0, x0, y1, x1 = field.bounds()
        y, x = field.center()
        rows.append(
            (
                name or "(output)",
                _times(field.output_size),
                _times(field.size),
                _times(field.stride),
                f"{_center_unit(field)}: ({y:g}, {x:g})",
                f"{y0}..{y1}",
                f"{x0}..{x1}",
                field.status + ("" if field.method == "operators" else f", by {field.method}"),
            )
        )
    return rows


def _center_unit(field: ReceptiveField) -> tuple[int, ...]:
    return tuple(length // 2 for length in field.output_size)


def _times(pair: Sequence[float]) -> str:
    return f"{pair[0]:g} x {pair[1]:g}" if pair[0] != pair[1] else f"{pair[0]:g}"
