"""``erfattr attack``: change one pixel of each image, or few, so that the network's answer changes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor, nn

from erfattr._files import writing
from erfattr.attr.dead_pixel_map import DeadPixelMap
from erfattr.cli._inputs import (
    Network,
    Preparation,
    check_class,
    chosen_images,
    chosen_network,
    class_scores,
    colored,
    read_map,
)
from erfattr.cli._record import begun_record, print_written
from erfattr.datasets.preprocessing import standardize
from erfattr.models.demo import demo_record
from erfattr.report.attack import AttackedImage, write_attacks
from erfattr.robust.pixel_attacks import OnePixelAttack, StrongPixelAttack
from erfattr.robust.pixel_trials import PixelAttackReport


@dataclass(frozen=True)
class _Images:
    """What is attacked.

    Attributes:
        names: One for each image.
        pixels: (N, C, H, W), as the model takes them.
        labels: (N,) of their folders, where there are any.
        described: What is said of them in the record.
    """

    names: list[str]
    pixels: Tensor
    labels: Tensor | None
    described: dict[str, Any]


def run(options: argparse.Namespace) -> None:
    """Attack the images, write what came of them, and print a line for each."""
    started = datetime.now(timezone.utc)
    network = chosen_network(options)
    model, info, preparation = network
    with writing(options.output):  # shows at once whether it can be written to
        images = _read(options, preparation)
        target = _targets(options, model, images)
        adversarial, report = _chosen_attack(options, network, images.pixels).perturb(
            images.pixels,
            target,
            targeted=options.reach is not None,
            return_report=True,
            show_progress=True,
        )
        attacked = _attacked(options, network, images, adversarial, target, report)
        record = {**begun_record(options, started, info), "images": images.described}
        summary = _summary(attacked)
        heading = f"{info.name} ({info.weights}): {summary}"
        written = [path.name for path in write_attacks(options.output, attacked, record, heading)]
    for image in attacked:
        print(_line(image))
    print(f"\n{summary}")
    print_written(options.output, written)


def _read(options: argparse.Namespace, preparation: Preparation) -> _Images:
    chosen = chosen_images(options, preparation)
    batches = list(chosen.loader)
    with_labels = isinstance(batches[0], (list, tuple))
    pixels = torch.cat([batch[0] if with_labels else batch for batch in batches])
    labels = torch.cat([batch[1] for batch in batches]) if with_labels else None
    described = chosen.described_once_read()
    if chosen.files is None:
        names = [f"embedded_{index}" for index in range(len(pixels))]
    else:
        readable = [path for path in chosen.files.paths if str(path) not in described["unreadable"]]
        names = [f"{index:04d}_{path.stem}" for index, path in enumerate(readable)]
    return _Images(names, pixels.to(options.device), labels, described)


def _targets(options: argparse.Namespace, model: nn.Module, images: _Images) -> Tensor:
    """Return the class of each image that is to be left, or reached."""
    answers = _answers(model, images.pixels, options.batch_size)
    classes = answers.shape[1]
    if options.reach is not None:
        check_class("--reach", options.reach, classes)
        return torch.full((len(images.pixels),), options.reach)
    if options.target == "predicted":
        return answers.argmax(1)
    if images.labels is None:
        raise ValueError('--target: "label" needs a folder of images with a subfolder for each class')
    highest = int(images.labels.max())
    if highest >= classes:
        raise ValueError(
            f"--target: expected class folders for the model's {classes} classes at most, got {highest + 1}"
        )
    return images.labels


def _answers(model: nn.Module, pixels: Tensor, batch_size: int) -> Tensor:
    return torch.cat([class_scores(model, batch) for batch in torch.split(pixels, batch_size)])


def _chosen_attack(options: argparse.Namespace, network: Network, pixels: Tensor) -> OnePixelAttack:
    model, _, prepared = network
    # Black and white, as the model takes them, channel by channel.
    ends = (torch.full((prepared.channels, 1, 1), end) for end in (0.0, 255.0))
    bounds = [standardize(end, prepared.mean, prepared.std).flatten() for end in ends]
    settings: dict[str, Any] = {
        "pixels": options.pixels,
        "population_size": options.population,
        "max_generations": options.generations,
        "levels": 256,
        "max_batch_size": options.batch_size,
        "seed": options.seed,
    }
    if options.aim == "all":
        return OnePixelAttack(model, *bounds, **settings)
    if options.map is None:
        sensitivity_map = DeadPixelMap(model).attribute(torch.split(pixels, 8))
    else:
        sensitivity_map = read_map(options.map)
        if bool((sensitivity_map == sensitivity_map.flatten()[0]).all()):
            raise ValueError(
                f"--map: expected one whose pixels differ, but {options.map} is the same everywhere"
            )
    return StrongPixelAttack(model, sensitivity_map, *bounds, fraction=options.fraction, **settings)


def _attacked(
    options: argparse.Namespace,
    network: Network,
    images: _Images,
    adversarial: Tensor,
    target: Tensor,
    report: PixelAttackReport,
) -> list[AttackedImage]:
    """Return what came of each image, measured on the 8 bits that are written."""
    model, _, prepared = network
    before, after = (_eight_bits(pixels, prepared) for pixels in (images.pixels, adversarial))
    written = standardize(after, prepared.mean, prepared.std).to(options.device)
    first, last = (
        _answers(model, pixels, options.batch_size).softmax(1).max(1) for pixels in (images.pixels, written)
    )
    classes = class_names(options.model, _answers(model, images.pixels[:1], 1).shape[1])
    # A class to reach must be the answer, one to leave must not.
    reached = (last.indices == target) == (options.reach is not None)
    attacked = []
    for index, name in enumerate(images.names):
        tried = not bool(report.already_adversarial[index])
        positions = report.positions[index].tolist() if tried else []
        attacked.append(
            AttackedImage(
                name=name,
                image=colored(after[index]),
                before=classes[int(first.indices[index])],
                after=classes[int(last.indices[index])],
                probability_before=float(first.values[index]),
                probability_after=float(last.values[index]),
                success=tried and bool(reached[index]),
                already_adversarial=not tried,
                queries=int(report.queries[index]),
                positions=positions,
                colors=[
                    {"before": before[index, :, y, x].tolist(), "after": after[index, :, y, x].tolist()}
                    for y, x in positions
                ],
            )
        )
    return attacked


def _eight_bits(pixels: Tensor, prepared: Preparation) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (prepared.mean, prepared.std))
    return ((pixels.cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def class_names(model: str, count: int) -> list[str]:
    """Return the names of a model's classes, or their indices where their names are not known."""
    from torchvision.models import get_model_weights, list_models

    names: list[str] = []
    if model == "demo":
        names = demo_record()["classes"]
    elif model in list_models():
        names = next(iter(get_model_weights(model))).meta.get("categories", [])
    return names if len(names) == count else [f"class {index}" for index in range(count)]


def _summary(attacked: list[AttackedImage]) -> str:
    successes = sum(image.success for image in attacked)
    tried = sum(not image.already_adversarial for image in attacked)
    summary = f"the attack succeeded on {successes} of {tried} images"
    if tried < len(attacked):
        summary += f"; {len(attacked) - tried} not attacked, since the goal was reached before"
    return summary


def _line(image: AttackedImage) -> str:
    """Return what a person reads of one image."""
    line = f"{image.name}: {image.outcome}, {image.before} {image.probability_before:.3f}"
    if image.already_adversarial:
        return line
    where = ", ".join(f"({y}, {x})" for y, x in image.positions)
    return f"{line} -> {image.after} {image.probability_after:.3f}, pixel {where}, {image.queries} queries"
