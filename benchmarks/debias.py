"""What does dividing a network's grid out of its attributions buy? Four questions, each with its noise.

    python benchmarks/debias.py grid --images caltech101          # contrast of the grid, and its noise floor
    python benchmarks/debias.py shift --images caltech101         # an image, and the image moved
    python benchmarks/debias.py faithfulness --images caltech101  # insertion, deletion, flipping, infidelity
    python benchmarks/debias.py planted --images caltech101       # a small object decides the class

``--model`` is demo, mobilenet_v2 (its IMAGENET1K_V1 weights, found through TORCH_HOME) or resnet50 (random
weights, seed 0). Maps are measured on the first ``--calibrate`` images of a random choice, everything else on
the ``--evaluate`` images after them. What stands behind +- is half of a 95 % confidence interval over images.
``--json FILE`` keeps all numbers.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import Attribution, GuidedBackprop, IntegratedGradients, NoiseTunnel, Saliency
from captum.metrics import infidelity
from scipy.stats import sem
from torch import Tensor, nn

from erfattr import Calibration, ImageFiles, debias, estimate_phase_profile, load_model, relief
from erfattr._files import write_json
from erfattr.attr.calibration import calibrate
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics
from erfattr.models.demo import DemoNet

SIZE = 224
SHIFTS = (1, 2, 4)
WEIGHTS = {"demo": None, "mobilenet_v2": "IMAGENET1K_V1", "resnet50": "none"}
METHODS = ("Saliency", "IntegratedGradients", "SmoothGrad", "GuidedBackprop")
# With the noise of the map held back ("shrunk") and without.
VARIANTS = ("raw", "global", "local", "local shrunk", "phase", "phase shrunk")


def with_relu_modules(model: nn.Module) -> nn.Module:
    """Replace ReLU6 by ReLU and a clamp: GuidedBackprop passes over ReLU6 and would be a plain gradient."""
    for name, child in model.named_children():
        if isinstance(child, nn.ReLU6):
            setattr(model, name, nn.Sequential(nn.ReLU(), nn.Hardtanh(0, 6)))
        else:
            with_relu_modules(child)
    return model


def attribution(name: str, model: nn.Module, samples: int) -> tuple[Attribution, dict[str, Any]]:
    """Return a method and the settings of its ``attribute``."""
    if name == "IntegratedGradients":
        return IntegratedGradients(model), {"n_steps": samples}
    if name == "SmoothGrad":
        return NoiseTunnel(Saliency(model)), {"nt_samples": samples, "stdevs": 0.3}
    return {"Saliency": Saliency, "GuidedBackprop": GuidedBackprop}[name](model), {}


def debiased(values: Tensor, statistics: MapStatistics, variant: str, period: int) -> Tensor:
    if variant == "raw":
        return values
    mode, _, shrunk = variant.partition(" ")
    return debias(values, statistics if shrunk else statistics.mean, mode, period=period)


def interval(values: Tensor) -> tuple[float, float]:
    """Return the mean over images and half of its 95 % confidence interval."""
    return values.mean().item(), 1.96 * float(sem(values.numpy()))


class Setting:
    """A model, a method on it, the map of the one half of the images, and the other half."""

    def __init__(self, options: argparse.Namespace, method: str, margin: int) -> None:
        model, info = load_model(options.model, WEIGHTS[options.model])
        self.model = with_relu_modules(model).requires_grad_(False)
        self.method, self.settings = attribution(method, self.model, options.samples)
        count = options.calibrate + options.evaluate
        files = ImageFiles(options.images, SIZE + margin, count, seed=1, mean=info.mean, std=info.std)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
        self.halves = order[: options.calibrate], order[options.calibrate :]
        self.files, self.batch_size = files, options.batch_size
        torch.manual_seed(0)
        self.calibration: Calibration = calibrate(
            self.method, (batch[:, :, :SIZE, :SIZE] for batch in self.batches(0)), **self.settings
        )

    def batches(self, half: int) -> Iterator[Tensor]:
        """Yield the images of a half, larger than the network's by the margin."""
        chosen = self.halves[half]
        for start in range(0, len(chosen), self.batch_size):
            items = (self.files[index] for index in chosen[start : start + self.batch_size])
            yield torch.stack([item[0] if isinstance(item, tuple) else item for item in items])

    def predicted(self, images: Tensor) -> Tensor:
        """Return the class of the largest output of each image."""
        with torch.no_grad():
            return self.model(images).argmax(1)

    def attribute(self, images: Tensor, target: Tensor) -> Tensor:
        """Return the raw attributions."""
        return self.method.attribute(images, target=target, **self.settings).detach()


