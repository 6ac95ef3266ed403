"""Table 4 at the paper's scale on one GPU: epochs to 90 % of the micro-object task, original beside padded.

    python benchmarks/gpu_training.py --data caltech101 --json table4.json --minutes 6
    python benchmarks/gpu_training.py --data caltech101 --rehearse           # toy size, on the processor

ResNet-101 from scratch, 224 pixels, batch 64, the paper's recipe (`erfattr compare --recipe micro_object`),
seed after seed, the variants of a seed one after the other; a run ends with the first epoch above 90 %. What
differs from the paper, as far as it says what it did: the images are kept on the GPU as 8-bit squares of 256
pixels and are changed there (`erfattr.training.resident` says how that differs from torchvision), and the
network computes in bfloat16 where autocast does, channels last.

Runs that are finished are written to the JSON file one by one, with the pixel use of the trained network.
With ``--previous`` the finished runs of an earlier file are taken over. A run that the time ends, or that was
stopped, goes on from its last epoch where ``--runs`` still holds it.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from erfattr import load_model
from erfattr._files import environment, plain, read_whole, write_json
from erfattr.models.heads import replace_head
from erfattr.remedies.variants import make_variant
from erfattr.training.comparison import PairedDifference
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.hardware import Hardware
from erfattr.training.pixel_use import measure_pixel_use
from erfattr.training.recipes import Recipe, find_recipe
from erfattr.training.runs import train

TOY = {"size": 32, "epochs": 2, "object_size": 8, "map_size": 96, "stop_after": 0, "target": 60.0}


def build(name: str, seed: int) -> nn.Module:
    """Return the network from scratch, with an output for each of the two colours."""
    model, _ = load_model(name, "none", seed=seed)
    return replace_head(model, 2, seed)


def pairs(rows: list[dict[str, Any]], variants: list[str]) -> dict[str, Any]:
    """Return the paired difference of each variant from the first, over the seeds that have both."""
    found: dict[str, dict[int, float]] = {name: {} for name in variants}
    for row in rows:
        found[row["variant"]][row["seed"]] = row["epochs_to_target"]
    first = found[variants[0]]
    compared = {}
    for name in variants[1:]:
        both = sorted(set(first) & set(found[name]))
        entry: dict[str, Any] = {"seeds": both}
        entry["before"], entry["after"] = [first[seed] for seed in both], [found[name][seed] for seed in both]
        if len(both) > 1:
            entry["difference"] = plain(PairedDifference.of(entry["after"], entry["before"]))
        compared[name] = entry
    return compared


def previous_rows(path: Path | None, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the finished runs of an earlier file with the same settings."""
    if path is None or not path.is_file():
        return []
    saved = json.loads(path.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = saved["rows"] if saved["settings"] == plain(settings) else []
    return rows


def unfinished(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs of a run that was stopped, from its checkpoint."""
    path = folder / "last.ckpt"
    if not path.is_file():
        return []
    saved = read_whole(path, "checkpoint", "cpu")
    history: list[dict[str, Any]] = saved["erfattr"]["history"]
    return history


class Ended(BaseException):
    """The time is over."""


def end(*_: object) -> None:
    raise Ended


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Caltech-101, a folder of class folders")
    parser.add_argument(
        "--model", default=None, help="of torchvision (default: resnet101, demo in a rehearsal)"
    )
    parser.add_argument("--variants", nargs="+", default=["original", "padded_fresh"], metavar="VARIANT")
    parser.add_argument("--seeds", type=int, default=5, help="number of runs of a variant at most")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=6.0, help="end after so long (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("gpu-results", "runs"), help="folder of the runs")
    parser.add_argument("--previous", type=Path, default=None, help="JSON file of an earlier call")
    parser.add_argument("--json", type=Path, default=Path("gpu-results", "table4.json"))
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare the test images")
    parser.add_argument("--no-graph", action="store_true", help="train without a CUDA graph")
    parser.add_argument("--epochs", type=int, default=None, help="end every run after so many")
    parser.add_argument("--rehearse", action="store_true", help="toy size, on the processor")
    given = parser.parse_args()
    begun = time.perf_counter()
    name = given.model or ("demo" if given.rehearse else "resnet101")
    changes = TOY if given.rehearse else {"stop_after": 0}
    if given.epochs is not None:
        changes = {**changes, "epochs": given.epochs}
    recipe: Recipe = find_recipe("micro_object", **changes)
    hardware = Hardware("cpu", resident=True)
    if not given.rehearse:
        hardware = Hardware(
            "gpu", 1, "bf16-mixed", given.workers, resident=True, cuda_graph=not given.no_graph
        )
    source = find_images(given.data)
    images = TrainingImages(source, recipe)
    settings = {
        "model": name,
        "recipe": recipe.numbers(),
        "hardware": plain(hardware),
        "images": source.fingerprint,
    }
    record: dict[str, Any] = {
        "settings": settings,
        "machine": "processor" if given.rehearse else torch.cuda.get_device_name(),
        "environment": environment(),
        "variants": given.variants,
    }
    rows = previous_rows(given.previous, settings)
    given.json.parent.mkdir(parents=True, exist_ok=True)

    def save(**more: Any) -> None:
        results = {**record, "rows": rows, "pairs": pairs(rows, given.variants), **more}
        write_json(given.json, results)

    # Where the time ends in the middle of an epoch: the last one is in the run's folder.
    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60 * given.minutes)
    folder = given.runs
    try:
        maps = images.maps(16 if given.rehearse else 256)
        first = given.first_seed
        for seed in range(first, first + (2 if given.rehearse else given.seeds)):
            data = images.prepared(seed)
            original = build(name, seed)
            for variant in given.variants:
                if any((row["seed"], row["variant"]) == (seed, variant) for row in rows):
                    continue
                folder = given.runs / name / variant / f"seed-{seed}"
                model = make_variant(variant, original, seed)
                started = time.perf_counter()
                run = train(model, recipe, data, folder, seed=seed, hardware=hardware)
                trained = run.model if given.rehearse else run.model.cuda()
                use = measure_pixel_use(trained, maps, 64)
                rows.append(
                    {
                        "variant": variant,
                        "seed": seed,
                        "epochs_to_target": run.epochs_to_target,
                        "history": run.history,
                        "pixel_use_after": asdict(use),
                    }
                )
                save()
                seconds, speed = time.perf_counter() - begun, run.history[-1]["images_per_second"]
                said = f"epoch {run.epochs_to_target}, {speed:.0f} images a second, L1 {use.l1.value:.3f}"
                said += f", {(time.perf_counter() - started) / len(run.history):.1f} s an epoch in all"
                print(f"{seconds:5.0f} s  seed {seed}, {variant}: {said}", flush=True)
        save()
    except Ended:
        save(unfinished={"folder": str(folder), "history": unfinished(folder)})
        print(f"the time is over; {folder} goes on where it was")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
