"""The parts of a page about one network, each computed or told why not."""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from captum.attr import Saliency
from torch import nn

from erfattr.attr.debiased_attribution import DebiasedAttribution, debias
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.cli._failures import is_out_of_memory, is_refusal, meaningful
from erfattr.cli._inputs import ChosenImages, Network, class_names, class_scores, colored
from erfattr.cli.diagnose import halves
from erfattr.cli.tiling import tiling_lines
from erfattr.datasets.preprocessing import UnreadableImageError
from erfattr.datasets.sealed_files import ChangedFileError
from erfattr.forecast.cures import forecast_remedies
from erfattr.forecast.forecasting import prepare
from erfattr.forecast.grid import sources_of
from erfattr.metrics.dependence import DependentImagesWarning
from erfattr.metrics.significance import estimate_phase_profile
from erfattr.metrics.statistics import MapStatistics
from erfattr.receptive_field.field import ReceptiveField, total_stride
from erfattr.receptive_field.stages import stage_layers
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.diagnosis import Diagnosis, Measured
from erfattr.report.map_report import MapReport, analyse_map
from erfattr.report.page.network import (
    Contrast,
    Missing,
    NetworkPage,
    SaliencyBeforeAfter,
    SaliencyExample,
    present,
)
from erfattr.tiling.suggest import suggest_tiling

Part = TypeVar("Part")
_Source = FeatureUnit | ModelOutput

# Stages of the grid at most; images whose saliency is shown.
_STAGES, _EXAMPLES = 5, 2


def attempt(compute: Callable[[], Part]) -> Part | Missing:
    """Compute a part of the page, or say in a sentence why it is not there.

    Raises:
        ChangedFileError: an image was changed while the run went on: what was measured before is of another.
        UnreadableImageError: an image cannot be read, and ``--strict`` was given.
    """
    try:
        return compute()
    except (ChangedFileError, UnreadableImageError):
        raise
    except Exception as error:  # whatever a network does: a part that fails ends no page
        return Missing(_sentence(error))


def _sentence(error: Exception) -> str:
    if is_out_of_memory(error):
        return "out of memory."
    said = meaningful(error)
    if not is_refusal(error):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    else:
        # Which argument of a function it was says nothing to the reader of a page.
        name, colon, rest = said.partition(": ")
        said = rest if colon and name.lstrip("-").replace("_", "").isalpha() else said
    return said if said.endswith(".") else f"{said}."


def network_page(
    options: argparse.Namespace, name: str, network: Network, images: ChosenImages
) -> NetworkPage:
    """Measure everything about one network.

    Args:
        options: Of the command.
        name: What the network is called on the page.
        network: The network, on the CPU.
        images: What it is measured over.
    """
    model, info, preparation = network
    size, channels = preparation.size, preparation.channels
    # Traces and forecasts are of the CPU; maps and saliency of the device.
    still = model if options.device == "cpu" else copy.deepcopy(model)
    fields = attempt(lambda: receptive_fields(still, size, in_channels=channels))
    rows = _rows(options, present(fields) or {})
    moved = model.to(options.device)
    begun = time.perf_counter()
    statistics = _statistics(moved, rows, images, quiet=options.quiet)
    seconds = time.perf_counter() - begun
    maps = {row: _analysed(found, present(fields) or {}) for row, found in statistics.items()}
    page = NetworkPage(name, maps, info.weights, fields, seconds_per_image=_pace(maps, seconds))
    wanted = {part for part in ("fields", "grid", "saliency", "tiles") if part not in options.without}
    diagnosis = attempt(lambda: _diagnosis(still, page, network)) if "grid" in wanted else None
    saliency = (
        attempt(lambda: _saliency(options, moved, page, network, images)) if "saliency" in wanted else None
    )
    tiling = attempt(lambda: _tiling(still, page, network)) if "tiles" in wanted else None
    return replace(
        page,
        fields=fields if "fields" in wanted else None,
        diagnosis=diagnosis,
        saliency=saliency,
        tiling=tiling,
    )


