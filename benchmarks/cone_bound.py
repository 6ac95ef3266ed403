"""How much a map could be computed faster if every layer ran only at the positions that its unit needs.

    python benchmarks/cone_bound.py
    python benchmarks/cone_bound.py --models resnet50 --sizes 224 384 512

A gradient that the unit sends back shows which positions of each convolution's output it reads: with positive
weights and no activation that kills one, they are those where it is not zero. What is printed is the share of
the time of all convolutions that is spent at other positions, by two measures: their multiplications, and
their seconds, forward and backward, as they take turns here. It is the most that a crop between layers can
save; one that is aligned, of whole rectangles, and made between stages alone saves less.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
import torchvision
from torch import Tensor, nn

from erfattr import FeatureUnit, SensitivityMaps

MODELS = {"resnet50": "layer4", "resnet18": "layer4", "mobilenet_v2": "features", "convnext_tiny": "features"}


def needed_shares(model: nn.Module, layer: str, images: Tensor) -> dict[str, float]:
    """Return of each convolution the share of its output's rectangle that the middle unit reads."""
    positive = copy.deepcopy(model).double()  # many small factors underflow in single precision
    for module in positive.modules():
        if isinstance(module, nn.Conv2d):
            # Averages of what they read, of faint images: nothing saturates.
            weight = module.weight.data.abs() + 1e-6
            module.weight.data = weight / weight.sum((1, 2, 3), keepdim=True)
            if module.bias is not None:
                module.bias.data.zero_()
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def note(_module: nn.Module, _given: object, output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        return note

    for name, module in positive.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(keep(name))
    found: list[Tensor] = []
    positive.get_submodule(layer).register_forward_hook(lambda _m, _g, output: found.append(output))
    positive((1e-9 * images.double().abs()).requires_grad_(True))
    features = found[0]
    features[:, :, features.shape[2] // 2, features.shape[3] // 2].sum().backward()
    shares = {}
    for name, output in outputs.items():
        if output.grad is None:
            continue
        read = output.grad.abs().sum((0, 1)) > 0
        rows, columns = read.any(1).nonzero(), read.any(0).nonzero()
        if len(rows) == 0:
            continue
        box = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
        shares[name] = box / read.numel()
    return shares


def costs(model: nn.Module, images: Tensor, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return multiplications and seconds of each convolution, forward and backward."""
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def keep(name: str) -> object:
        return lambda _m, given, output: shapes.__setitem__(name, (given[0].shape, output.shape))

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    products, seconds = {}, {}
    for name, (given, output) in shapes.items():
        module = model.get_submodule(name)
        products[name] = float(module.weight[0].numel() * output.numel())
        value = torch.rand(given).contiguous(memory_format=torch.channels_last).requires_grad_(True)
        taken = []
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            result = module(value)
            torch.autograd.grad(result, value, torch.ones_like(result))
            taken.append(time.perf_counter() - begun)
        seconds[name] = statistics.median(taken[1:])
    return products, seconds


def main() -> None:
    """Print a row for each network and size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 384])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    for name in options.models:
        model = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
        layer = MODELS[name]
        for size in options.sizes:
            # What is left when the image itself is cropped to the unit's field is what counts here.
            source = FeatureUnit(layer) if name != "convnext_tiny" else FeatureUnit(layer, channel=0)
            images = torch.rand(options.batch_size, 3, size, size)
            (done,) = SensitivityMaps(model, [source]).attribute([images[:1].repeat(4, 1, 1, 1)])
            cropped = next((word for word in done.computed if "cropped" in word), "not cropped")
            shares = needed_shares(model, layer, images[:1])
            products, seconds = costs(model, images, options.rounds)
            saved = [
                1 - sum(cost[n] * share for n, share in shares.items()) / sum(cost[n] for n in shares)
                for cost in (products, seconds)
            ]
            print(
                f"{name:14s} {size:4d} px  at other positions: {saved[0]:5.1%} of the multiplications, "
                f"{saved[1]:5.1%} of the seconds   ({cropped})",
                flush=True,
            )


if __name__ == "__main__":
    main()
