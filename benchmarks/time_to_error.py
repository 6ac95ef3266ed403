"""Seconds until a map, or a number read from it, is known well enough: whole calls, from files on disk.

    python benchmarks/time_to_error.py --data photographs
    TORCH_HOME=weights python benchmarks/time_to_error.py --data photographs --models mobilenet_v2

Users want a number with a known error, not a number of images. For each network a pilot tells how many images
each way needs for each aim; two calls in turn, of few and of more images, tell what a call costs to begin and
what each image adds. The product is the time to the error. Ways:

- ``erfattr``: the map, and its indices without the noise of the map;
- ``erfattr, bfloat16``: the same, run in that type;
- ``loop``: one image at a time, as the scripts of RepLKNet and VMamba do it, and the raw indices of its map;
- ``openerf``: that package (PyPI; needs timm), and the raw indices of its map.

A raw index contains the map's noise, so it is too large, and more images than for its own error are needed
until that is below the aim. With the index L at infinitely many images and the floor f of the noise of n
images, N images give on average sqrt(L^2 + f^2 n / N) (the noise adds in squares where it is not small beside
L). It is within the aim t where N = f^2 n / (L^2 ((1 + t)^2 - 1)). Phase contrast likewise.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erfattr import (
    ERF,
    Execution,
    ImageFiles,
    ImageLoader,
    MapStatistics,
    corrected_imbalance,
    load_model,
)
from erfattr._files import environment, write_json
from erfattr.metrics.precision import images_for, images_needed
from erfattr.metrics.significance import estimate_phase_profile
from erfattr.receptive_field.trace import theoretical_receptive_field

MODELS = {"mobilenet_v2": "IMAGENET1K_V1", "resnet50": "none", "convnext_tiny": "none"}
AIMS = (("pixels", 0.10), ("pixels", 0.05), ("L1", 0.05), ("contrast", 0.05))


def beyond_noise(true: float, raw: float, images: int, aim: float) -> int | None:
    """Return how many images bring a raw number to within the aim of what it is without noise."""
    noise = raw**2 - true**2
    if true <= 0 or noise <= 0:
        return None
    return math.ceil(images * noise / (true**2 * ((1 + aim) ** 2 - 1)))


def needed(found: MapStatistics, period: Any, *, raw: bool) -> dict[str, int | None]:
    """Return how many images each aim needs, by the pilot's own errors."""
    phase = estimate_phase_profile(found, period)
    contrast = phase.corrected_contrast
    counts: dict[str, int | None] = {}
    for what, aim in AIMS:
        if what == "contrast":
            error = phase.contrast_standard_error / contrast if contrast > 0 else math.inf
            count = images_for(error, found.n_images, aim)
            noisy = phase.contrast, contrast
        else:
            count = images_needed(found, aim, what)  # type: ignore[arg-type]
            index = corrected_imbalance(found, 1)
            noisy = index.uncorrected, index.value
        if raw and what != "pixels":
            through_noise = beyond_noise(noisy[1], noisy[0], found.n_images, aim)
            count = None if None in (count, through_noise) else max(count or 0, through_noise or 0)
        counts[f"{what} {aim:.0%}"] = count
    return counts


