"""``erfattr attack``: change one pixel of each image, or few, so that the network's answer changes."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.models
from torch import Tensor, nn

from erfattr._files import writing
from erfattr.attr.dead_pixel_map import DeadPixelMap
from erfattr.cli._options import MODEL_HELP, WEIGHTS_HELP, chosen_images, positive, typed_arguments
from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.preprocessing import standardize
from erfattr.models.loading import ModelInfo, demo_record, load_model
from erfattr.report.attack import AttackedImage, write_attacks
from erfattr.robust.pixel_attacks import OnePixelAttack, StrongPixelAttack
from erfattr.robust.pixel_trials import PixelAttackReport


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    run = commands.add_parser(
        "attack",
        help="change one pixel of each image so that the network's answer changes",
        description="One-pixel attacks by differential evolution (Su et al. 2019), of all images at once, on "
        "all pixels or on those that a sensitivity map calls strong. Colours are those that 8-bit files "
        "hold, and every success is checked on the image as it is written. Writes the adversarial images "
        "(PNG), a contact sheet with the changed pixels circled and both labels, and all numbers with what "
        "is needed to repeat the run (result.json).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    run.add_argument("--model", default="demo", help=MODEL_HELP)
    run.add_argument("--weights", default=None, help=WEIGHTS_HELP)
    run.add_argument(
        "--images",
        default="embedded",
        metavar="FOLDER|embedded",
        help="a folder of images, searched with its subfolders, or embedded: crops of the photographs inside "
        "scikit-image",
    )
    run.add_argument("--count", type=positive, default=10, help="number of images")
    run.add_argument("--size", type=positive, default=None, help="side of the images (default: the model's)")
    run.add_argument(
        "--target",
        choices=("predicted", "label"),
        default="predicted",
        help="the class to leave: the network's own answer, or that of the image's class folder; images "
        "whose answer is another one already are not attacked",
    )
    run.add_argument(
        "--reach", type=int, default=None, metavar="INDEX", help="reach this class instead of leaving one"
    )
    run.add_argument("--pixels", type=positive, default=1, help="pixels to change in each image")
    run.add_argument(
        "--aim",
        choices=("all", "strong"),
        default="strong",
        help="which pixels are tried: all, or the strongest of the dead-pixel map",
    )
    run.add_argument(
        "--fraction", type=float, default=0.25, help="share of the pixels that --aim strong tries"
    )
    run.add_argument(
        "--map",
        type=Path,
        default=None,
        metavar="FILE",
        help="of --aim strong: an NPY file that erfattr map wrote (default: over the attacked images)",
    )
    run.add_argument(
        "--population", type=positive, default=40, help="candidates a generation; the paper: 400"
    )
    run.add_argument("--generations", type=positive, default=9, help="after the first; the paper: 100")
    run.add_argument("--batch-size", type=positive, default=64, help="samples a forward pass, at most")
    run.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda")
    run.add_argument(
        "--seed", type=int, default=0, help="of the search, the choice of images, random weights"
    )
    run.add_argument("--strict", action="store_true", help="stop at the first image file that cannot be read")
    run.add_argument("--output", type=Path, default=Path("erfattr-output"), help="folder for the results")
    run.set_defaults(call=_attack)


def _attack(options: argparse.Namespace) -> None:
    started = datetime.now(timezone.utc)
    if options.reach is not None and options.target == "label":
        raise ValueError("--reach: expected without --target label, since a class is reached and none left")
    model, info = load_model(options.model, options.weights, device=options.device, seed=options.seed)
    lower, upper = (
        standardize(torch.full((3, 1, 1), end), info.mean, info.std).flatten() for end in (0.0, 255.0)
    )
    with writing(options.output) as stage:
        names, images, labels, described = _read(options, info)
        target = _targets(options, model, images, labels)
        attack = _chosen_attack(options, model, images, (lower, upper))
        adversarial, report = attack.perturb(
            images,
            target,
            targeted=options.reach is not None,
            return_report=True,
            show_progress=True,
        )
        rows = _rows(options, model, info, names, images, adversarial, target, report)
        record = {
            "command": ["erfattr", "attack", *typed_arguments(options)],
            "date": started.isoformat(timespec="seconds"),
            "model": asdict(info),
            "images": described,
        }
        done = sum(one.success for one in rows)
        tried = sum(not one.already_adversarial for one in rows)
        summary = f"the attack succeeded on {done} of {tried} images"
        if tried < len(rows):
            summary += f"; {len(rows) - tried} not attacked, since the goal was reached before"
        heading = f"{info.name} ({info.weights}): {summary}"
        written = [path.name for path in write_attacks(stage, rows, record, heading)]
    for one in rows:
        print(f"{one.name}: {one.outcome}, {one.before} {one.probability_before:.3f}", end="")
        if not one.already_adversarial:
            where = ", ".join(f"({y}, {x})" for y, x in one.positions)
            print(
                f" -> {one.after} {one.probability_after:.3f}, pixel {where}, {one.queries} queries", end=""
            )
        print()
    print(f"\n{summary}\nwritten to {options.output}:")
    for name in written:
        print(f"  {options.output / name}")


def _read(
    options: argparse.Namespace, info: ModelInfo
) -> tuple[list[str], Tensor, Tensor | None, dict[str, Any]]:
    """Return names, images, labels of their folders where there are any, and what is said of them."""
    loader, described, unreadable = chosen_images(options, info)
    batches = list(loader)
    with_labels = isinstance(batches[0], (list, tuple))
    images = torch.cat([batch[0] if with_labels else batch for batch in batches])
    labels = torch.cat([batch[1] for batch in batches]) if with_labels else None
    described["unreadable"] = unreadable()
    if isinstance(loader.dataset, ImageFiles):
        files = [path for path in loader.dataset.paths if str(path) not in described["unreadable"]]
        names = [f"{index:04d}_{path.stem}" for index, path in enumerate(files)]
    else:
        names = [f"embedded_{index}" for index in range(len(images))]
    return names, images.to(options.device), labels, described


def _targets(options: argparse.Namespace, model: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    if options.reach is not None:
        return torch.full((len(images),), options.reach)
    if options.target == "predicted":
        return _answers(model, images, options.batch_size).argmax(1)
    if labels is None:
        raise ValueError('--target: "label" needs a folder of images with a subfolder for each class')
    return labels


@torch.inference_mode()
def _answers(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([model(batch) for batch in torch.split(images, batch_size)]).cpu()


def _chosen_attack(
    options: argparse.Namespace, model: nn.Module, images: Tensor, bounds: tuple[Tensor, Tensor]
) -> OnePixelAttack:
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
        sensitivity = DeadPixelMap(model).attribute(torch.split(images, 8))
    elif options.map.is_file():
        sensitivity = torch.from_numpy(np.load(options.map, allow_pickle=False))
    else:
        raise ValueError(f"--map: there is no file {options.map}")
    return StrongPixelAttack(model, sensitivity, *bounds, fraction=options.fraction, **settings)


def _rows(
    options: argparse.Namespace,
    model: nn.Module,
    info: ModelInfo,
    names: list[str],
    images: Tensor,
    adversarial: Tensor,
    target: Tensor,
    report: PixelAttackReport,
) -> list[AttackedImage]:
    """Return what came of each image, measured on the 8 bits that are written."""
    before, after = (_eight_bits(one, info) for one in (images, adversarial))
    written = standardize(after, info.mean, info.std).to(options.device)
    first, last = (
        _answers(model, one, options.batch_size).double().softmax(1).max(1) for one in (images, written)
    )
    classes = _class_names(options, model, images)
    reached = (last.indices == target) == (options.reach is not None)
    rows = []
    for index, name in enumerate(names):
        attacked = not bool(report.already_adversarial[index])
        positions = report.positions[index].tolist() if attacked else []
        rows.append(
            AttackedImage(
                name=name,
                image=after[index],
                before=classes[int(first.indices[index])],
                after=classes[int(last.indices[index])],
                probability_before=float(first.values[index]),
                probability_after=float(last.values[index]),
                success=attacked and bool(reached[index]),
                already_adversarial=not attacked,
                queries=int(report.queries[index]),
                positions=positions,
                colors=[
                    {"before": before[index, :, y, x].tolist(), "after": after[index, :, y, x].tolist()}
                    for y, x in positions
                ],
            )
        )
    return rows


def _eight_bits(images: Tensor, info: ModelInfo) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (info.mean, info.std))
    return ((images.cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _class_names(options: argparse.Namespace, model: nn.Module, images: Tensor) -> list[str]:
    count = _answers(model, images[:1], 1).shape[1]
    names: list[str] = []
    if options.model == "demo":
        names = demo_record()["classes"]
    elif options.model in torchvision.models.list_models():
        weights = torchvision.models.get_model_weights(options.model)
        names = next(iter(weights)).meta.get("categories", [])
    return names if len(names) == count else [f"class {index}" for index in range(count)]
