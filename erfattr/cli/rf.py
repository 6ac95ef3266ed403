"""``erfattr rf``: table of the theoretical receptive field of every layer."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from erfattr._model import find_layer
from erfattr.cli._inputs import chosen_channels
from erfattr.cli._memory import refuse_sides_beyond_memory
from erfattr.cli._record import print_table
from erfattr.cli.tiling import tiling_lines
from erfattr.models.loading import load_model
from erfattr.receptive_field.field import ReceptiveField
from erfattr.receptive_field.trace import receptive_fields
from erfattr.tiling.suggest import suggest_tiling


def run(options: argparse.Namespace) -> None:
    """Print the fields, and what the trace has to note."""
    refuse_sides_beyond_memory(options.size)
    tables = [_table(options, name) for name in options.model]
    if options.tiling:
        return
    if options.json:
        found = [table.as_json() for table in tables]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))
    elif options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        rows = [
            (("model", *row) if number == 0 else (table.model, *row))
            for table in tables
            for number, row in enumerate(_rows(table.fields))
        ]
        writer.writerows(row for index, row in enumerate(rows) if index == 0 or row[0] != "model")
    else:
        for number, table in enumerate(tables):
            if len(tables) > 1:
                print(f"{chr(10) if number else ''}{table.model}")
            print_table(_rows(table.fields))
            for note in sorted({field.note for field in table.fields.values() if field.note}):
                print(f"note: {note}")


class _Table(NamedTuple):
    """The fields of one network."""

    model: str
    input_size: tuple[int, int]
    channels: int
    fields: dict[str, ReceptiveField]

    def as_json(self) -> dict[str, Any]:
        """Return what JSON holds."""
        layers = {name: _numbers(field) for name, field in self.fields.items()}
        return {
            "model": self.model,
            "input_size": self.input_size,
            "channels": self.channels,
            "layers": layers,
        }


def _table(options: argparse.Namespace, name: str) -> _Table:
    # Fields depend on no weights: those of the demo network are the only ones that cost nothing.
    model, info = load_model(name, "none" if name != "demo" else None)
    channels = chosen_channels(options, model, info, options.size)
    if options.tiling:
        tiling = suggest_tiling(model, options.size, layer=options.layer, in_channels=channels)
        print(tiling.to_json() if options.json else "\n".join(tiling_lines(tiling)))
        return _Table(info.name, options.size, channels, {})
    fields: dict[str, ReceptiveField] = receptive_fields(model, options.size, in_channels=channels)
    if options.layer is not None:
        layer, _ = find_layer(model, options.layer)
        if layer not in fields:
            raise ValueError(f"--layer: {layer!r} has no spatial map; see the table without --layer")
        fields = {layer: fields[layer]}
    if options.depth is not None:
        fields = {layer: field for layer, field in fields.items() if layer.count(".") < options.depth}
    return _Table(info.name, options.size, channels, fields)


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