def literal_loop(model: nn.Module, layer: str, loader: ImageLoader) -> Tensor:
    """Eq. 1 to 3, one image at a time, as the scripts people copy do it."""
    units: list[Tensor] = []

    def read(_module: nn.Module, _inputs: object, features: Tensor) -> None:
        height, width = features.shape[2:]
        units.append(features[:, :, height // 2, width // 2].mean())

    handle = model.get_submodule(layer).register_forward_hook(read)
    total: Tensor | None = None
    count = 0
    for batch in loader:
        image = (batch if isinstance(batch, Tensor) else batch[0]).requires_grad_(True)
        units.clear()
        model(image)
        (gradient,) = torch.autograd.grad(units[0], image)
        found = gradient.mean((0, 1)).relu()
        total = found if total is None else total + found
        count += 1
    handle.remove()
    assert total is not None
    return total / count


def openerf_map(model: nn.Module, layer: str, folder: str, count: int) -> object:
    """What the paper's first author published."""
    import openerf.erf

    return openerf.erf.compute_erf(
        model, image_dir=folder, max_images=count, target_layer=layer, device="cpu", show_progress=False
    )


def cost(call: Callable[[int], object], few: int, more: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return seconds of a call before its images, and of each image, of each round."""
    begin, each = [], []
    for _ in range(rounds):
        seconds = []
        for count in (few, more):
            begun = time.perf_counter()
            call(count)
            seconds.append(time.perf_counter() - begun)
        slope = (seconds[1] - seconds[0]) / (more - few)
        each.append(slope)
        begin.append(max(0.0, seconds[0] - few * slope))
    return begin, each


def one_folder(data: str, count: int, into: Path) -> str:
    """Link so many photographs into one folder, which is what openerf reads."""
    into.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(ImageFiles(data, 224, count).paths):
        link = into / f"{index:05d}{path.suffix}"
        if not link.exists():
            link.symlink_to(path.resolve())
    return str(into)


def measure(name: str, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Measure one network all ways, and print its table."""
    torch.manual_seed(0)
    model, info = load_model(name, MODELS[name])

    def files(count: int, batch: int) -> ImageLoader:
        return ImageLoader(ImageFiles(folder, 224, count, mean=info.mean, std=info.std), batch)

    erf = ERF(model)
    _, pilot = erf.attribute(files(options.pilot, options.batch_size), return_statistics=True)
    layer = pilot.source.layer
    period = theoretical_receptive_field(model, layer).period
    ways: dict[str, tuple[Callable[[int], object], bool]] = {
        "erfattr": (lambda count: erf.attribute(files(count, options.batch_size)), False),
        "loop": (lambda count: literal_loop(model, layer, files(count, 1)), True),
        "openerf": (lambda count: openerf_map(model, layer, folder, count), True),
    }
    if "bfloat16" in options.ways:
        half = ERF(model, layer, execution=Execution(precision="bfloat16"))
        ways["erfattr, bfloat16"] = (lambda count: half.attribute(files(count, options.batch_size)), False)
    rows = {}
    print(f"\n{name} ({info.weights}), {layer}, pilot of {pilot.n_images} images")
    print(
        f"{'':18s}" + "".join(f"{f'{what} {aim:.0%}':>26s}" for what, aim in AIMS) + f"{'begin + image':>20s}"
    )
    for way, (call, raw) in ways.items():
        if way.split(", ")[-1] not in options.ways and way not in options.ways:
            continue
        call(2)  # traces, imports and warms up: no side is charged for it
        begin, each = cost(call, options.few, options.more, options.rounds)
        counts = needed(pilot, period, raw=raw)
        seconds = {
            aim: None if count is None else statistics.median(begin) + count * statistics.median(each)
            for aim, count in counts.items()
        }
        cells = [
            "never" if counts[aim] is None else f"{seconds[aim]:.1f} s ({counts[aim]} images)"
            for aim in counts
        ]
        paces = f"{statistics.median(begin):.2f} + {1e3 * statistics.median(each):.0f} ms"
        print(f"{way:18s}" + "".join(f"{cell:>26s}" for cell in cells) + f"{paces:>20s}", flush=True)
        rows[way] = {"images": counts, "seconds": seconds, "begin": begin, "seconds_per_image": each}
    return {"model": name, "weights": info.weights, "layer": layer, "pilot": pilot.n_images, "ways": rows}


def main() -> None:
    """Print a table for each network, write all numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--ways", nargs="+", default=["erfattr", "loop", "openerf"])
    parser.add_argument("--pilot", type=int, default=200, help="images that tell how many each aim needs")
    parser.add_argument("--few", type=int, default=16, help="images of the shorter call")
    parser.add_argument("--more", type=int, default=64, help="images of the longer call")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path("time-to-error"), help="for links and numbers")
    options = parser.parse_args()
    count = max(options.pilot, options.more)
    folder = one_folder(options.data, count, options.folder / "photographs")
    found = [measure(name, options, folder) for name in options.models]
    record = {"command": sys.argv, "environment": environment(), "networks": found}
    write_json(options.folder / "time_to_error.json", record)


if __name__ == "__main__":
    main()
