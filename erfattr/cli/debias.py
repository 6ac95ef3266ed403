"""``erfattr debias``: the saliency of images without the network's own grid."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import (
    Attribution,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

from erfattr._checks import check_fraction
from erfattr._files import writing
from erfattr.attr.calibration import Calibration, calibrate
from erfattr.attr.calibration_file import load_calibration, save_calibration
from erfattr.attr.debiased_attribution import DebiasedAttribution
from erfattr.cli._options import MODEL_HELP, WEIGHTS_HELP, chosen_images, positive, typed_arguments
from erfattr.datasets.photographs import sample_images
from erfattr.datasets.preprocessing import read_image, resize_and_crop, standardize
from erfattr.metrics.relief import MODES
from erfattr.models.loading import ModelInfo, load_model
from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.debias import DebiasedImage, write_debiased

_METHODS: dict[str, Callable[[nn.Module], Attribution]] = {
    "saliency": Saliency,
    "input-x-gradient": InputXGradient,
    "integrated-gradients": IntegratedGradients,
    "smoothgrad": lambda model: NoiseTunnel(Saliency(model)),
    "guided-backprop": GuidedBackprop,
}
# What is explained without an IMAGE: the first crops of the embedded photographs.
_EMBEDDED = 3


def add(commands: Any) -> None:
    """Add the command to the subparsers ``commands``."""
    run = commands.add_parser(
        "debias",
        help="saliency of images without the network's own grid",
        description="Explain images by a method of Captum, and divide out what the network's sensitivity "
        "alone contributes: the method's expected map, measured over many images or read from a file. "
        "Writes one figure (original, raw, debiased, difference, sensitivity map), all of it as NPY, the map "
        "for the next run (calibration.pt), and all that is needed to repeat the run (result.json).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    run.add_argument(
        "image",
        nargs="*",
        type=Path,
        default=[],
        metavar="IMAGE",
        help=f"image files to explain (default: {_EMBEDDED} photographs inside scikit-image)",
    )
    run.add_argument("--model", default="demo", help=MODEL_HELP)
    run.add_argument("--weights", default=None, help=WEIGHTS_HELP)
    run.add_argument("--method", choices=tuple(_METHODS), default="saliency", help="of Captum")
    run.add_argument(
        "--samples",
        type=positive,
        default=16,
        help="steps of integrated-gradients, noisy copies of smoothgrad",
    )
    run.add_argument(
        "--target",
        type=_target,
        default="predicted",
        metavar="predicted|INDEX",
        help="the class that is explained",
    )
    run.add_argument(
        "--mode",
        choices=MODES,
        default="phase",
        help="what is divided out: what repeats with the stride, all fine structure, or the whole map",
    )
    run.add_argument(
        "--period",
        type=positive,
        default=None,
        help="of the pattern in pixels (default: the model's total stride)",
    )
    run.add_argument(
        "--epsilon", type=float, default=0.1, help="no attribution grows by more than 1 / epsilon"
    )
    run.add_argument(
        "--map",
        type=Path,
        default=None,
        metavar="FILE",
        help="take the map from there: calibration.pt of an earlier run, or an NPY file that erfattr map "
        "wrote (default: measure it)",
    )
    run.add_argument(
        "--images",
        default="embedded",
        metavar="FOLDER|embedded",
        help="what the map is measured on: a folder, or crops of the photographs inside scikit-image",
    )
    run.add_argument("--count", type=positive, default=None, help="number of these (default: all)")
    run.add_argument("--size", type=positive, default=None, help="side of the images (default: the model's)")
    run.add_argument("--batch-size", type=positive, default=8, help="images a forward pass")
    run.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda")
    run.add_argument("--seed", type=int, default=0, help="of choice of images, random weights and noise")
    run.add_argument("--strict", action="store_true", help="stop at the first image file that cannot be read")
    run.add_argument("--output", type=Path, default=Path("erfattr-output"), help="folder for the results")
    run.set_defaults(call=_debias)


def _target(text: str) -> Any:
    return text if text == "predicted" else int(text)


def _debias(options: argparse.Namespace) -> None:
    started = datetime.now(timezone.utc)
    check_fraction("--epsilon", options.epsilon)
    warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
    warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU activations")
    model, info = load_model(options.model, options.weights, device=options.device, seed=options.seed)
    if options.method == "guided-backprop" and any(isinstance(one, nn.ReLU6) for one in model.modules()):
        print("note: GuidedBackprop passes over ReLU6, which this network has: there it is a plain gradient")
    size = options.size or info.size
    names, pictures = _pictures(options, size)
    period = options.period
    if period is None and options.mode != "global":
        stride = total_stride(receptive_fields(model, size, probe=False))
        if stride is None or stride[0] != stride[1]:
            raise ValueError("--period: the model's total stride could not be read; give it")
        period = stride[0]
    method = _METHODS[options.method](model)
    settings = _settings(options)
    with writing(options.output) as stage:
        torch.manual_seed(options.seed)
        sensitivity, described = _sensitivity(options, info, method, settings)
        debiased = DebiasedAttribution(
            method,
            sensitivity,
            options.mode,
            period=period,
            epsilon=options.epsilon,
            preserve_total=True,
        )
        rows = []
        for name, picture in zip(names, pictures, strict=True):
            image = standardize(picture, info.mean, info.std)[None].to(options.device)
            rows.append(_row(options, debiased, name, picture / 255, image, settings))
        record = {
            "command": ["erfattr", "debias", *map(str, options.image), *_typed(options)],
            "date": started.isoformat(timespec="seconds"),
            "model": asdict(info),
            "map": described,
            "period": period,
            "settings": settings,
        }
        values = sensitivity.statistics.mean if isinstance(sensitivity, Calibration) else sensitivity
        heading = (
            f"{info.name} ({info.weights}), {options.method}, {options.mode} mode, map: {described['words']}"
        )
        written = [
            path.name for path in write_debiased(stage, rows, values, record, period=period, heading=heading)
        ]
        if isinstance(sensitivity, Calibration):
            save_calibration(sensitivity, stage / "calibration.pt")
            written.append("calibration.pt")
    for one in rows:
        raw, after = one.strengths()
        change = float((after - raw).abs().mean() / raw.mean())
        print(f"{one.name}: class {one.target}, changed by {100 * change:.1f} % of the mean attribution")
    print(f"\nwritten to {options.output}:")
    for name in written:
        print(f"  {options.output / name}")


def _row(
    options: argparse.Namespace,
    debiased: DebiasedAttribution,
    name: str,
    picture: Tensor,
    image: Tensor,
    settings: dict[str, Any],
) -> DebiasedImage:
    """Explain one image, with the same random numbers before and after."""
    with torch.no_grad():
        output = debiased.forward_func(image)
    target = int(output[0].argmax()) if options.target == "predicted" else options.target
    torch.manual_seed(options.seed)
    raw = debiased.attribution_method.attribute(image, target=target, **settings)
    torch.manual_seed(options.seed)
    after = debiased.attribute(image, target=target, **settings)
    return DebiasedImage(name, picture, raw[0].detach().cpu(), after[0].detach().cpu(), target)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    if options.method == "integrated-gradients":
        return {"n_steps": options.samples}
    if options.method == "smoothgrad":
        return {"nt_samples": options.samples, "stdevs": 0.3}
    return {}


def _pictures(options: argparse.Namespace, size: int) -> tuple[list[str], list[Tensor]]:
    """Return names and pixels, 0..255, of the images to explain."""
    if not options.image:
        names = [f"embedded_{index}" for index in range(_EMBEDDED)]
        return names, list(255 * sample_images(_EMBEDDED, size, normalize=False))
    names = [path.stem for path in options.image]
    if len(set(names)) < len(names):
        raise ValueError(f"IMAGE: expected files of different names, got {' '.join(names)}")
    return names, [resize_and_crop(read_image(path), size) for path in options.image]


def _sensitivity(
    options: argparse.Namespace, info: ModelInfo, method: Attribution, settings: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the map, and what is said of it in the record."""
    if options.map is not None:
        if options.map.suffix == ".npy":
            if not options.map.is_file():
                raise ValueError(f"--map: there is no file {options.map}")
            values = torch.from_numpy(np.load(options.map, allow_pickle=False))
            return values, {"file": str(options.map), "words": options.map.name}
        calibration = load_calibration(options.map)
        count = calibration.statistics.n_images
        return calibration, {"file": str(options.map), "words": f"{options.map.name}, {count} images"}
    images, described, unreadable = chosen_images(options, info)
    calibration = calibrate(method, images, target=options.target, show_progress=True, **settings)
    words = f"{calibration.statistics.n_images} images"
    return calibration, {**described, "unreadable": unreadable(), "words": words}


def _typed(options: argparse.Namespace) -> list[str]:
    """Return the options as they would be typed, without the images before them."""
    return typed_arguments(
        argparse.Namespace(**{key: value for key, value in vars(options).items() if key != "image"})
    )
