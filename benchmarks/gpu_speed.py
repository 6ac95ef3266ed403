"""Speed of maps on a GPU beside what people use today and beside the fastest pass written by hand.

    python benchmarks/gpu_speed.py --json gpu-speed.json
    python benchmarks/gpu_speed.py --rehearse            # toy size, on the processor

ResNet-50 and ConvNeXt-T with random weights, 224 x 224 images that lie on the GPU already. Each row is timed
after a warm-up, over at least half a second, and says milliseconds an image for whole calls, images a second,
and times faster than the literal loop over single images in float32, timed in the same process. The rows:

- peers: the literal loop, openerf, Captum in batches, the floor (one folded channels-last forward pass and
  input gradient, written by hand, as CUDA graph in bfloat16);
- ours: maps of layers, of the output and three in one pass, by precision and batch size;
- files: images in pageable memory, copied while the GPU works;
- compiled: with the seconds of its first call apart;
- profile: kernel time, launches and gaps between kernels of a call.

Every row is written to the JSON file before the next begins.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from erfattr import ERF, DeadPixelMap, Execution, FeatureUnit, ModelOutput, SensitivityMaps
from erfattr._files import environment, write_json
from erfattr.execution import prepared
from erfattr.receptive_field.trace import trace_layers

sys.path.insert(0, str(Path(__file__).parent))
from speed import InMemory, captum_batches, literal_loop

LAYERS = {
    "resnet50": ("layer1", "layer2", "layer4"),
    "convnext_tiny": ("features.1", "features.3", "features.7"),
}
# The same networks as openerf takes them from timm, and a small one of each kind for a rehearsal.
PEERS = {
    "resnet50": ("resnet50", "resnet10t", "layer4"),
    "convnext_tiny": ("convnext_tiny", "test_convnext", "stages.3"),
}
# Seconds that a row is timed for at least.
LONG_ENOUGH = 0.5


class Bench:
    """Rows, and the file they are written to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device("cpu" if options.rehearse else "cuda")
        self.toy = options.rehearse
        self.file: Path | None = options.json
        self.size = 64 if self.toy else 224
        self.sizes = (1, 2) if self.toy else (16, 64, 256, 512)
        self.seconds = 0.0 if self.toy else LONG_ENOUGH
        self.rows: list[dict[str, Any]] = []
        self.loops: dict[tuple[str, str], float] = {}
        self.begun = time.perf_counter()
        images = max(self.sizes) * 2
        self.images = torch.randn(images, 3, self.size, self.size, device=self.device)
        name = "processor" if self.toy else torch.cuda.get_device_name()
        self.record = {"machine": name, "environment": environment(), "image_size": self.size}
        # What an earlier call has measured, by what was measured.
        self.known: dict[tuple[str, str, str], dict[str, Any]] = {}
        if self.file is not None and self.file.is_file():
            saved = json.loads(self.file.read_text(encoding="utf-8"))
            if (saved["machine"], saved["image_size"]) == (name, self.size):
                self.known = {(row["model"], row["layer"], row["side"]): row for row in saved["rows"]}

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, call: Callable[[], object]) -> float:
        self.wait()
        begun = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - begun

    def row(
        self, model: str, layer: str, side: str, images: int, call: Callable[[], object], **more: Any
    ) -> dict[str, Any]:
        """Time a call of so many images, and write the row; one that is known is not timed again."""
        if (model, layer, side) in self.known:
            self.add(self.known[model, layer, side])
            return self.rows[-1]
        first = self.timed(call)
        seconds = [self.timed(call)]
        while sum(seconds) < self.seconds and len(seconds) < 20:
            seconds.append(self.timed(call))
        an_image = statistics.median(seconds) / images
        loop = self.loops.get((model, layer))
        row = {
            "model": model,
            "layer": layer,
            "side": side,
            "images": images,
            "ms_an_image": 1000 * an_image,
            "ms_an_image_range": [1000 * min(seconds) / images, 1000 * max(seconds) / images],
            "images_a_second": 1 / an_image,
            "times_the_loop": None if loop is None else loop / an_image,
            "first_call_s": first,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **more,
        }
        if self.device.type == "cuda":
            row["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.reset_peak_memory_stats()
        self.add(row)
        said = "" if loop is None else f"{row['times_the_loop']:8.1f} x the loop"
        print(
            f"{time.perf_counter() - self.begun:5.0f} s  {model:13s} {layer:10s} {side:34s}"
            f" {row['ms_an_image']:9.4f} ms  {said}",
            flush=True,
        )
        return row

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.file is not None:
            write_json(self.file, {**self.record, "rows": self.rows})


@contextmanager
def tf32(switched_on: bool) -> Iterator[None]:
    """Switch TF32 on or off for convolutions and matrix products."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = switched_on
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


# What a row of ours is computed in.
PRECISIONS: dict[str, tuple[bool, Execution]] = {
    "float32": (False, Execution()),
    "TF32": (True, Execution()),
    "bfloat16": (True, Execution(precision="bfloat16")),
}


def peers(bench: Bench, name: str, model: nn.Module) -> None:
    """Time the loop, Captum and openerf at the layers, in float32 as PyTorch is set: convolutions in TF32."""
    few = 2 if bench.toy else 24
    for layer in (*LAYERS[name], "output"):
        watched = model if layer == "output" else model.get_submodule(layer)
        images = bench.images[:few]

        def loop(watched: nn.Module = watched, layer: str = layer, images: Tensor = images) -> Tensor:
            return output_loop(model, images) if layer == "output" else literal_loop(model, watched, images)

        row = bench.row(name, layer, "loop over single images", few, loop)
        bench.loops[name, layer] = row["ms_an_image"] / 1000
        if layer == "output":
            continue
        batch = max(bench.sizes) // 2
        bench.row(
            name,
            layer,
            f"Captum, batches of {batch}",
            batch,
            lambda watched=watched, batch=batch: captum_batches(model, watched, bench.images[:batch], batch),
        )
    try:
        import openerf.erf
        import timm
    except ImportError as error:
        print(f"openerf is left out: {error}", flush=True)
        return
    whole, small, target = PEERS[name]
    peer = timm.create_model(small if bench.toy else whole).eval().to(bench.device)
    original = openerf.erf.FlatImageDataset
    openerf.erf.FlatImageDataset = lambda max_images, **_: InMemory(bench.images[:max_images].cpu())
    try:
        bench.row(
            name,
            LAYERS[name][-1],
            "openerf",
            few,
            lambda: openerf.erf.compute_erf(
                peer,
                image_dir=".",
                max_images=few,
                target_layer=target,
                device=str(bench.device),
                show_progress=False,
            ),
        )
    finally:
        openerf.erf.FlatImageDataset = original


def output_loop(model: nn.Module, images: Tensor) -> Tensor:
    """Eq. 2 and 3 of the mean output, one image at a time."""
    total = torch.zeros(images.shape[2:], device=images.device)
    for image in images.split(1):
        image = image.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(image).mean(), image)
        total += gradient.mean((0, 1)).relu()
    return total / len(images)


def floor(
    bench: Bench, name: str, model: nn.Module, images: Sequence[Tensor], dtype: torch.dtype
) -> Callable[[], Tensor]:
    """Return the fastest pass to the last layer that is written by hand, replayed as a CUDA graph."""
    folds = trace_layers(model, {}, (bench.size, bench.size), 3).folds
    copied, _ = prepared(model, Execution(crop=False), folds=folds)
    copied = copied.to(dtype).requires_grad_(False)
    if name == "resnet50":
        names = ("conv1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        stages: list[nn.Module] = [copied.get_submodule(one) for one in names]
    else:
        stages = [copied.get_submodule("features")]
    static = torch.empty(len(images[0]), 3, bench.size, bench.size, dtype=dtype, device=bench.device)
    static = static.contiguous(memory_format=torch.channels_last).requires_grad_(True)
    total = torch.zeros(bench.size, bench.size, device=bench.device)

    def step() -> None:
        value: Tensor = static
        for stage in stages:
            value = stage(value)
        unit = value[:, :, value.shape[2] // 2, value.shape[3] // 2].mean(1).sum()
        (gradient,) = torch.autograd.grad(unit, static)
        total.add_(gradient.mean(1).relu().float().sum(0))

    replay: Callable[[], object] = step
    if bench.device.type == "cuda":
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        replay = graph.replay

    def run() -> Tensor:
        total.zero_()
        for part in images:
            with torch.no_grad():
                static.copy_(part)
            replay()
        return total / sum(map(len, images))

    return run


def maps_of(name: str, model: nn.Module, layer: str, execution: Execution) -> Callable[[Any], object]:
    """Return a call that maps images."""
    if layer == "output":
        return DeadPixelMap(model, execution=execution).attribute
    if layer == "three maps":
        *_, second, last = LAYERS[name]
        sources = [FeatureUnit(second), FeatureUnit(last), ModelOutput()]
        return SensitivityMaps(model, sources, execution=execution).attribute
    return ERF(model, layer, execution=execution).attribute


def ours(bench: Bench, name: str, model: nn.Module) -> None:
    """Time the maps by layer, precision and batch size."""
    first, *_, last = LAYERS[name]
    for layer in (*LAYERS[name], "output", "three maps"):
        swept = layer in (first, last)
        for precision, (switched_on, execution) in PRECISIONS.items():
            call = maps_of(name, model, layer, execution)
            for batch in bench.sizes if swept and precision != "TF32" else bench.sizes[-2:-1]:
                with tf32(switched_on):
                    bench.row(
                        name,
                        layer,
                        f"erfattr, {precision}, batches of {batch}",
                        len(bench.images),
                        lambda call=call, batch=batch: call(bench.images.split(batch)),
                        precision=precision,
                        batch=batch,
                    )
    # Many images in one call: what is done once for a call counts less.
    batch = bench.sizes[-1]
    for layer in (first, last):
        call = maps_of(name, model, layer, Execution(precision="bfloat16"))
        times = 1 if bench.toy else {first: 32, last: 4}[layer]
        bench.row(
            name,
            layer,
            f"erfattr, bfloat16, {len(bench.images) * times} images",
            len(bench.images) * times,
            lambda call=call, times=times: call(bench.images.split(batch) * times),
            precision="bfloat16",
            batch=batch,
        )


def floors(bench: Bench, name: str, model: nn.Module) -> None:
    """Time the floor beside ours at the last layer, over so many images that the set-up counts little."""
    layer = LAYERS[name][-1]
    for dtype, switched_on, times in (
        (torch.bfloat16, True, 8),
        (torch.float32, True, 4),
        (torch.float32, False, 2),
    ):
        word = "TF32" if switched_on and dtype is torch.float32 else str(dtype).removeprefix("torch.")
        batch = bench.sizes[-2]
        images = bench.images.split(batch) * (1 if bench.toy else times)
        count = sum(map(len, images))
        execution = Execution(precision="bfloat16" if word == "bfloat16" else None, crop=False)
        call = maps_of(name, model, layer, execution)
        with tf32(switched_on):
            floor_call = floor(bench, name, model, images, dtype)
            its = bench.row(name, layer, f"floor, {word}, {count} images", count, floor_call)
            mine = bench.row(
                name,
                layer,
                f"erfattr, {word}, whole {count} images",
                count,
                lambda call=call, images=images: call(images),
                precision=word,
                batch=batch,
            )
        share = its["ms_an_image"] / mine["ms_an_image"]
        bench.add({"model": name, "layer": layer, "side": f"share of the floor, {word}", "share": share})
        print(f"{name} {layer} {word}: {100 * share:.1f} % of the floor", flush=True)


def files(bench: Bench, name: str, model: nn.Module) -> None:
    """Time images that lie in pageable memory."""
    batch = bench.sizes[-2]
    images = bench.images.cpu()
    layer = LAYERS[name][-1]
    call = maps_of(name, model, layer, Execution(precision="bfloat16"))
    bench.row(
        name,
        layer,
        f"erfattr, bfloat16, from the processor, {batch}",
        len(images),
        lambda: call(images.split(batch)),
        precision="bfloat16",
        batch=batch,
    )


def compiled(bench: Bench, name: str, model: nn.Module) -> None:
    """Time torch.compile, its first call apart."""
    batch = bench.sizes[-2]
    layer = LAYERS[name][-1]
    call = maps_of(name, model, layer, Execution(precision="bfloat16", compile=True))
    bench.row(
        name,
        layer,
        f"erfattr, bfloat16, compiled, {batch}",
        len(bench.images),
        lambda: call(bench.images.split(batch)),
        precision="bfloat16",
        batch=batch,
    )


def profile(bench: Bench, name: str, model: nn.Module) -> None:
    """Say where a call's time goes: kernels, launches, gaps between kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    first, *_, last = LAYERS[name]
    for layer in (first, last):
        call = maps_of(name, model, layer, Execution(precision="bfloat16"))
        batch = bench.sizes[-2]
        many = bench.images.split(batch) * 2
        call(many)
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (bench.device.type == "cuda")
        with profiled(activities=activities) as run:
            seconds = bench.timed(lambda call=call, many=many: call(many))
        kernels = sorted(
            (event.time_range.start, event.time_range.end, event.name)
            for event in run.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
        )
        by_name: dict[str, float] = {}
        for start, end, kernel in kernels:
            by_name[kernel[:400]] = by_name.get(kernel[:400], 0.0) + (end - start) / 1000
        busy, until, gaps = 0.0, None, []
        for start, end, _ in kernels:
            if until is not None and start > until:
                gaps.append((start - until) / 1000)
            busy += max(0.0, end - max(start, until or start)) / 1000
            until = max(end, until or end)
        host = {
            event.key: event.self_cpu_time_total / 1000
            for event in run.key_averages()
            if "ynchronize" in event.key
            or event.key in ("aten::item", "aten::_local_scalar_dense", "cudaHostAlloc")
        }
        bench.add(
            {
                "model": name,
                "layer": layer,
                "side": f"profile, bfloat16, 2 x {len(bench.images)} images in batches of {batch}",
                "wall_ms": 1000 * seconds,
                "kernels": len(kernels),
                "kernels_busy_ms": busy,
                "gaps_ms": sum(gaps),
                "longest_gaps_ms": sorted(gaps, reverse=True)[:5],
                "longest_kernels_ms": dict(sorted(by_name.items(), key=lambda pair: -pair[1])[:12]),
                "host_waits_ms": host,
            }
        )
        print(
            f"{name} {layer}: {1000 * seconds:.1f} ms, {len(kernels)} kernels busy {busy:.1f} ms, "
            f"gaps {sum(gaps):.1f} ms",
            flush=True,
        )


PARTS: dict[str, Callable[[Bench, str, nn.Module], None]] = {
    "peers": peers,
    "ours": ours,
    "floors": floors,
    "files": files,
    "profile": profile,
    "compiled": compiled,
}


def network(name: str, toy: bool) -> nn.Module:
    """Return a network with random weights, whose layer norms do not make every channel mean constant."""
    if not toy:
        model = torchvision.models.get_model(name, weights=None)
    elif name == "resnet50":
        block = torchvision.models.resnet.Bottleneck
        model = torchvision.models.ResNet(block, [1, 1, 1, 1], width_per_group=16)
    else:
        stages = [torchvision.models.convnext.CNBlockConfig(8 * 2**k, 16 * 2**k, 1) for k in range(3)]
        stages.append(torchvision.models.convnext.CNBlockConfig(64, None, 1))
        model = torchvision.models.ConvNeXt(stages)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=None, help="write the rows there")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--models", nargs="+", choices=LAYERS, default=list(LAYERS), metavar="MODEL")
    parser.add_argument("--rehearse", action="store_true", help="toy size, on the processor")
    options = parser.parse_args()
    bench = Bench(options)
    torch.manual_seed(0)
    models = {name: network(name, bench.toy).to(bench.device) for name in options.models}
    for part in options.parts:
        for name, model in models.items():
            PARTS[part](bench, name, model)


if __name__ == "__main__":
    main()
