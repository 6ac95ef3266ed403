"""What the choice of y changes: the predicted class's output beside the mean of all outputs.

    python benchmarks/which_output.py --data caltech101 --models demo mobilenet_v2/IMAGENET1K_V1

Both maps come from the same forward passes over the same photographs. For each network: the scale of the
mean's map in units of the other's, their correlation, the noise-corrected L1 and phase contrast of both with
their errors; with ``--bfloat16`` how far that moves each map: the largest change in units of the map's
maximum, the mean change in units of its mean, and the change of its scale.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from erfattr import (
    Execution,
    ImageFiles,
    ImageLoader,
    ModelOutput,
    SensitivityMaps,
    compare_imbalance,
    estimate_phase_profile,
    load_model,
)
from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields

WORDS = ("predicted", "mean")


def measured(text: str, data: Path, count: int, size: int, bfloat16: bool) -> dict[str, Any]:
    name, _, weights = text.partition("/")
    model, _ = load_model(name, weights or None)
    images = ImageLoader(ImageFiles(data, size, count=count), 8)
    sources = [ModelOutput(word) for word in WORDS]
    maps = dict(zip(WORDS, SensitivityMaps(model, sources).attribute(images), strict=True))
    rounded = {}
    if bfloat16:
        inexact = SensitivityMaps(model, sources, execution=Execution(precision="bfloat16"))
        rounded = dict(zip(WORDS, inexact.attribute(images), strict=True))
    period = total_stride(receptive_fields(model, (size, size), probe=False))
    row: dict[str, Any] = {"model": text, "images": maps["mean"].n_images, "size": size, "period": period}
    both = torch.stack([maps[word].mean.flatten() for word in WORDS])
    row["scale_of_the_mean"] = float(both[1].mean() / both[0].mean())
    row["correlation"] = float(torch.corrcoef(both)[0, 1])
    change = compare_imbalance(maps["mean"], maps["predicted"], 1, paired=True)
    row["L1_difference"] = (change.difference, change.standard_error)
    for word, estimate in (("mean", change.first), ("predicted", change.second)):
        phases = estimate_phase_profile(maps[word], period)
        row[word] = {
            "L1": (estimate.value, estimate.standard_error),
            "contrast": (phases.corrected_contrast, phases.contrast_standard_error),
        }
        if word not in rounded:
            continue
        exact, moved = maps[word].mean, rounded[word].mean
        row[word] |= {
            "bfloat16_largest_change": float((moved - exact).abs().max() / exact.max()),
            "bfloat16_mean_change": float((moved - exact).abs().mean() / exact.mean()),
            "bfloat16_scale": float(moved.mean() / exact.mean()),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--models", nargs="+", default=["demo"], metavar="NAME[/WEIGHTS]")
    parser.add_argument("--count", type=int, default=200, help="photographs (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--bfloat16", action="store_true", help="slow on processors without its instructions")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for text in options.models:
        print(
            json.dumps(measured(text, options.data, options.count, options.size, options.bfloat16), indent=1),
            flush=True,
        )


if __name__ == "__main__":
    main()
