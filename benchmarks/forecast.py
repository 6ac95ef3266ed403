"""Forecasts against maps measured over photographs: phase profiles, contrast, ranking of remedies.

    python benchmarks/forecast.py --images PHOTOS                         # the table, seed 0
    python benchmarks/forecast.py --images PHOTOS --models resnet18 --seeds 3 --count 300
    python benchmarks/forecast.py --images PHOTOS --remedies resnet18     # changed copies, ranked

Each row: unit of the last map and output. ``reliability`` is that of the measured profile, from its halves;
the correlation is divided by its root, and the measured contrast multiplied by it. With several seeds a last
row is of the mean maps over draws. With ``--remedies`` every copy is drawn anew as a whole, as its padded
kernels would be after training, and ``pairs`` counts those that both contrasts put in the same order.
"""

from __future__ import annotations

import argparse
import itertools
import time
from functools import partial

import torch
from torch import Tensor, nn

from erfattr import (
    FeatureUnit,
    ImageFiles,
    ImageLoader,
    ModelOutput,
    SensitivityMaps,
    average_shortcuts,
    blur_downsampling,
    load_model,
    pad_kernels,
    phase_contrast,
    phase_profile,
)
from erfattr.cli.diagnose import halves
from erfattr.forecast.forecasting import prepare
from erfattr.report.diagnosis import Measured, agreement

MODELS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d"),
    *("wide_resnet50_2", "wide_resnet101_2", "vgg16_bn", "densenet121", "mobilenet_v2", "efficientnet_b0"),
    *("regnet_y_400mf", "convnext_tiny"),
)
REMEDIES = {
    "original": lambda model: model,
    "padded": pad_kernels,
    "padded and widened": partial(pad_kernels, pool="widen"),
    "BlurPool": blur_downsampling,
    "average shortcuts": average_shortcuts,
}


def measure(model: nn.Module, files: ImageFiles, batch: int) -> list[tuple[str, Measured]]:
    found = SensitivityMaps(model, [FeatureUnit(), ModelOutput()]).attribute(ImageLoader(files, batch))
    layers = [of.source.layer if of.source else "output" for of in found]
    return [
        (layer, Measured(of.mean, halves(of), of.n_images)) for layer, of in zip(layers, found, strict=True)
    ]


def drawn_anew(model: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def rows(name: str, weights: str | None, options: argparse.Namespace) -> None:
    drawn: dict[str, list[tuple[Tensor, Measured]]] = {}
    for seed in range(options.seeds):
        model, info = load_model(name, weights, seed=seed)
        files = ImageFiles(options.images, info.size, options.count, 0)
        for layer, measured in measure(model, files, options.batch_size):
            begun = time.perf_counter()
            try:
                prepared = prepare(model, layer, "center", info.size, 3, None)
                forecast = prepared.map("given")
            except ValueError as error:
                print(f"| {name} | {info.weights} | {layer} | {error} |", flush=True)
                continue
            seconds = time.perf_counter() - begun
            print(line(f"{name}, seed {seed}", layer, forecast, measured, seconds), flush=True)
            drawn.setdefault("output" if layer == "output" else "unit", []).append((forecast, measured))
    for layer, pairs in drawn.items():
        if len(pairs) > 1:
            forecast = torch.stack([pair[0] / pair[0].mean() for pair in pairs]).mean(0)
            parts = [
                torch.stack([getter(pair[1]) / pair[1].map.mean() for pair in pairs]).mean(0)
                for getter in (lambda m: m.map, lambda m: m.halves[0], lambda m: m.halves[1])
            ]
            mean = Measured(parts[0], (parts[1], parts[2]), pairs[0][1].n_images)
            print(line(f"{name}, mean of {len(pairs)} draws", layer, forecast, mean, 0.0), flush=True)


def line(name: str, layer: str, forecast: Tensor, measured: Measured, seconds: float) -> str:
    found = agreement(forecast, measured, (32, 32))
    return (
        f"| {name} | {layer} | {measured.n_images} | {found.reliability:.2f} | {found.corrected:.2f} | "
        f"{found.contrast_ratio:.2f} | {seconds:.1f} s |"
    )


def ranked(name: str, options: argparse.Namespace) -> None:
    contrasts = []
    for title, change in REMEDIES.items():
        model, info = load_model(name, "none", seed=0)
        model = drawn_anew(change(model), 0)
        files = ImageFiles(options.images, info.size, options.count, 0)
        layer, measured = measure(model, files, options.batch_size)[0]
        forecast = prepare(model, layer, "center", info.size, 3, None).map("expected")
        pair = [phase_contrast(phase_profile(values, 32)) for values in (forecast, measured.map)]
        contrasts.append(pair)
        print(f"| {title} | {pair[0]:.4f} | {pair[1]:.4f} |", flush=True)
    pairs = list(itertools.combinations(contrasts, 2))
    right = sum((a[0] < b[0]) == (a[1] < b[1]) for a, b in pairs)
    print(f"pairs in the same order: {right} of {len(pairs)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of photographs")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--weights", default="none", help="none for random, own for those that the model has")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--remedies", metavar="MODEL", help="rank remedies of this model instead")
    options = parser.parse_args()
    if options.remedies:
        print("| remedy | forecast contrast | measured |")
        ranked(options.remedies, options)
        return
    print("| network | layer | images | reliability | correlation | contrast ratio | forecast in |")
    for name in options.models:
        rows(name, None if options.weights == "own" else options.weights, options)


if __name__ == "__main__":
    main()
