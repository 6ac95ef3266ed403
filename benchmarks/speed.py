"""Speed and memory of the maps beside what people use today, both sides in turn in one process.

    python benchmarks/speed.py                      # every row, ResNet-50 with random weights, 224 x 224
    python benchmarks/speed.py --rows layer1 floor  # some of them
    python benchmarks/speed.py --device cuda --batch-size 256 --images 2048 --rows loop floor

A row is measured in rounds: one side, then the other, then the first again, so that a machine that slows down
slows both. What is printed is the median of the rounds' ratios, and their range. ``whole`` counts a call from
beginning to end, tracing and copying of the model included; ``an image`` is what one more image costs: the
difference between a call with all images and a call with a few of them. The row ``few images`` counts whole
calls alone: the first of a model, which traces it, and a later one.

The other sides: ``openerf`` (PyPI, the paper's first author; needs timm), with the images in memory on both
sides or, in the row ``files``, with both sides reading them from a folder; the loop over single images that
the scripts of RepLKNet and VMamba contain, written out below; Captum's ``NeuronGradient``, in batches; the
floor: one forward and one input gradient of the folded network, written by hand; and, for several maps in one
pass, the same maps one after the other.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from captum.attr import NeuronGradient
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from erfattr import (
    ERF,
    Execution,
    FeatureUnit,
    ImageFiles,
    ImageLoader,
    ModelOutput,
    SensitivityMaps,
    corrected_imbalance,
    sample_images,
)
from erfattr._files import write_json
from erfattr.attr import _resolving
from erfattr.execution import prepared
from erfattr.metrics.statistics import StreamingStatistics
from erfattr.receptive_field.trace import trace_layers

OPENERF_ROWS = ("layer4", "layer2", "layer1", "files")
ROWS = (*OPENERF_ROWS, "loop", "large", "captum", "floor", "three maps", "processes", "memory", "few images")
ROWS += ("large memory", "index")
TARGETS = {"layer4": 1.5, "layer2": 7, "layer1": 40, "large": 4, "floor": 0.9, "three maps": 1.3}


def literal_loop(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """Eq. 1 to 3, one image at a time, as the scripts people copy do it."""
    units: list[Tensor] = []

    def read(_module: nn.Module, _inputs: object, features: Tensor) -> None:
        # At once: DenseNet works in place on its last map.
        height, width = features.shape[2:]
        units.append(features[:, :, height // 2, width // 2].mean())

    handle = layer.register_forward_hook(read)
    total = torch.zeros(images.shape[2:], device=images.device)
    for image in images.split(1):
        image = image.clone().requires_grad_(True)
        units.clear()
        model(image)
        (gradient,) = torch.autograd.grad(units[0], image)
        total += gradient.mean((0, 1)).relu()
    handle.remove()
    return total / len(images)


def captum_batches(model: nn.Module, layer: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The same with Captum's class, in batches."""
    attribution = NeuronGradient(model, layer)
    total = torch.zeros(images.shape[2:], device=images.device)
    for batch in images.split(batch_size):
        gradient = attribution.attribute(
            batch.clone().requires_grad_(True),
            lambda output: output[:, :, output.shape[2] // 2, output.shape[3] // 2].mean(1),
        )
        total += gradient.mean(1).relu().sum(0)
    return total / len(images)


def floor(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """One forward pass up to layer4 and one input gradient a batch, of a folded channels-last copy."""
    folds = trace_layers(model, {}, (images.shape[2], images.shape[3]), images.shape[1]).folds
    copied, _ = prepared(model, Execution(crop=False), folds=folds)
    copied.requires_grad_(False)
    stages = [
        copied.conv1,
        copied.relu,
        copied.maxpool,
        copied.layer1,
        copied.layer2,
        copied.layer3,
        copied.layer4,
    ]
    total = torch.zeros(images.shape[2:], device=images.device)
    for batch in images.split(batch_size):
        batch = batch.contiguous(memory_format=torch.channels_last).requires_grad_(True)
        value = batch
        for stage in stages:
            value = stage(value)
        unit = value[:, :, value.shape[2] // 2, value.shape[3] // 2].mean(1).sum()
        (gradient,) = torch.autograd.grad(unit, batch)
        total += gradient.mean(1).relu().sum(0)
    return total / len(images)


def timed(call: Callable[[], object], device: str) -> float:
    """Return the seconds a call takes."""
    if device != "cpu":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def compare(
    name: str,
    ours: Callable[..., object],
    theirs: Callable[[int], object],
    options: argparse.Namespace,
    images: int | None = None,
    passes: int = 1,
) -> dict[str, object]:
    """Run both sides in turn and print the ratios of their times, theirs / ours.

    Where an image costs us little, ``passes`` more images are run on our side to learn what one costs, or the
    difference of two calls would be noise.
    """
    many = images or options.images
    few = max(options.batch_size, many // 4)
    many = max(many, 2 * few)
    ours(few)
    theirs(min(few, 4))
    whole, marginal, seconds = [], [], []
    for _ in range(options.rounds):
        mine_few = timed(lambda: ours(few), options.device)
        its_few = timed(lambda: theirs(few), options.device)
        mine = timed(lambda: ours(many), options.device)
        its = timed(lambda: theirs(many), options.device)
        whole.append(its / mine)
        more = mine if passes == 1 else timed(lambda: ours(many, passes), options.device)
        image = (more - mine_few) / (passes * many - few)
        seconds.append((image, (its - its_few) / (many - few)))
        marginal.append(seconds[-1][1] / image)
    mine, its = (statistics.median(pair[side] for pair in seconds) for side in (0, 1))
    row = {
        "row": name,
        "images": many,
        "ratio_an_image": statistics.median(marginal),
        "ratio_an_image_range": (min(marginal), max(marginal)),
        "ratio_whole": statistics.median(whole),
        "ratio_whole_range": (min(whole), max(whole)),
        "seconds_an_image_ours": mine,
        "seconds_an_image_theirs": its,
        "target": TARGETS.get(name),
    }
    target = "" if row["target"] is None else f"   target {row['target']}"
    print(
        f"{name:11s} an image {row['ratio_an_image']:7.2f} x ({min(marginal):.2f} to {max(marginal):.2f})"
        f"   whole call of {many}: {row['ratio_whole']:7.2f} x ({min(whole):.2f} to {max(whole):.2f})"
        f"   {1000 * mine:.1f} ms against {1000 * its:.1f} ms{target}",
        flush=True,
    )
    return row


# Network, layer, images, and what is aimed at: the loop's time over that of the whole call.
FEW_IMAGES = (
    ("resnet50", "layer1", 12, 15),
    ("resnet50", "layer2", 12, 6),
    ("resnet50", "layer4", 12, 1.4),
    ("densenet201", None, 1, 1 / 1.5),
)


def few_images(
    name: str, layer: str | None, count: int, target: float, options: argparse.Namespace, execution: Execution
) -> dict[str, object]:
    """Measure whole calls of few images beside the loop: the first call of a model, and a later one."""
    model = torchvision.models.get_model(name, weights=None).eval().to(options.device)
    images = torch.randn(count, 3, 224, 224).to(options.device)
    watched = model.features if layer is None else model.get_submodule(layer)
    expected = literal_loop(model, watched, images).cpu()
    first, later, differences = [], [], []
    for _ in range(options.rounds):
        # What was traced is remembered with a model, so the first call needs one that is new.
        erf = ERF(copy.deepcopy(model), layer, execution=execution)
        maps: list[Tensor] = []
        loop = timed(lambda: literal_loop(model, watched, images), options.device)
        cold = timed(lambda erf=erf, maps=maps: maps.append(erf.attribute(images)), options.device)
        warm = timed(lambda erf=erf: erf.attribute(images), options.device)
        loop = (loop + timed(lambda: literal_loop(model, watched, images), options.device)) / 2
        first.append(loop / cold)
        later.append(loop / warm)
        differences.append(float((maps[0] - expected).abs().max() / expected.max()))
    label = f"{name} {layer or 'last map'}, {count} image{'s' * (count > 1)}"
    print(
        f"{label:30s} whole calls: first {statistics.median(first):6.2f} x ({min(first):.2f} to "
        f"{max(first):.2f})   later {statistics.median(later):6.2f} x ({min(later):.2f} to {max(later):.2f})"
        f"   target {target:.3g}   the maps differ by {max(differences):.1e} of their maximum",
        flush=True,
    )
    return {
        "row": label,
        "ratio_first_call": first,
        "ratio_later_call": later,
        "target": target,
        "largest_difference": max(differences),
    }


def peak_memory(images: int, model: str, large: str | None = None) -> float:
    """Return the peak resident memory, in MB, of a process that maps so many images."""
    words = [] if large is None else ["--memory-large", large]
    shown = subprocess.run(
        [sys.executable, __file__, "--memory-of", str(images), "--model", model, *words],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return float(shown)


class InMemory(Dataset[tuple[Tensor, str]]):
    """Stands in for openerf's folder, so that reading files counts for neither side."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return self.images[index], str(index)


def against_openerf(options: argparse.Namespace, execution: Execution) -> list[dict[str, object]]:
    """Measure against openerf: layers from memory, and ``files`` with both sides reading a folder."""
    import openerf.erf
    import timm

    peer = timm.create_model(options.model, pretrained=False).eval()
    count = max(options.images, 8 * options.batch_size)
    images = torch.randn(count, 3, 224, 224)
    rows = []

    def theirs(layer: str, folder: str) -> Callable[[int], object]:
        return lambda count: openerf.erf.compute_erf(
            peer,
            image_dir=folder,
            max_images=count,
            target_layer=layer,
            device=options.device,
            show_progress=False,
        )

    with tempfile.TemporaryDirectory() as folder:
        if "files" in options.rows:
            write_photographs(folder, count)
            erf = ERF(peer, "layer4", execution=execution)
            rows.append(
                compare(
                    "files",
                    lambda count: erf.attribute(
                        ImageLoader(ImageFiles(folder, 224), options.batch_size), max_examples=count
                    ),
                    theirs("layer4", folder),
                    options,
                )
            )
        original = openerf.erf.FlatImageDataset
        openerf.erf.FlatImageDataset = lambda max_images, **_: InMemory(images[:max_images])
        try:
            for layer in ("layer4", "layer2", "layer1"):
                if layer in options.rows:
                    erf = ERF(peer, layer, execution=execution)
                    rows.append(
                        compare(
                            layer,
                            lambda count, passes=1, erf=erf: erf.attribute(
                                images[:count].split(options.batch_size) * passes
                            ),
                            theirs(layer, folder),
                            options,
                            passes={"layer1": 40, "layer2": 10, "layer4": 1}[layer],
                        )
                    )
        finally:
            openerf.erf.FlatImageDataset = original
    return rows


def write_photographs(folder: str, count: int) -> None:
    """Write so many JPEG files of 256 x 256 pixels, the embedded crops over and over."""
    photographs = (sample_images(size=256, normalize=False).permute(0, 2, 3, 1) * 255).byte().numpy()
    for index in range(count):
        path = Path(folder) / f"{index:04d}.jpg"
        Image.fromarray(photographs[index % len(photographs)]).save(path, quality=90)


def seconds_of_processes(processes: int, images: int, photographs: str) -> float:
    """Return the seconds that maps of ResNet-18 take in so many processes of one thread each."""
    with tempfile.TemporaryDirectory() as output:
        launch = f"-m torch.distributed.run --standalone --nproc-per-node={processes} -m erfattr map"
        options = f"--model resnet18 --weights none --layers layer4 output --count {images} --batch-size 4"
        subprocess.run(
            [sys.executable, *launch.split(), *options.split(), "--images", photographs, "--output", output],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        result = json.loads(Path(output, "result.json").read_text())
    return float(result["record"]["seconds_for_maps"])


def scaling(rounds: int, few: int = 32, many: int = 256) -> dict[str, object]:
    """Measure two processes beside one: what one more image costs, since they start seconds apart."""
    ratios, whole = [], []
    with tempfile.TemporaryDirectory() as photographs:
        write_photographs(photographs, many)
        for _ in range(rounds):
            one, two = (
                [seconds_of_processes(processes, images, photographs) for images in (few, many)]
                for processes in (1, 2)
            )
            ratios.append((one[1] - one[0]) / (two[1] - two[0]))
            whole.append(one[1] / two[1])
    print(
        f"processes   two of one thread: an image {statistics.median(ratios):.2f} x one "
        f"({min(ratios):.2f} to {max(ratios):.2f})   whole call of {many}: {statistics.median(whole):.2f} x "
        f"({min(whole):.2f} to {max(whole):.2f})",
        flush=True,
    )
    return {"row": "processes", "images": many, "ratio_an_image": ratios, "ratio_whole": whole}


def seconds_of_index(side: int) -> dict[str, object]:
    """Measure the corrected index of a noisy map of 16 groups; print its seconds."""
    torch.manual_seed(0)
    stream = StreamingStatistics(groups=16)
    pattern = (1 + 0.2 * torch.rand(32, 32)).repeat(side // 32, side // 32)
    for _ in range(32):
        stream.update((pattern * torch.rand(side, side).mul(2)).double()[None])
    found = stream.result()
    seconds = {f"L{order}": timed(lambda o=order: corrected_imbalance(found, o), "cpu") for order in (1, 2)}
    print(f"index       {side} x {side}: " + ", ".join(f"{name} {s:.1f} s" for name, s in seconds.items()))
    return {"row": "index", "side": side, **seconds}


def run_for_memory(images: int, name: str, large: str | None) -> None:
    """Map random images, drawn as they are needed, and print the peak resident memory in MB.

    ``large``: images of 4000 x 3000 instead, and layer1; ``"whole"`` runs the whole image first, ``"part"``
    as the package does.
    """
    torch.set_num_threads(2)
    model = torchvision.models.get_model(name, weights=None)
    if large is None:
        batches = (torch.randn(16, 3, 224, 224) for _ in range(-(-images // 16)))
        sources = [FeatureUnit("layer4" if hasattr(model, "layer4") else None), ModelOutput()]
    else:
        batches = (torch.rand(1, 3, 3000, 4000) for _ in range(images))
        sources = [FeatureUnit("layer1")]
        if large == "whole":
            _resolving._LARGE = 1 << 40
    SensitivityMaps(model, sources).attribute(batches, max_examples=images)
    # Not getrusage(), whose maximum begins with that of the process this one was started from.
    peak = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    print(int(peak.split()[1]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--model", default="resnet50", help="a torchvision ResNet")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default=None, choices=("float32", "bfloat16"))
    parser.add_argument("--json", type=Path, default=None, help="write the rows there as well")
    parser.add_argument("--memory-of", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--memory-large", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of is not None:
        run_for_memory(options.memory_of, options.model, options.memory_large)
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = torchvision.models.get_model(options.model, weights=None).eval().to(options.device)
    machine = (
        torch.cuda.get_device_name()
        if options.device != "cpu"
        else platform.processor() or platform.machine()
    )
    print(f"{options.model}, torch {torch.__version__}, {options.threads} threads, {machine}", flush=True)
    execution = Execution(precision=options.precision)
    images = torch.randn(max(options.images, 2 * options.batch_size), 3, 224, 224).to(options.device)

    def ours(layer: str) -> Callable[[int], object]:
        erf = ERF(model, layer, execution=execution)
        return lambda count: erf.attribute(images[:count].split(options.batch_size))

    rows = []
    if set(OPENERF_ROWS) & set(options.rows):
        rows += against_openerf(options, execution)
    if "loop" in options.rows:
        layer = model.layer4
        rows.append(
            compare("loop", ours("layer4"), lambda count: literal_loop(model, layer, images[:count]), options)
        )
    if "large" in options.rows:
        large = torch.randn(8, 3, 1024, 1024).to(options.device)
        erf = ERF(model, "layer4", execution=execution)
        narrow = argparse.Namespace(**{**vars(options), "batch_size": 2})
        rows.append(
            compare(
                "large",
                lambda count: erf.attribute(large[:count].split(2)),
                lambda count: literal_loop(model, model.layer4, large[:count]),
                narrow,
                images=4,
            )
        )
    if "captum" in options.rows:
        rows.append(
            compare(
                "captum",
                ours("layer4"),
                lambda count: captum_batches(model, model.layer4, images[:count], options.batch_size),
                options,
            )
        )
    if "floor" in options.rows:
        rows.append(
            compare(
                "floor",
                ours("layer4"),
                lambda count: floor(model, images[:count], options.batch_size),
                options,
            )
        )
    if "three maps" in options.rows:
        sources = [FeatureUnit("layer3"), FeatureUnit("layer4"), ModelOutput()]
        together = SensitivityMaps(model, sources, execution=execution)
        separate = [SensitivityMaps(model, [source], execution=execution) for source in sources]
        rows.append(
            compare(
                "three maps",
                lambda count: together.attribute(images[:count].split(options.batch_size)),
                lambda count: [maps.attribute(images[:count].split(options.batch_size)) for maps in separate],
                options,
            )
        )
    if "few images" in options.rows:
        rows += [few_images(*case, options, execution) for case in FEW_IMAGES]
    if "processes" in options.rows:
        rows.append(scaling(options.rounds))
    if "memory" in options.rows:
        small, large_run = (peak_memory(count, "resnet18") for count in (100, 2000))
        rows.append({"row": "memory", "peak_mb_100": small, "peak_mb_2000": large_run, "target": 50})
        print(
            f"memory      peak RSS {small:.0f} MB at 100 images, {large_run:.0f} MB at 2,000"
            "   target: within 50 MB"
        )
    if "large memory" in options.rows:
        part, whole = (peak_memory(6, "resnet18", way) for way in ("part", "whole"))
        rows.append({"row": "large memory", "peak_mb_part": part, "peak_mb_whole": whole})
        print(
            f"large memory   peak RSS of 6 images of 4000 x 3000, layer1: {part:.0f} MB; whole {whole:.0f} MB"
        )
    if "index" in options.rows:
        rows += [seconds_of_index(side) for side in (224, 1024)]
    if options.json is not None:
        record = {key: str(value) for key, value in vars(options).items()}
        write_json(options.json, {"options": record, "machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