def _rows(options: argparse.Namespace, fields: Mapping[str, ReceptiveField]) -> dict[str, _Source]:
    """Return what is mapped, by the name of its row in the grid."""
    rows: dict[str, _Source] = {}
    for name in options.layers:
        if name == "output":
            rows[name] = ModelOutput(options.target)
        elif name == "last":
            rows[name] = FeatureUnit(None, options.unit)
        elif name == "stages":
            rows |= _stages(options, fields)
        else:
            rows[name] = FeatureUnit(name, options.unit)
    return rows


def _stages(options: argparse.Namespace, fields: Mapping[str, ReceptiveField]) -> dict[str, _Source]:
    layers = attempt(lambda: stage_layers(fields, _STAGES))
    if isinstance(layers, Missing):
        return {"last stage": FeatureUnit(None, options.unit)}
    strides = [f"stride {max(fields[layer].stride):g}" for layer in layers]
    if len(set(strides)) < len(strides):  # of one stride throughout, such as a ViT
        strides = [f"stage {number} of {len(layers)}" for number in range(1, len(layers) + 1)]
    return {row: FeatureUnit(layer, options.unit) for row, layer in zip(strides, layers, strict=True)}


def _statistics(
    model: nn.Module, rows: Mapping[str, _Source], images: ChosenImages, *, quiet: bool
) -> dict[str, MapStatistics | Missing]:
    """Map all that can be mapped in one pass."""

    def together(names: Sequence[str]) -> list[MapStatistics]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DependentImagesWarning)  # the page says it
            maps = SensitivityMaps(model, [rows[name] for name in names])
            return maps.attribute(images.loader, show_progress=not quiet)

    def alone(name: str) -> object:
        return SensitivityMaps(model, [rows[name]]).per_image(images.loader, max_examples=1)

    found = attempt(lambda: together(list(rows)))
    if not isinstance(found, Missing):
        return dict(zip(rows, found, strict=True))
    # One that cannot be mapped must not take the others with it.
    tried = {name: attempt(lambda name=name: alone(name)) for name in rows}  # type: ignore[misc]
    missing = {name: part for name, part in tried.items() if isinstance(part, Missing)}
    left = [name for name in rows if name not in missing]
    found = attempt(lambda: together(left)) if left else []
    if isinstance(found, Missing):
        each = {name: attempt(lambda name=name: together([name])[0]) for name in left}  # type: ignore[misc]
    else:
        each = dict(zip(left, found, strict=True))
    return {name: missing.get(name) or each[name] for name in rows}


def _analysed(found: MapStatistics | Missing, fields: Mapping[str, ReceptiveField]) -> MapReport | Missing:
    if isinstance(found, Missing):
        return found
    source = found.source
    field = fields.get(source.layer) if source is not None and source.unit is not None else None
    return attempt(lambda: analyse_map(found, field, None if field else total_stride(fields)))


def _pace(maps: Mapping[str, MapReport | Missing], seconds: float) -> float | None:
    counts = [report.statistics.n_images for report in maps.values() if isinstance(report, MapReport)]
    return seconds / counts[0] if counts else None


def _diagnosis(model: nn.Module, page: NetworkPage, network: Network) -> Diagnosis:
    """Forecast the deepest unit's map, beside the one that was measured."""
    preparation = network.preparation
    report = page.deepest
    layer = None if report is None else report.source.layer
    unit = "center" if report is None or report.source.unit is None else report.source.unit
    prepared = prepare(model, layer, unit, preparation.size, preparation.channels, None)
    forecast = prepared.map("given")
    sources = sources_of(prepared, "given")
    remedies = forecast_remedies(
        model,
        prepared.layer,
        prepared.unit or "center",
        "given",
        input_size=preparation.size,
        in_channels=preparation.channels,
        per_layer=False,
    )
    diagnosis = Diagnosis(forecast, sources, remedies)
    if report is None or len(report.statistics.group_sizes) < 2:
        return diagnosis
    statistics = report.statistics
    measured = replace(diagnosis, measured=Measured(statistics.mean, halves(statistics), statistics.n_images))
    compared = attempt(measured.sentences)  # the measured profile may not reach every phase
    return diagnosis if isinstance(compared, Missing) else measured