def grid(setting: Setting) -> dict[str, Any]:
    """Contrast of the period-32 profile of the mean absolute attribution, and how much of it is noise."""
    streams = {variant: StreamingStatistics() for variant in VARIANTS}
    for images in setting.batches(1):
        images = images[:, :, :SIZE, :SIZE]
        maps = setting.attribute(images, setting.predicted(images)).abs().mean(1)
        for variant, stream in streams.items():
            stream.update(debiased(maps, setting.calibration.statistics, variant, 32))
    floors = {
        name: noise_floor(estimate_phase_profile(statistics, 32))
        for name, statistics in (
            ("calibration", setting.calibration.statistics),
            ("evaluation", streams["raw"].result()),
        )
    }
    rows = {}
    for variant, stream in streams.items():
        estimate = estimate_phase_profile(stream.result(), 32)
        rows[variant] = {
            "contrast": estimate.contrast,
            "floor": noise_floor(estimate),
            "without_noise": estimate.corrected_contrast,
            "standard_error": estimate.contrast_standard_error,
        }
    floors["both"] = math.hypot(floors["calibration"], floors["evaluation"])
    return {"floors": floors, "variants": rows}


def noise_floor(estimate: Any) -> float:
    """Return the contrast that the noise alone has."""
    signal = math.copysign(estimate.corrected_contrast**2, estimate.corrected_contrast)
    return math.sqrt(max(estimate.contrast**2 - signal, 0))


def shift(setting: Setting) -> dict[str, Any]:
    """Correlation of an image's attribution with that of the image moved, and of another image moved.

    The second one is what the network's own pattern gives: it is the same for every image, and it lies in the
    same place again where the shift is a multiple of its period.
    """
    found: dict[int, list[Tensor]] = {amount: [] for amount in (0, *SHIFTS)}
    for images in setting.batches(1):
        target = None
        for amount, parts in found.items():
            moved = images[:, :, amount : amount + SIZE, amount : amount + SIZE]
            target = setting.predicted(moved) if target is None else target
            torch.manual_seed(1)
            parts.append(setting.attribute(moved, target).abs().mean(1))
    maps = {amount: torch.cat(parts).double() for amount, parts in found.items()}
    values: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    for variant in VARIANTS:
        done = {
            amount: debiased(one, setting.calibration.statistics, variant, 32) for amount, one in maps.items()
        }
        for amount in SHIFTS:
            here, there = done[0][:, amount:, amount:], done[amount][:, :-amount, :-amount]
            values[variant, amount] = correlation(here, there), correlation(here, there.roll(1, 0))
    rows: dict[str, Any] = {}
    for (variant, amount), (same, other) in values.items():
        raw_same, raw_other = values["raw", amount]
        rows.setdefault(variant, {})[amount] = {
            "same": same.mean().item(),
            "same_gain": interval(same - raw_same),
            "other": other.mean().item(),
            "difference": (same - other).mean().item(),
            "difference_gain": interval(same - other - raw_same + raw_other),
        }
    return {"variants": rows}


def correlation(first: Tensor, second: Tensor) -> Tensor:
    one, two = (values.flatten(1) - values.flatten(1).mean(1, keepdim=True) for values in (first, second))
    return (one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1))


def faithfulness(setting: Setting) -> dict[str, Any]:
    """Insertion and deletion (area under the curve), Quantus pixel flipping, Captum infidelity."""
    scores: dict[tuple[str, str], list[Tensor]] = {}
    for images in setting.batches(1):
        images = images[:, :, :SIZE, :SIZE]
        target = setting.predicted(images)
        raw = setting.attribute(images, target)
        for variant in ("raw", "global", "local shrunk", "phase shrunk"):
            maps = debiased(raw, setting.calibration.statistics, variant, 32)
            insertion, deletion = curves(setting.model, images, maps.abs().mean(1), target)
            for name, values in (
                ("insertion", insertion),
                ("deletion", deletion),
                ("pixel flipping", pixel_flipping(setting.model, images, maps, target)),
                ("infidelity", explained(setting.model, images, maps, target)),
            ):
                scores.setdefault((variant, name), []).append(values)
    joined = {key: torch.cat(parts).double() for key, parts in scores.items()}
    rows: dict[str, Any] = {}
    for (variant, name), values in joined.items():
        rows.setdefault(variant, {})[name] = {
            "mean": values.mean().item(),
            "change": interval(values - joined["raw", name]),
        }
    return {"variants": rows}


