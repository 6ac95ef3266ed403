"""What kernel padding and the two other remedies do to imbalance, alignment and cost, side by side.

    python benchmarks/remedies.py                   # freshly initialised ResNet-18, 224 x 224, 5 seeds
    python benchmarks/remedies.py --model demo      # the same of the demo network, which is quick
    python benchmarks/remedies.py --model demo --weights shipped --seeds 1   # no training afterwards

Every variant starts from the same network. Under ``fresh`` all kernels are drawn anew as a whole after the
change, since zeros change nothing. Maps are over the embedded images. L1, L2 and phase contrast are of the
output's dead-pixel map over its mean, without the sampling noise. The offset is that of the centroid of the
middle unit's effective receptive field from the image centre, mean of both axes; ``unit`` is the pixel that
this unit is put on by strides and padding. Numbers are means over the seeds with their standard error; with
one seed the error is that over images. Times are of one forward and backward pass in training mode, variant
and original in turn: median of the rounds' ratios, and their range.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from scipy.stats import sem
from torch import Tensor, nn

from erfattr import average_shortcuts, blur_downsampling, load_model, pad_kernels, sample_images
from erfattr.training.pixel_use import PixelUse, measure_pixel_use


def drawn_anew(model: nn.Module, seed: int) -> nn.Module:
    """Draw all convolutions as torchvision's ResNets do, new taps and all."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


REMEDIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "original": lambda model: model,
    "padded": pad_kernels,
    "padded, pools widened": lambda model: pad_kernels(model, pool="widen"),
    "BlurPool, 3 taps": blur_downsampling,
    "BlurPool, 4 taps": lambda model: blur_downsampling(model, filter_size=4),
    "ResNet-D shortcuts": average_shortcuts,
}


def seconds(model: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    model.zero_grad()
    model(images).square().mean().backward()
    return time.perf_counter() - start


def time_ratios(model: nn.Module, original: nn.Module, images: Tensor, rounds: int) -> list[float]:
    ratios = []
    for _ in range(rounds + 1):  # the first warms up
        before = seconds(original, images)
        own = seconds(model, images)
        ratios.append(2 * own / (before + seconds(original, images)))
    return ratios[1:]


def cell(values: Sequence[float], error: float) -> str:
    if len(values) > 1:
        error = float(sem(values))
    return f"{statistics.mean(values):.3f} +- {error:.3f}"


def row(uses: Sequence[PixelUse]) -> str:
    offsets = [sum(use.offset) / 2 for use in uses]  # rows and columns are alike
    cells = [
        cell([use.l1.value for use in uses], uses[0].l1.standard_error),
        cell([use.l2.value for use in uses], uses[0].l2.standard_error),
        cell([use.phase_contrast for use in uses], uses[0].phase_error),
        f"{statistics.mean(offsets):+.1f}" + (f" +- {sem(offsets):.1f}" if len(offsets) > 1 else ""),
        "-" if uses[0].unit_center is None else f"{uses[0].unit_center[0]:g}",
    ]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="resnet18", help="as in erfattr map")
    parser.add_argument("--weights", choices=["fresh", "shipped"], default="fresh")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="of the times; 0 for none")
    options = parser.parse_args()
    images = sample_images(options.images)
    print("| variant | L1 | L2 | phase contrast | offset | unit | parameters | time |", flush=True)
    for name, change in REMEDIES.items():
        uses = []
        for seed in range(options.seeds):
            original = load_model(options.model, "none" if options.weights == "fresh" else None, seed=seed)[0]
            model = change(original)
            if options.weights == "fresh":
                drawn_anew(model, seed)
            uses.append(measure_pixel_use(model, images))
        ratio = "-"
        if options.rounds:
            ratios = time_ratios(model.train(), original.train(), images[:8], options.rounds)
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        print(f"| {name} | {row(uses)} | {count:.2f} M | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
