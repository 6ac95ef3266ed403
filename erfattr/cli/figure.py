"""``erfattr figure``: the effective receptive fields of stages x networks, as a paper prints them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, NamedTuple

import torch

from erfattr._model import find_layer
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit
from erfattr.cli._inputs import ChosenImages, Network, chosen_images, chosen_network
from erfattr.cli._output import claimed
from erfattr.cli._record import begun_record, print_written
from erfattr.metrics.statistics import MapStatistics
from erfattr.receptive_field.field import ReceptiveField, ReceptiveFields
from erfattr.receptive_field.stages import stage_layers
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.noise_banner import noise_in_words
from erfattr.report.paper_files import write_stages
from erfattr.report.stage_figure import refuse_undrawable


class _Row(NamedTuple):
    """One network of the figure, before its images are run."""

    label: str
    network: Network
    fields: Mapping[str, ReceptiveField]
    layers: tuple[str, ...]
    images: ChosenImages


def run(options: argparse.Namespace) -> None:
    """Map the stages of every network, draw the figure, write and say where it is."""
    started = datetime.now(timezone.utc)
    rows = [_row(options, index) for index in range(len(options.models))]
    labels = [row.label for row in rows]
    if len(set(labels)) < len(labels):
        raise ValueError(f"MODEL: expected different networks or weights, got {' '.join(labels)}")
    for row in rows:
        _refuse_unreadable(row, options)
    refuse_undrawable(max(len(row.layers) for row in rows), options.width, options.cmap)
    # Entered before the long part, so that a folder that cannot be written to shows at once.
    with claimed(options, "models") as stage:
        maps: dict[str, dict[str, MapStatistics]] = {}
        for row in rows:
            if not options.quiet:
                print(f"{row.label} ({row.network.info.weights}): {', '.join(row.layers)}")
            sources = [FeatureUnit(layer, options.unit) for layer in row.layers]
            found = SensitivityMaps(row.network.model, sources).attribute(
                row.images.loader, show_progress=not options.quiet
            )
            maps[row.label] = dict(zip(row.layers, found, strict=True))
        record = {
            **begun_record(options, started, rows[0].network.info, "models"),
            "models": {row.label: asdict(row.network.info) for row in rows},
            "images": {row.label: row.images.described_once_read() for row in rows},
        }
        written = write_stages(
            stage,
            maps,
            {row.label: row.fields for row in rows},
            widths=options.width,
            formats=options.format,
            record=record,
            zoom=options.zoom or None,
            shared_scale=not options.own_scales,
            norm=None if options.color_scale == "auto" else options.color_scale,
            cmap=options.cmap,
            notes=[f"{row.label}: {row.network.info.weights}." for row in rows],
        )
        names = [path.name for path in written]
    for label, stages in maps.items():
        for layer, statistics in stages.items():
            if words := noise_in_words(statistics):
                print(f"warning: {label}, {layer}: {words}")
    print()
    print_written(options.output, names)


def _row(options: argparse.Namespace, index: int) -> _Row:
    """Load a network, and find its stages and its images: all that can be refused is."""
    shared: dict[str, Any] = {
        **vars(options),
        "model": options.models[index],
        "weights": _each(options.weights, index),
        "target": "predicted",
    }
    chosen = argparse.Namespace(**shared)
    network = chosen_network(chosen)
    info, preparation = network.info, network.preparation
    layers = tuple(_each(options.layers, index) or ())
    for layer in layers:
        find_layer(network.model, layer)  # raises here, before any image is read
    try:
        fields = receptive_fields(
            network.model, preparation.size, in_channels=preparation.channels, probe=False
        )
        layers = layers or stage_layers(fields, options.stages)
    except Exception as error:  # the model runs in ways that it does not run for its maps
        if not layers:
            raise ValueError(
                f"--layers: the stages of {info.name} could not be found ({type(error).__name__}: {error}); "
                "name its layers"
            ) from error
        fields = ReceptiveFields()
        print(f"warning: theoretical receptive fields of {info.name} are left out: {error}")
    twice = options.models.count(options.models[index]) > 1
    label = f"{info.name} ({info.weights})" if twice else info.name
    return _Row(label, network, fields, layers, chosen_images(chosen, preparation))


def _refuse_unreadable(row: _Row, options: argparse.Namespace) -> None:
    """Raise where a stage has no map, whatever the images: before the long part of any network."""
    preparation = row.network.preparation
    noise = torch.rand(1, preparation.channels, *preparation.size, generator=torch.Generator().manual_seed(0))
    sources = [FeatureUnit(layer, options.unit) for layer in row.layers]
    try:
        SensitivityMaps(row.network.model, sources).attribute(noise.to(options.device))
    except ValueError as error:
        raise ValueError(f"{str(error).removesuffix('.')} (in {row.label})") from error


def _each(given: list[Any], index: int) -> Any:
    """Return what was given for a network; ``None`` where nothing was."""
    if not given:
        return None
    return given[index] if len(given) > 1 else given[0]
