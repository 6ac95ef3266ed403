"""``erfattr map``: effective receptive fields and the dead-pixel map of a network, over images."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from torch import nn

from erfattr._files import StateFile, writing
from erfattr._model import find_layer
from erfattr._processes import process_group, rank_and_world
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.cli._options import (
    MODEL_HELP,
    WEIGHTS_HELP,
    chosen_images,
    pair,
    positive,
    typed_arguments,
)
from erfattr.execution import Execution
from erfattr.metrics.corrected_imbalance import compare_imbalance
from erfattr.metrics.statistics import MapStatistics
from erfattr.models.loading import ModelInfo, load_model
from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.map_report import MapReport, analyse_map
from erfattr.report.maps import write_maps


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    run = commands.add_parser(
        "map",
        help="effective receptive fields and the dead-pixel map of a network, over images",
        description="Average a network's sensitivity to its pixels over images, for units of feature maps "
        "(effective receptive field) and for the output (dead-pixel map), from one forward pass a batch. "
        "Writes figures (PNG), the maps (NPY) and every number with all that is needed to repeat the run "
        "(result.json).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    run.add_argument("--model", default="demo", help=MODEL_HELP)
    run.add_argument("--weights", default=None, help=WEIGHTS_HELP)
    run.add_argument(
        "--layers",
        nargs="+",
        default=["last", "output"],
        metavar="LAYER",
        help="dotted names of layers; last: the last spatial feature map before global pooling; output: the "
        "network's output",
    )
    run.add_argument(
        "--unit",
        type=_unit,
        default="center",
        metavar="center|I,J",
        help="position in every layer's map, from 0",
    )
    run.add_argument(
        "--target",
        type=_target,
        default=None,
        metavar="mean|INDEX|predicted|label",
        help="which output the dead-pixel map is of: their mean, one of them, the largest, or the one of the "
        "image's class folder",
    )
    run.add_argument("--rectify", choices=("relu", "abs", "none"), default="relu", help="of each gradient")
    run.add_argument(
        "--images",
        default="embedded",
        metavar="FOLDER|embedded",
        help="a folder of images, searched with its subfolders, or embedded: crops of the photographs inside "
        "scikit-image",
    )
    run.add_argument("--count", type=positive, default=None, help="number of images (default: all)")
    run.add_argument("--size", type=positive, default=None, help="side of the images (default: the model's)")
    run.add_argument(
        "--tolerance",
        type=float,
        default=None,
        help="stop as soon as the relative standard error of every map is below this",
    )
    run.add_argument(
        "--tolerance-of",
        choices=("pixels", "L1", "L2"),
        default="pixels",
        help="the error's median over pixels, or that of the noise-corrected imbalance index",
    )
    run.add_argument("--batch-size", type=positive, default=8, help="images a forward pass")
    run.add_argument(
        "--precision",
        choices=("float32", "float64", "bfloat16"),
        default=None,
        help="run a copy of the model in this type (default: the model's own)",
    )
    run.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    run.add_argument(
        "--plain",
        action="store_true",
        help="run the model as it is, on whole images: no folding, no crops, no channels last",
    )
    run.add_argument(
        "--state",
        type=Path,
        default=None,
        metavar="FILE",
        help="save the state there every so many images, and go on from it when started again",
    )
    run.add_argument("--state-interval", type=positive, default=256, metavar="N", help="images between saves")
    run.add_argument(
        "--against",
        default=None,
        metavar="MODEL",
        help="map this network too, and compare the imbalance of both",
    )
    run.add_argument("--against-weights", default=None, metavar="WEIGHTS", help="of that network")
    run.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda")
    run.add_argument("--seed", type=int, default=0, help="of the choice of images and of random weights")
    run.add_argument("--strict", action="store_true", help="stop at the first image file that cannot be read")
    run.add_argument("--output", type=Path, default=Path("erfattr-output"), help="folder for the results")
    run.set_defaults(call=_map)


def _unit(text: str) -> Any:
    return text if text == "center" else pair(text)


def _target(text: str) -> Any:
    if text == "mean":
        return None
    return text if text in ("predicted", "label") else int(text)


def _map(options: argparse.Namespace) -> None:
    with process_group(options.device) as (rank, _, device):
        if rank == 0:
            _map_and_write(options, device)
        else:
            model, info = load_model(options.model, options.weights, device=device, seed=options.seed)
            _maps(options, model, info, rank)
            if options.against is not None:
                model, info = load_model(
                    options.against, options.against_weights, device=device, seed=options.seed
                )
                _maps(options, model, info, rank, state=False)


def _map_and_write(options: argparse.Namespace, device: str) -> None:
    started = datetime.now(timezone.utc)
    model, info = load_model(options.model, options.weights, device=device, seed=options.seed)
    other = None
    if options.against is not None:
        other = load_model(options.against, options.against_weights, device=device, seed=options.seed)
    # Entered before the long part, so that a folder that cannot be written to shows at once.
    with writing(options.output) as stage:
        begun = time.perf_counter()
        statistics, described = _maps(options, model, info, 0)
        seconds = time.perf_counter() - begun
        size = described["size"]
        fields = receptive_fields(model, (size, size))
        reports = []
        for one in statistics:
            field = fields.get(one.source.layer) if one.source else None
            reports.append(analyse_map(one, field, None if field else total_stride(fields)))
        record = {
            "command": ["erfattr", "map", *typed_arguments(options)],
            "date": started.isoformat(timespec="seconds"),
            "seconds_for_maps": seconds,
            "model": asdict(info),
            "images": described,
            "options": {key: value for key, value in vars(options).items() if key != "call"},
        }
        sentences: list[str] = []
        if other is not None:
            sentences = _compared(options, statistics, info, other)
            record["against"] = {"model": asdict(other[1]), "sentences": sentences}
        heading = f"{info.name} ({info.weights}), {statistics[0].n_images} images"
        names = [path.name for path in write_maps(stage, reports, record, heading)]
    for report in reports:
        print()
        print("\n".join(_lines(report)))
    if sentences:
        print()
        print("\n".join(sentences))
    if described["unreadable"]:
        print(f"\n{len(described['unreadable'])} image files could not be read:")
        for name, reason in described["unreadable"].items():
            print(f"  {name}: {reason}")
    print(f"\nwritten to {options.output}:")
    for name in names:
        print(f"  {options.output / name}")


def _maps(
    options: argparse.Namespace, model: nn.Module, info: ModelInfo, rank: int, state: bool = True
) -> tuple[list[MapStatistics], dict[str, Any]]:
    """Return the maps of one network, and what is said of the images in the record."""
    if len(set(options.layers)) < len(options.layers):
        raise ValueError(f"--layers: expected different layers, got {' '.join(options.layers)}")
    sources = [_source(model, name, options) for name in options.layers]
    images, described, unreadable = chosen_images(options, info)
    if rank == 0:
        print(f"{info.name} ({info.weights}), {described['count']} images from {described['source']}")
    fast = not options.plain
    execution = Execution(fast, fast, fast, compile=options.compile, precision=options.precision)
    checkpoint = None
    if options.state is not None and state:
        path = options.state if rank == 0 else Path(f"{options.state}.{rank}")
        identity = {
            "model": info.name,
            "weights": info.weights_sha256,
            "images": json.dumps(described),
            "batch size": options.batch_size,
            "processes": rank_and_world()[1],
        }
        checkpoint = StateFile(path, identity, options.state_interval)
    statistics = SensitivityMaps(model, sources, options.rectify, execution).attribute(
        images,
        tolerance=options.tolerance,
        tolerance_of=options.tolerance_of,
        show_progress=True,
        checkpoint=checkpoint,
    )
    described["unreadable"] = unreadable()
    return statistics, described


def _compared(
    options: argparse.Namespace,
    statistics: Sequence[MapStatistics],
    info: ModelInfo,
    other: tuple[nn.Module, ModelInfo],
) -> list[str]:
    """Return what is to be said of the imbalance of two networks, map by map."""
    model, against = other
    if (against.size, against.mean, against.std) != (info.size, info.mean, info.std):
        print(f"note: {against.name} wants its images prepared in another way than {info.name}")
    others, _ = _maps(options, model, against, 0, state=False)
    sentences = []
    for layer, mine, its in zip(options.layers, statistics, others, strict=True):
        for order in (1, 2):
            comparison = compare_imbalance(mine, its, order, paired=mine.n_images == its.n_images)
            names = f"{info.name} against {against.name}"
            sentences.append(f"{layer}: L{order} of {names}, without the noise: {comparison.sentence}")
    return sentences


def _source(model: nn.Module, name: str, options: argparse.Namespace) -> FeatureUnit | ModelOutput:
    if name == "output":
        return ModelOutput(options.target)
    if name != "last":
        find_layer(model, name)
    return FeatureUnit(None if name == "last" else name, options.unit)


def _lines(report: MapReport) -> list[str]:
    """Return what a person reads of one map."""
    numbers = report.numbers()
    lines = [report.title]
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
        y, x = report.fit.center
        lines.append(
            f"  Gaussian fit: centre ({y:.1f}, {x:.1f}), sigma_y {report.fit.sigma_y:.1f}, "
            f"sigma_x {report.fit.sigma_x:.1f} px, R^2 {report.fit.r_squared:.3f}"
        )
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
