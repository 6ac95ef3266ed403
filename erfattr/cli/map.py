"""``erfattr map``: effective receptive fields and the dead-pixel map of a network, over images."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from torch import nn

from erfattr._files import StateFile, writing
from erfattr._model import find_layer
from erfattr._processes import process_group, rank_and_world
from erfattr.attr.layouts import ToSpatial, from_channels_last, from_tokens
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.cli._inputs import Network, Preparation, chosen_images, chosen_network
from erfattr.cli._record import begun_record, print_written
from erfattr.cli.options.arguments import index_or_key, token_grid
from erfattr.execution import Execution
from erfattr.metrics.corrected_imbalance import compare_imbalance
from erfattr.metrics.dependence import DependentImagesWarning
from erfattr.metrics.gaussian_fit import GaussianFit
from erfattr.metrics.statistics import MapStatistics
from erfattr.receptive_field.field import ReceptiveField, total_stride
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.map_report import MapReport, analyse_map
from erfattr.report.maps import write_maps

# What --group offers: from a file's path to what it belongs to.
_GROUPS: dict[str, Callable[[Path], Path]] = {"folder": lambda path: path.parent}


def run(options: argparse.Namespace) -> None:
    """Map the model, in as many processes as were started; the first one writes and prints."""
    with process_group(options.device) as (rank, _, device):
        if rank == 0:
            _map_and_write(options, device)
            return
        _maps(options, chosen_network(options, device))
        if options.against is not None:
            _maps(options, chosen_network(options, device, against=True), keep_state=False)


def _map_and_write(options: argparse.Namespace, device: str) -> None:
    started = datetime.now(timezone.utc)
    network = chosen_network(options, device)
    model, info, preparation = network
    other = None if options.against is None else chosen_network(options, device, against=True)
    # Entered before the long part, so that a folder that cannot be written to shows at once.
    with writing(options.output) as stage:
        begun = time.perf_counter()
        statistics, described = _maps(options, network)
        seconds = time.perf_counter() - begun
        fields, unknown = _fields(model, preparation)
        reports = []
        for of_source in statistics:
            # The period of a map is the stride of its layer, that of the output the network's.
            source = of_source.source
            field = fields.get(source.layer) if source else None
            if field and source and field.output_size != source.feature_size:
                field = None  # --to-spatial reads another grid
            reports.append(
                analyse_map(
                    of_source,
                    field,
                    None if field else total_stride(fields),
                    grouped_by_label=options.group is not None,
                )
            )
        record = {
            **begun_record(options, started, info),
            "seconds_for_maps": seconds,
            "images": described,
            "options": vars(options),
            "receptive_fields_unknown": unknown,
        }
        sentences: list[str] = []
        if other is not None:
            sentences = _compared(options, statistics, network, other)
            record["against"] = {"model": asdict(other.info), "sentences": sentences}
        heading = f"{info.name} ({info.weights}), {statistics[0].n_images} images"
        names = [path.name for path in write_maps(stage, reports, record, heading)]
    for report in reports:
        print()
        print("\n".join(_lines(report)))
    if unknown:
        print(f"\nwarning: theoretical receptive fields are left out: {unknown}")
    if sentences:
        print()
        print("\n".join(sentences))
    if described["unreadable"]:
        print(f"\n{len(described['unreadable'])} image files could not be read:")
        for name, reason in described["unreadable"].items():
            print(f"  {name}: {reason}")
    print()
    print_written(options.output, names)


def _fields(model: nn.Module, preparation: Preparation) -> tuple[dict[str, ReceptiveField], str]:
    """Return the receptive fields, and why there are none: whatever it is, the maps are not lost for it."""
    try:
        return receptive_fields(model, preparation.size, in_channels=preparation.channels), ""
    except Exception as error:  # the model runs in ways that it did not run for the maps
        return {}, f"{type(error).__name__}: {error}"


def _maps(
    options: argparse.Namespace, network: Network, *, keep_state: bool = True
) -> tuple[list[MapStatistics], dict[str, Any]]:
    """Return the maps of one network, and what is said of the images in the record."""
    model, info, preparation = network
    sources = [_source(model, name, options) for name in options.layers]
    images = chosen_images(options, preparation)
    rank, world = rank_and_world()
    if rank == 0:
        count, source = images.described["count"], images.described["source"]
        print(f"{info.name} ({info.weights}), {count} images from {source}")
    fast = not options.plain
    execution = Execution(fast, fast, fast, compile=options.compile, precision=options.precision)
    checkpoint = None
    if options.state is not None and keep_state:
        path = options.state if rank == 0 else Path(f"{options.state}.{rank}")
        identity = {
            "model": info.name,
            "weights": info.weights_sha256,
            "images": json.dumps(images.described),
            "layout": options.to_spatial or "",
            "batch size": options.batch_size,
            "processes": world,
        }
        checkpoint = StateFile(path, identity, options.state_interval)
    with warnings.catch_warnings():
        # The report says it, with the option that helps.
        warnings.simplefilter("ignore", DependentImagesWarning)
        statistics = SensitivityMaps(model, sources, options.rectify, execution).attribute(
            images.loader,
            tolerance=options.tolerance,
            tolerance_of=options.tolerance_of,
            show_progress=True,
            checkpoint=checkpoint,
            group=None if options.group is None else _GROUPS[options.group],
        )
    return statistics, images.described_once_read()


def _source(model: nn.Module, name: str, options: argparse.Namespace) -> FeatureUnit | ModelOutput:
    if name == "output":
        return ModelOutput(options.target, _selected(options.select))
    if name == "last":
        if options.to_spatial is not None:
            raise ValueError("--to-spatial: expected --layers to name the layers that it is for, got last")
        return FeatureUnit(None, options.unit)
    find_layer(model, name)  # raises here, before any image is read
    return FeatureUnit(name, options.unit, _to_spatial(options.to_spatial), select=_selected(options.select))


def _to_spatial(word: str | None) -> ToSpatial | None:
    if word is None:
        return None
    return from_channels_last if word == "channels-last" else from_tokens(*token_grid(word))


def _selected(word: str | None) -> int | str | None:
    return None if word is None else index_or_key(word)


def _compared(
    options: argparse.Namespace, statistics: Sequence[MapStatistics], network: Network, other: Network
) -> list[str]:
    """Return what is to be said of the imbalance of two networks, map by map."""
    info, against = network.info, other.info
    if other.preparation != network.preparation:
        print(f"note: {against.name} wants its images prepared in another way than {info.name}")
    others, _ = _maps(options, other, keep_state=False)
    sentences = []
    for layer, mine, its in zip(options.layers, statistics, others, strict=True):
        for order in (1, 2):
            # With --tolerance each network stops when it is precise enough: then the images are not the same.
            comparison = compare_imbalance(mine, its, order, paired=mine.n_images == its.n_images)
            names = f"{info.name} against {against.name}"
            sentences.append(f"{layer}: L{order} of {names}, without the noise: {comparison.sentence}")
    return sentences


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


def _lines(report: MapReport) -> list[str]:
    """Return what a person reads of one map."""
    numbers = report.numbers()
    lines = [report.title]
    if report.source.layout not in ("", "(N, C, H, W), traced"):
        lines.append(f"  layout: {report.source.layout}")
    if report.warning:
        words = report.warning.replace('target="predicted"', "--target predicted")
        lines.append(f"  warning: {words.replace('group=', '--group')}")
    if report.weak is not None:
        lines.append(f"  {report.weak.sentence}")
    field = report.receptive_field
    if field is not None and report.source.unit is not None:
        y, x = field.center(report.source.unit)
        lines.append(
            f"  centred on pixel ({y:g}, {x:g}), stride {field.stride[0]:g}; "
            f"theoretical receptive field {field.size[0]} x {field.size[1]} ({field.status})"
        )
    if report.fit is None:
        lines.append(f"  Gaussian fit: none ({report.fit_error})")
    else:
        lines.append(f"  Gaussian fit: {_fit_in_words(report.fit)}")
    index = report.imbalance
    lines.append(
        f"  imbalance of R / mean(R): L1 {index['L1_relative_to_mean']:.4f}, "
        f"L2 {index['L2_relative_to_mean']:.4f} (sampling noise of {numbers['n_images']} images included)"
    )
    lines += [f"  without the noise: {estimate}" for estimate in report.corrected.values()]
    if report.profile is not None and report.period is not None:
        lines.append(f"  phase contrast at period {report.period[0]}: {numbers['phase_contrast']:.4f}")
        if report.phase is not None:
            lines[-1] += (
                f", without the noise {report.phase.corrected_contrast:.4f} "
                f"+- {report.phase.contrast_standard_error:.4f}"
            )
    if report.dead is not None:
        lines.append(f"  pixels significantly below half of their neighbourhood: {100 * report.dead:.1f} %")
    lines.append(
        f"  standard error of a pixel, median: {100 * report.relative_error:.0f} % of its value, over "
        f"{numbers['n_images']} images"
    )
    return lines
