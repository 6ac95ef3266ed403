"""``erfattr map``: effective receptive fields and the dead-pixel map of a network, over images."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from torch import nn

from erfattr._files import StateFile
from erfattr._model import find_layer
from erfattr._processes import is_first_process, process_group, rank_and_world, together
from erfattr.attr.layouts import ToSpatial, from_channels_last, from_tokens
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.cli._conditions import STATUS, not_measured, that_hold
from erfattr.cli._failures import naming
from erfattr.cli._inputs import ChosenImages, Network, Preparation, chosen_images, chosen_network
from erfattr.cli._output import claimed
from erfattr.cli._record import begun_record, print_written
from erfattr.cli.options.arguments import index_or_key, token_grid
from erfattr.execution import Execution
from erfattr.metrics.corrected_imbalance import compare_imbalance
from erfattr.metrics.dependence import DependentImagesWarning
from erfattr.metrics.statistics import MapStatistics
from erfattr.receptive_field.field import ReceptiveField, total_stride
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.map_report import MapReport, analyse_map
from erfattr.report.map_sentences import conclusion, map_lines
from erfattr.report.maps import refuse_same_files, write_maps

# What --group offers: from a file's path to what it belongs to.
_GROUPS: dict[str, Callable[[Path], Path]] = {"folder": lambda path: path.parent}


@dataclass(frozen=True)
class _Job:
    """Maps of one network that are about to be made: all that can be refused has been.

    Attributes:
        network: What is mapped.
        images: Over what.
        maps: Of which sources.
        checkpoint: Where the state is kept.
    """

    network: Network
    images: ChosenImages
    maps: SensitivityMaps
    checkpoint: StateFile | None

    def run(self, options: argparse.Namespace) -> list[MapStatistics]:
        """Make the maps, together with the other processes."""
        info, described = self.network.info, self.images.described
        if is_first_process() and not options.quiet:
            print(f"{info.name} ({info.weights}), {described['count']} images from {described['source']}")
        with warnings.catch_warnings(), naming(path="--state"):
            # The report says it, with the option that helps.
            warnings.simplefilter("ignore", DependentImagesWarning)
            return self.maps.attribute(
                self.images.loader,
                tolerance=options.tolerance,
                tolerance_of=options.tolerance_of,
                show_progress=not options.quiet,
                checkpoint=self.checkpoint,
                group=None if options.group is None else _GROUPS[options.group],
            )


def run(options: argparse.Namespace) -> int:
    """Map the model, in as many processes as were started; the first one writes and prints.

    Returns:
        The status of the process: 3 where what ``--fail-if`` names holds.
    """
    started = datetime.now(timezone.utc)
    with process_group(options.device) as (rank, _, device), ExitStack() as stack:

        def begin() -> list[_Job]:
            networks = [chosen_network(options, device)]
            if options.against is not None:
                networks.append(chosen_network(options, device, against=True))
            jobs = [_job(options, network, keep_state=network is networks[0]) for network in networks]
            if rank == 0:
                # Before the long part, so that a folder that cannot be written to shows at once.
                stack.enter_context(claimed(options))
            return jobs

        jobs = together(begin)
        begun, went_on = time.perf_counter(), options.state is not None and options.state.exists()
        statistics = [jobs[0].run(options)]
        seconds = time.perf_counter() - begun
        statistics += [job.run(options) for job in jobs[1:]]
        if rank == 0:
            # A run that went on took its time for a part of the images alone.
            pace = None if went_on else seconds / statistics[0][0].n_images
            return _write(options, jobs, statistics, started, seconds, pace)
    return 0


def _write(
    options: argparse.Namespace,
    jobs: Sequence[_Job],
    of_networks: Sequence[list[MapStatistics]],
    started: datetime,
    seconds: float,
    pace: float | None,
) -> int:
    """Write and print what was found, and return the status; a second network is compared with the first."""
    (model, info, preparation), statistics = jobs[0].network, of_networks[0]
    described = jobs[0].images.described_once_read()
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
    if len(jobs) > 1:
        sentences = _compared(options, jobs, of_networks)
        record["against"] = {"model": asdict(jobs[1].network.info), "sentences": sentences}
    heading = f"{info.name} ({info.weights}), {statistics[0].n_images} images"
    names = [path.name for path in write_maps(options.output, reports, record, heading)]
    print("\n".join([*map(conclusion, reports), *sentences]))
    if not options.quiet:
        for report in reports:
            print()
            print("\n".join(_lines(report, pace)))
        if unknown:
            print(f"\nwarning: theoretical receptive fields are left out: {unknown}")
        if described["unreadable"]:
            print(f"\n{len(described['unreadable'])} image files could not be read:")
            for name, reason in described["unreadable"].items():
                print(f"  {name}: {reason}")
        print()
        print_written(options.output, names)
    named, conditions = list(zip(options.layers, reports, strict=True)), options.fail_if or []
    held = that_hold(conditions, named)
    for words in not_measured(conditions, named):
        print(f"--fail-if: {words}")
    for words in held:
        print(f"--fail-if: {words}")
    return STATUS if held else 0


def _fields(model: nn.Module, preparation: Preparation) -> tuple[dict[str, ReceptiveField], str]:
    """Return the receptive fields, and why there are none: whatever it is, the maps are not lost for it."""
    try:
        return receptive_fields(model, preparation.size, in_channels=preparation.channels), ""
    except Exception as error:  # the model runs in ways that it did not run for the maps
        return {}, f"{type(error).__name__}: {error}"


def _job(options: argparse.Namespace, network: Network, *, keep_state: bool) -> _Job:
    """Check all that can be checked before the images are run."""
    model, info, preparation = network
    sources = [_source(model, name, options) for name in options.layers]
    refuse_same_files([name for name in options.layers if name != "last"])
    images = chosen_images(options, preparation)
    rank, world = rank_and_world()
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
        with naming(path="--state"):
            checkpoint = StateFile(path, identity, options.state_interval)
    return _Job(network, images, SensitivityMaps(model, sources, options.rectify, execution), checkpoint)


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
    options: argparse.Namespace, jobs: Sequence[_Job], statistics: Sequence[list[MapStatistics]]
) -> list[str]:
    """Return what is to be said of the imbalance of two networks, map by map."""
    info, against = (job.network.info for job in jobs)
    if jobs[1].network.preparation != jobs[0].network.preparation:
        print(f"note: {against.name} wants its images prepared in another way than {info.name}")
    sentences = []
    for layer, mine, its in zip(options.layers, *statistics, strict=True):
        for order in (1, 2):
            # With --tolerance each network stops when it is precise enough: then the images are not the same.
            comparison = compare_imbalance(mine, its, order, paired=mine.n_images == its.n_images)
            names = f"{info.name} against {against.name}"
            sentences.append(f"{layer}: L{order} of {names}, without the noise: {comparison.sentence}")
    return sentences


def _lines(report: MapReport, seconds_per_image: float | None) -> list[str]:
    """Return what a person reads of one map, with options instead of arguments."""
    title, *facts = map_lines(report, seconds_per_image)
    typed = [fact.replace('target="predicted"', "--target predicted") for fact in facts]
    return [title, *(f"  {fact.replace('group=', '--group')}" for fact in typed)]