def _tiling(model: nn.Module, page: NetworkPage, network: Network) -> list[str]:
    """Say what tiles of the output need, or of the last map of a network whose output has no positions."""
    preparation = network.preparation

    def lines(layer: str | None) -> list[str]:
        return tiling_lines(
            suggest_tiling(model, preparation.size, layer=layer, in_channels=preparation.channels)
        )

    of_output = attempt(lambda: lines(None))
    if not isinstance(of_output, Missing):
        return ["of the output:", *of_output]
    if page.deepest is None:
        raise ValueError(of_output.why)
    layer = page.deepest.source.layer
    return [f"of {layer}, since the output has no positions:", *lines(layer)]


def _saliency(
    options: argparse.Namespace, model: nn.Module, page: NetworkPage, network: Network, images: ChosenImages
) -> SaliencyBeforeAfter:
    """Explain a few images as they are and with the output's own map divided out."""
    info, preparation = network.info, network.preparation
    batch = next(iter(images.loader))
    some = (batch if isinstance(batch, torch.Tensor) else batch[0])[:_EXAMPLES].to(options.device)
    scores = class_scores(model, some)
    report = page.output
    if report is None:
        why = [part.why for row, part in page.maps.items() if row == "output" and isinstance(part, Missing)]
        raise ValueError(
            f"there is no map of the output to divide out: {(why or ['it was not asked for'])[0]}"
        )
    if report.period is None:
        raise ValueError("no period of the output's map is known, so there is no grid to divide out")
    statistics, period = report.statistics, report.period
    debiased = DebiasedAttribution(Saliency(model), statistics, "phase", period=period, preserve_total=True)
    names = class_names(info.name, scores.shape[1])
    mean, std = (torch.tensor(values)[:, None, None] for values in (preparation.mean, preparation.std))
    examples = []
    for index, image in enumerate(some):
        target = int(scores[index].argmax())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
            raw = debiased.attribution_method.attribute(image[None], target=target)
            after = debiased.attribute(image[None], target=target)
        shown = colored(image.detach().cpu() * std + mean)[:3]
        strengths = [found[0].abs().mean(0).detach().cpu() for found in (raw, after)]
        title = f"image {index + 1}, {names[target]}"
        examples.append(SaliencyExample(title, shown, *strengths))
    contrasts = attempt(lambda: held_out_contrasts(statistics, period))
    before, after_it = (None, None) if isinstance(contrasts, Missing) else contrasts
    method = (
        "Absolute gradients of the predicted class, with the phase profile of the output's map over "
        f"{statistics.n_images} images divided out"
    )
    return SaliencyBeforeAfter(tuple(examples), method, statistics.n_images, before, after_it)


def held_out_contrasts(statistics: MapStatistics, period: tuple[int, int]) -> tuple[Contrast, Contrast]:
    """Return the phase contrast of a map before and after the pattern of other images is divided out.

    The groups of even and of odd number take turns: the profile of the one is divided out of the other.

    Raises:
        ValueError: fewer than three groups in a half, or a phase without mass.
    """
    found = []
    for first in (0, 1):
        own, other = _every_second(statistics, first), _every_second(statistics, 1 - first)
        groups = debias(own.group_means, other, "phase", period=period)
        after = replace(own, group_means=groups, mean=_mean(groups, own.group_sizes))
        found.append([estimate_phase_profile(half, period) for half in (own, after)])
    before, after_it = (
        Contrast(
            sum(half.corrected_contrast for half in pair) / 2,
            sum(half.contrast_standard_error**2 for half in pair) ** 0.5 / 2,
        )
        for pair in zip(*found, strict=True)
    )
    return before, after_it


def _every_second(statistics: MapStatistics, first: int) -> MapStatistics:
    groups, sizes = statistics.group_means[first::2].double(), statistics.group_sizes[first::2]
    return replace(
        statistics, mean=_mean(groups, sizes), group_means=groups, group_sizes=sizes, n_images=sum(sizes)
    )


def _mean(groups: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    weights = torch.tensor(sizes, dtype=torch.float64)
    return (groups * weights[:, None, None]).sum(0) / weights.sum()
