"""``erfattr tiling``: how much overlap tiles need, and what a smaller one costs on images."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from typing import Any

from matplotlib.figure import Figure

from erfattr._files import write_json
from erfattr.cli._inputs import chosen_images, chosen_network
from erfattr.cli._output import claimed
from erfattr.cli._record import begun_record, print_table, print_written
from erfattr.tiling._effective import first_images
from erfattr.tiling.plan import Tiling
from erfattr.tiling.stitching import TilingError, tiling_errors
from erfattr.tiling.suggest import suggest_tiling


def run(options: argparse.Namespace) -> None:
    """Print the tiling and the error over the halo; write both."""
    started = datetime.now(timezone.utc)
    options.target = None  # the images carry no labels that are wanted
    network = chosen_network(options)
    model, info, preparation = network
    images = chosen_images(options, preparation)
    with claimed(options, "model", "tiling.json") as stage:
        tiling = suggest_tiling(
            model,
            preparation.size,
            options.coverage,
            options.layer,
            images=images.loader if options.coverage < 1 else None,
            in_channels=preparation.channels,
            select=options.select,
        )
        print("\n".join(tiling_lines(tiling)))
        exact = tiling
        if options.coverage < 1:  # the curve goes to the exact halo, where there is one
            exact = suggest_tiling(
                model,
                preparation.size,
                layer=options.layer,
                in_channels=preparation.channels,
                select=options.select,
            )
        measured = first_images(images.loader, images.described["count"])
        curve = list(tiling_errors(model, measured, exact, at_most=options.points))
        rows: list[tuple[str, ...]] = [("halo", "largest error", "rms")]
        rows += [(f"{y} x {x}", f"{error.largest:.2g}", f"{error.rms:.2g}") for (y, x), error in curve]
        if not options.quiet:
            print()
            print_table(rows)
        record = {
            **begun_record(options, started, info, "model"),
            "images": images.described_once_read(),
            "tiling": json.loads(tiling.to_json()),
            "errors": [{"halo": halo, **error._asdict()} for halo, error in curve],
        }
        write_json(stage / "tiling.json", record)
        _figure(curve, tiling, info.name).savefig(stage / "tiling.png")
    if not options.quiet:
        print()
        print_written(options.output, ["tiling.json", "tiling.png"])


def tiling_lines(tiling: Tiling) -> list[str]:
    """Return what a person reads of a tiling."""
    (above, below), (left, right) = tiling.margins
    lines = [
        f"halo {_times(tiling.halo)}, tiles begin at multiples of {_times(tiling.alignment)}, "
        f"and are at least {_times(tiling.minimum_tile)}",
        f"the worst unit reads {above} rows above and {below} below its period, {left} columns to the left "
        f"and {right} to the right",
        "exact: tiles, put together, equal the whole image" if tiling.exact else "not exact",
    ]
    return [*lines, f"note: {tiling.note}"] if tiling.note else lines


def _times(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]} pixels"


def _figure(curve: list[tuple[tuple[int, int], TilingError]], tiling: Tiling, name: str) -> Figure:
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    ax: Any = figure.subplots()
    halos = [max(halo) for halo, _ in curve]
    for key, marker in (("largest", "o"), ("rms", "s")):
        ax.plot(halos, [getattr(error, key) for _, error in curve], marker=marker, label=key)
    ax.axvline(max(tiling.halo), color="0.4", linestyle="--", linewidth=1, label="suggested")
    # Differences of float32 sums are some 1e-7; none at all has a place on this axis too.
    ax.set_yscale("symlog", linthresh=1e-8)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("halo (pixels)")
    ax.set_ylabel("difference from the whole image, relative")
    ax.set_title(f"tiles of {name}")
    ax.legend()
    return figure
