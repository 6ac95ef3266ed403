"""``erfattr diagnose``: the forecast of a network's grid, its sources and its remedies."""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timezone
from typing import Any

import torch
from torch import nn

from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.cli._inputs import ChosenImages, chosen_images, chosen_network
from erfattr.cli._output import claimed
from erfattr.cli._record import begun_record, print_table, print_written
from erfattr.forecast.cures import forecast_remedies
from erfattr.forecast.forecasting import Prepared, prepare
from erfattr.forecast.grid import sources_of
from erfattr.metrics.statistics import MapStatistics
from erfattr.report.diagnosis import Diagnosis, Measured, write_diagnosis

# What the shared parts look for among the options, and this command does not offer.
_NOT_OFFERED = {"device": "cpu", "mean": None, "std": None, "strict": False, "target": "predicted"}


def run(options: argparse.Namespace) -> None:
    """Forecast, measure where images were given, print the tables and write everything."""
    started = datetime.now(timezone.utc)
    shared = argparse.Namespace(**_NOT_OFFERED, **vars(options))
    model, info, preparation = chosen_network(shared)
    weights: Any = "expected" if options.expected else "given"
    layer = None if options.layer == "last" else options.layer
    images = None if options.images is None else chosen_images(shared, preparation)
    # Entered before the long part, so that a folder that cannot be written to shows at once.
    with claimed(options, "model") as stage:
        settings: dict[str, Any] = {"input_size": preparation.size, "in_channels": preparation.channels}
        begun = time.perf_counter()
        prepared = prepare(model, layer, options.unit, preparation.size, preparation.channels, None)
        forecast = prepared.map(weights)
        seconds = time.perf_counter() - begun
        sources = sources_of(prepared, weights)
        remedies = forecast_remedies(
            model, layer, options.unit, weights, **settings, per_layer=not options.all_layers_only
        )
        measured = None if images is None else _measured(model, prepared, images, quiet=options.quiet)
        diagnosis = Diagnosis(forecast, sources, remedies, measured)
        record = {
            **begun_record(options, started, info, "model"),
            "seconds_for_forecast": seconds,
            "images": None if images is None else images.described_once_read(),
            "options": vars(options),
        }
        which = "architecture alone" if options.expected else info.weights
        heading = f"{info.name} ({which})"
        names = [path.name for path in write_diagnosis(stage, diagnosis, record, heading)]
    print(f"{heading}: forecast contrast {sources.contrast:.3f}, in {seconds:.1f} s")
    if options.quiet:
        return
    print("\n" + "\n".join(diagnosis.sentences()))
    for rows in (sources.rows(), diagnosis.remedy_rows()):
        print()
        print_table(rows)
    if measured is None and weights == "given":
        print(
            "\nnote: forecasts from given weights were 0.3 to 2.8 times the measured contrast in our tests; "
            "--images PATH measures this network beside its forecast"
        )
    print()
    print_written(options.output, names)


def _measured(model: nn.Module, prepared: Prepared, images: ChosenImages, *, quiet: bool) -> Measured:
    source = ModelOutput() if prepared.unit is None else FeatureUnit(prepared.layer, prepared.unit)
    if images.described["count"] < 2:
        raise ValueError("--count: expected at least 2 images, to tell how reliable the measured map is")
    (statistics,) = SensitivityMaps(model, [source]).attribute(images.loader, show_progress=not quiet)
    return Measured(statistics.mean, halves(statistics), statistics.n_images)


def halves(statistics: MapStatistics) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the maps over the groups of even and of odd number."""
    sizes = torch.tensor(statistics.group_sizes, dtype=torch.float64)
    found = []
    for first in (0, 1):
        means, weights = statistics.group_means[first::2].double(), sizes[first::2]
        found.append((means * weights[:, None, None]).sum(0) / weights.sum())
    return found[0], found[1]