def curves(model: nn.Module, images: Tensor, maps: Tensor, target: Tensor, steps: int = 12) -> list[Tensor]:
    """Return the mean probability of the class while pixels are shown, and while they are blurred."""
    coarse = nn.functional.interpolate(images, size=14, mode="area")
    blurred = nn.functional.interpolate(coarse, size=images.shape[2:], mode="bilinear")
    ranks = maps.flatten(1).argsort(1, descending=True).argsort(1).reshape(maps.shape)
    areas = []
    for shown, hidden in ((images, blurred), (blurred, images)):
        curve = []
        for step in range(steps + 1):
            first = (ranks < step * ranks[0].numel() / steps)[:, None]
            with torch.no_grad():
                probabilities = model(torch.where(first, shown, hidden)).softmax(1)
            curve.append(probabilities.gather(1, target[:, None])[:, 0])
        areas.append(torch.trapezoid(torch.stack(curve), dim=0) / steps)
    return areas


def pixel_flipping(model: nn.Module, images: Tensor, maps: Tensor, target: Tensor) -> Tensor:
    import quantus

    metric = quantus.PixelFlipping(
        features_in_step=images[0].numel() // 12,
        normalise=False,
        perturb_baseline="mean",
        disable_warnings=True,
    )
    scores = metric(
        model=model,
        x_batch=images.numpy(),
        y_batch=target.numpy(),
        a_batch=maps.numpy(),
        softmax=True,
        channel_first=True,
        device="cpu",
    )
    # Its own area under the curve calls what NumPy 2 removed.
    return torch.trapezoid(torch.from_numpy(np.asarray(scores, dtype=np.float64)), dim=1) / 12


def explained(model: nn.Module, images: Tensor, maps: Tensor, target: Tensor) -> Tensor:
    """Return Captum's infidelity under small noise, with attributions scaled as fits best."""
    torch.manual_seed(2)

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        change = 0.05 * torch.randn_like(inputs)
        return change, inputs - change

    return infidelity(model, noise, images, maps, target=target, n_perturb_samples=8, normalize=True)


# The planted object: small networks at small images, so that training takes minutes.
OBJECT, SMALL = 3, 64


def planted(options: argparse.Namespace) -> dict[str, Any]:
    """Pointing game and mass in the object, where a square of 3 x 3 pixels decides the class."""
    files = ImageFiles(options.images, SMALL, options.templates + 800, seed=2, mean=(0, 0, 0), std=(1, 1, 1))
    photographs = torch.stack([item[0] for item in (files[index] for index in range(len(files)))])
    photographs = photographs[torch.randperm(len(files), generator=torch.Generator().manual_seed(0))]
    training, calibration, evaluation = photographs.tensor_split([len(files) - 800, len(files) - 400])
    model = trained(training, options.epochs)
    images, labels, _ = with_objects(calibration.repeat(2, 1, 1, 1), seed=3)
    tests, classes, places = with_objects(evaluation.repeat(4, 1, 1, 1), seed=4)
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in tests.split(100)]) == classes
    rows: dict[str, Any] = {}
    for name in METHODS:
        method, settings = attribution(name, model, options.samples)
        torch.manual_seed(0)
        statistics = calibrate(
            method, list(zip(images.split(50), labels.split(50), strict=True)), target="label", **settings
        ).statistics
        maps = torch.cat(
            [
                method.attribute(part, target=target, **settings).detach().abs().mean(1)
                for part, target in zip(tests.split(50), classes.split(50), strict=True)
            ]
        ).double()[right]
        profile = relief(statistics, "phase", period=options.planted_period)
        inside = object_masks(places)[right]
        strength = (inside * profile).sum((1, 2)) / inside.sum((1, 2))
        order = strength.argsort()
        quarter = len(order) // 4
        for variant in VARIANTS:
            done = debiased(maps, statistics, variant, options.planted_period)
            mass = (done * inside).sum((1, 2)) / done.sum((1, 2))
            peak = done.flatten(1).argmax(1, keepdim=True)
            hit = inside.flatten(1).gather(1, peak)[:, 0].double()
            rows.setdefault(name, {})[variant] = {
                measure: {
                    "all": interval(values),
                    "weak": interval(values[order[:quarter]]),
                    "strong": interval(values[order[-quarter:]]),
                    "gap": gap(values[order[-quarter:]], values[order[:quarter]]),
                }
                for measure, values in (("mass", mass), ("pointing", hit))
            }
        rows[name]["relief"] = {
            "weak": strength[order[:quarter]].mean().item(),
            "strong": strength[order[-quarter:]].mean().item(),
        }
    return {"accuracy": right.double().mean().item(), "count": int(right.sum()), "methods": rows}


