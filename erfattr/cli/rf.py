"""``erfattr rf``: table of the theoretical receptive field of every layer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from erfattr._model import find_layer
from erfattr.cli._options import MODEL_HELP, size
from erfattr.models.loading import load_model
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.text_table import text_table


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    fields = commands.add_parser(
        "rf",
        help="theoretical receptive field of every layer",
        description="Table of the theoretical receptive field of every layer with a spatial map. Sizes "
        "and bounds are those of the centre unit, in pixels (rows, columns); bounds go beyond the image "
        "where padding does.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fields.add_argument("model", help=MODEL_HELP)
    fields.add_argument("--size", type=size, default=(224, 224), metavar="S|H,W", help="of the image")
    fields.add_argument("--layer", default=None, help="only this layer")
    fields.add_argument("--json", action="store_true", help="print JSON instead of a table")
    fields.set_defaults(call=_rf)


def _rf(options: argparse.Namespace) -> None:
    model, info = load_model(options.model, "none" if options.model != "demo" else None)
    fields = receptive_fields(model, options.size)
    if options.layer is not None:
        name, _ = find_layer(model, options.layer)
        if name not in fields:
            raise ValueError(f"--layer: {name!r} has no spatial map; see the table without --layer")
        fields = {name: fields[name]}
    if options.json:
        rows = {
            name: {
                "output_size": field.output_size,
                "size": field.size,
                "stride": [float(step) for step in field.stride],
                "center_unit": [length // 2 for length in field.output_size],
                "center": field.center(),
                "bounds": field.bounds(),
                "status": field.status,
                "method": field.method,
                "unknown_operators": field.unknown_operators,
                "note": field.note,
            }
            for name, field in fields.items()
        }
        print(json.dumps({"model": info.name, "input_size": options.size, "layers": rows}, indent=1))
        return
    table = [("layer", "map", "size", "stride", "centre of unit", "rows", "columns", "status")]
    for name, field in fields.items():
        y0, x0, y1, x1 = field.bounds()
        y, x = field.center()
        unit = tuple(length // 2 for length in field.output_size)
        table.append(
            (
                name or "(output)",
                _times(field.output_size),
                _times(field.size),
                _times(field.stride),
                f"{unit}: ({y:g}, {x:g})",
                f"{y0}..{y1}",
                f"{x0}..{x1}",
                field.status + ("" if field.method == "operators" else f", by {field.method}"),
            )
        )
    print(text_table(table))
    notes = {field.note for field in fields.values() if field.note}
    for note in sorted(notes):
        print(f"note: {note}")


def _times(pair: Sequence[float]) -> str:
    return f"{pair[0]:g} x {pair[1]:g}" if pair[0] != pair[1] else f"{pair[0]:g}"
