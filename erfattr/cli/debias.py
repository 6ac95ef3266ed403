"""``erfattr debias``: the saliency of images without the network's own grid."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, NamedTuple

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

from erfattr.attr.calibration import Calibration, calibrate
from erfattr.attr.calibration_file import load_calibration, save_calibration
from erfattr.attr.debiased_attribution import DebiasedAttribution
from erfattr.cli._failures import naming
from erfattr.cli._inputs import (
    Preparation,
    check_class,
    chosen_images,
    chosen_network,
    class_names,
    class_scores,
    colored,
    read_map,
)
from erfattr.cli._output import claimed
from erfattr.cli._record import begun_record, print_written
from erfattr.cli.options.debias import EMBEDDED, Method
from erfattr.datasets.photographs import sample_images
from erfattr.datasets.preprocessing import (
    UnreadableImageError,
    read_image,
    resize_and_crop,
    standardize,
)
from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.debias import write_debiased
from erfattr.report.debias_figure import DebiasedImage, grid_change


class _Explainer(NamedTuple):
    """A method of Captum, and the settings that its ``attribute`` is called with."""

    method: Attribution
    settings: dict[str, Any]


class _Sensitivity(NamedTuple):
    """What is divided out, and what is said of it in the record."""

    map: Calibration | Tensor
    described: dict[str, Any]

    @property
    def values(self) -> Tensor:
        """The map alone."""
        return self.map.statistics.mean if isinstance(self.map, Calibration) else self.map


def run(options: argparse.Namespace) -> None:
    """Explain the images, write what was found, and print a line for each."""
    started = datetime.now(timezone.utc)
    # Captum's words about its own workings, which a user can do nothing about.
    warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
    warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU activations")
    model, info, preparation = chosen_network(options)
    if options.method == "guided-backprop" and any(
        isinstance(module, nn.ReLU6) for module in model.modules()
    ):
        print("note: GuidedBackprop passes over ReLU6, which this network has: there it is a plain gradient")
    names, pictures = _pictures(options, preparation)
    images = [standardize(picture, preparation.mean, preparation.std)[None] for picture in pictures]
    scores = class_scores(model, images[0].to(options.device))
    if options.target != "predicted":
        check_class("--target", options.target, scores.shape[1])
    period = _period(options, model, preparation)
    shown_period = period
    if period is None:
        with suppress(ValueError):  # the mode needs none, and the figure does without
            shown_period = _total_stride(model, preparation)
    explainer = _explainer(options.method, model, options.samples)
    with claimed(options, "image"):  # shows at once whether it can be written to
        torch.manual_seed(options.seed)
        sensitivity = _sensitivity(options, preparation, explainer)
        debiased = DebiasedAttribution(
            explainer.method,
            sensitivity.map,
            options.mode,
            period=period,
            epsilon=options.epsilon,
            preserve_total=True,
        )
        classes = class_names(options.model, scores.shape[1])
        explained = []
        for name, picture, image in zip(names, pictures, images, strict=True):
            shown = colored(picture) / 255
            image = image.to(options.device)
            explained.append(_explained(options, debiased, name, shown, image, explainer.settings, classes))
        record = {
            **begun_record(options, started, info, positional="image"),
            "prepared": asdict(preparation),
            "map": sensitivity.described,
            "period": period,
            "settings": explainer.settings,
        }
        map_words = sensitivity.described["words"]
        heading = f"{info.name} ({info.weights}), {options.method}, {options.mode} mode, map: {map_words}"
        written = []
        if isinstance(sensitivity.map, Calibration):
            save_calibration(sensitivity.map, options.output / "calibration.pt")
            written.append("calibration.pt")
        files = write_debiased(
            options.output, explained, sensitivity.values, record, period=shown_period, heading=heading
        )
        written += [path.name for path in files]
    change = grid_change(explained, shown_period)
    print("the grid was not measured" if change is None else change.sentence)
    for result in explained:
        of_one = grid_change([result], shown_period)
        said = "" if of_one is None else f", {of_one.sentence.removeprefix('this image: ')}"
        if not options.quiet:
            print(f"{result.name}: {result.explained}{said}")
    if not options.quiet:
        print()
        print_written(options.output, written)


def _pictures(options: argparse.Namespace, preparation: Preparation) -> tuple[list[str], list[Tensor]]:
    """Return names and pixels, 0..255, of the images to explain."""
    size, channels = preparation.size, preparation.channels
    if not options.image:
        names = [f"embedded_{index}" for index in range(EMBEDDED)]
        return names, list(255 * sample_images(EMBEDDED, size, normalize=False, channels=channels))
    names = [path.stem for path in options.image]
    if len(set(names)) < len(names):
        raise ValueError(f"IMAGE: expected files of different names, got {' '.join(names)}")
    try:
        return names, [resize_and_crop(read_image(path, channels), size, channels) for path in options.image]
    except UnreadableImageError as error:
        raise ValueError(f"IMAGE: {error}") from error


def _period(options: argparse.Namespace, model: nn.Module, preparation: Preparation) -> int | None:
    """Return the period that was given, or the model's; ``None`` where the mode needs none."""
    if options.period is not None or options.mode == "global":
        period: int | None = options.period
        return period
    return _total_stride(model, preparation)