def gap(strong: Tensor, weak: Tensor) -> tuple[float, float]:
    """Return the difference of two means and half of its 95 % confidence interval."""
    (first, one), (second, two) = interval(strong), interval(weak)
    return first - second, math.hypot(one, two)


def with_objects(photographs: Tensor, seed: int, side: int = OBJECT) -> tuple[Tensor, Tensor, Tensor]:
    """Lay a black or a red square on each photograph; return images, classes and places (top, left)."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, SMALL - side + 1, (len(photographs), 2), generator=generator)
    classes = torch.randint(0, 2, (len(photographs),), generator=generator)
    colors = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])[classes][:, :, None, None]
    images = torch.where(object_masks(places, side)[:, None] > 0, colors, photographs)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std, classes, places


def object_masks(places: Tensor, side: int = OBJECT) -> Tensor:
    rows, columns = (torch.arange(SMALL) - places[:, axis : axis + 1] for axis in (0, 1))
    inside = [(axis >= 0) & (axis < side) for axis in (rows, columns)]
    return (inside[0][:, :, None] & inside[1][:, None]).double()


def trained(photographs: Tensor, epochs: int) -> nn.Module:
    """Train the demo network's architecture, from nothing, to tell black squares from red ones."""
    torch.manual_seed(0)
    model = DemoNet(2).train()
    batches = math.ceil(len(photographs) / 50)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * batches)
    for epoch in range(epochs):
        # Large squares first: from the small ones alone nothing is learnt for long.
        images, classes, _ = with_objects(photographs, seed=100 + epoch, side=max(OBJECT, 18 - 3 * epoch))
        losses = []
        for chosen in torch.randperm(len(images)).split(50):
            loss = nn.functional.cross_entropy(model(images[chosen]), classes[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}", flush=True)
    return model.eval().requires_grad_(False)


def show(result: dict[str, Any], indent: str = "  ") -> None:
    for key, value in result.items():
        if isinstance(value, dict):
            print(f"{indent}{key}")
            show(value, indent + "  ")
        else:
            numbers = value if isinstance(value, (list, tuple)) else [value]
            print(f"{indent}{key}: " + " +- ".join(f"{number:.4f}" for number in numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="+", choices=("grid", "shift", "faithfulness", "planted"))
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--model", choices=tuple(WEIGHTS), default="demo")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--calibrate", type=int, default=200, help="images for the map")
    parser.add_argument("--evaluate", type=int, default=100, help="images for everything else")
    parser.add_argument("--samples", type=int, default=8, help="steps of IntegratedGradients, of SmoothGrad")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--templates", type=int, default=2000, help="photographs to train on (planted)")
    parser.add_argument("--epochs", type=int, default=16, help="of that training")
    # Images of 64 pixels hold two periods of 32, too few to tell the grid from the border; 8 they hold often.
    parser.add_argument("--planted-period", type=int, default=8, help="period of the grid (planted)")
    parser.add_argument("--json", type=Path, default=None, help="file for all numbers")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
    warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU activations")
    sections = {"grid": grid, "shift": shift, "faithfulness": faithfulness}
    results: dict[str, Any] = {"options": {key: str(value) for key, value in vars(options).items()}}
    for method in options.methods if set(options.sections) - {"planted"} else ():
        begun = time.perf_counter()
        setting = Setting(options, method, margin=max(SHIFTS))
        for name in options.sections:
            if name != "planted":
                results.setdefault(name, {})[method] = found = sections[name](setting)
                print(f"{name}: {method} on {options.model}, {time.perf_counter() - begun:.0f} s", flush=True)
                show(found)
    if "planted" in options.sections:
        results["planted"] = found = planted(options)
        show(found)
    if options.json is not None:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