def _total_stride(model: nn.Module, preparation: Preparation) -> int:
    fields = receptive_fields(model, preparation.size, in_channels=preparation.channels, probe=False)
    stride = total_stride(fields)
    if stride is None or stride[0] != stride[1]:
        raise ValueError("--period: the model's total stride could not be read; give it")
    return stride[0]


def _explainer(name: Method, model: nn.Module, samples: int) -> _Explainer:
    match name:
        case "saliency":
            return _Explainer(Saliency(model), {})
        case "input-x-gradient":
            return _Explainer(InputXGradient(model), {})
        case "integrated-gradients":
            return _Explainer(IntegratedGradients(model), {"n_steps": samples})
        case "smoothgrad":
            return _Explainer(NoiseTunnel(Saliency(model)), {"nt_samples": samples, "stdevs": 0.3})
        case "guided-backprop":
            return _Explainer(GuidedBackprop(model), {})


def _sensitivity(
    options: argparse.Namespace, preparation: Preparation, explainer: _Explainer
) -> _Sensitivity:
    """Return the map from its file, or measure it."""
    if options.map is None:
        images = chosen_images(options, preparation)
        calibration = calibrate(
            explainer.method,
            images.loader,
            target=options.target,
            show_progress=not options.quiet,
            **explainer.settings,
        )
        words = f"{calibration.statistics.n_images} images"
        return _Sensitivity(calibration, {**images.described_once_read(), "words": words})
    described = {"file": str(options.map), "words": options.map.name}
    if options.map.suffix == ".npy":
        return _Sensitivity(read_map(options.map), described)
    with naming(path="--map"):
        calibration = load_calibration(options.map)
    described["words"] += f", {calibration.statistics.n_images} images"
    return _Sensitivity(calibration, described)


def _explained(
    options: argparse.Namespace,
    debiased: DebiasedAttribution,
    name: str,
    picture: Tensor,
    image: Tensor,
    settings: dict[str, Any],
    classes: Sequence[str],
) -> DebiasedImage:
    """Explain one image, with the same random numbers before and after."""
    target = options.target
    if target == "predicted":
        target = int(class_scores(debiased.forward_func, image)[0].argmax())
    torch.manual_seed(options.seed)
    raw = debiased.attribution_method.attribute(image, target=target, **settings)
    torch.manual_seed(options.seed)
    after = debiased.attribute(image, target=target, **settings)
    return DebiasedImage(
        name, picture, raw[0].detach().cpu(), after[0].detach().cpu(), target, classes[target]
    )
