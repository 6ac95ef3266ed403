r"""Pixel attacks beside their peers, aimed beside not aimed, and eq. 12 beside the network.

    python benchmarks/attack.py --data caltech101 --output attack-benchmark             # every part
    python benchmarks/attack.py --data caltech101 --parts peers --models mobilenet_v2/IMAGENET1K_V1
    python benchmarks/attack.py --data caltech101 --parts padding \
        --models continued=continued.pt padded=padded.pt@padded

``--data`` is Caltech-101 as a folder of class folders or a tar file of them. Images come from the parts of
the demo network's split that it was not trained on, those that the model classifies right (for a network with
other classes: all, with its own decision as the label). Every comparison uses the same model, images,
number of candidates and population on all sides, which run in turn in one process. With one thread times are
seconds of the processor, which other work on the machine disturbs least.

The parts:

- ``peers``: success at 100, 400 and 2,000 candidates and images a second, beside torchattacks' OnePixel and
  ART's PixelAttack (whose population is always 400). Needs ``pip install -e .[benchmarks]``, and
  ``pip install --no-deps torchattacks``: it pins an old ``requests``, which nothing of this needs.
- ``overhead``: seconds of an attack beside those of its bare forward passes, and its seconds outside forward
  passes beside those inside; beside SciPy's differential
  evolution, one image after the other; of a forward pass by batch size; and what reusing early activations
  could save.
- ``aim``: success by queries for strong, weak and all pixels and for other orders of the candidates.
- ``long``: the same up to 2,000 candidates for strong, weak and all, and for a ranked first population.
- ``padding``: the gap between strong and weak pixels of several networks over the same images.
- ``eq12``: change of the logit that eq. 12 and the image's own gradient predict, beside the measured one.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from scipy.optimize import differential_evolution
from scipy.stats import binomtest, sem, spearmanr
from torch import Tensor, nn

from erfattr import (
    DeadPixelMap,
    Execution,
    GradientPixelAttack,
    OnePixelAttack,
    RandomPixelAttack,
    StrongPixelAttack,
    demo_model,
    load_model,
    weak_pixels,
)
from erfattr._files import write_json
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD, read_image, resize_and_crop
from erfattr.execution import prepared
from erfattr.models.checkpoints import load_checkpoint
from erfattr.receptive_field.trace import trace_layers
from erfattr.remedies.variants import make_variant
from erfattr.robust.pixel_space import Candidates, PixelSpace
from erfattr.robust.pixel_trials import Trials

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from train_demo_model import class_folders, stratified_split

PARTS = ("peers", "overhead", "aim", "long", "padding", "eq12")
SIDES = ("erfattr", "torchattacks", "ART")
# Candidates, and the population and generations that make them up, the same on both sides.
BUDGETS = {100: (20, 4), 400: (40, 9), 2000: (100, 19)}
CURVE = (10, 25, 50, 100, 200, 400, 800, 2000)


class Normalised(nn.Module):
    """A network of images from 0 to 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


def named_model(text: str) -> tuple[str, nn.Module]:
    """Load ``demo``, a torchvision ``NAME[/WEIGHTS]``, or a demo network's ``NAME=CHECKPOINT[@VARIANT]``."""
    name, _, path = text.partition("=")
    if path:
        path, _, variant = path.partition("@")
        model = make_variant(variant or "original", demo_model())
        load_checkpoint(model, Path(path))
    else:
        name, _, weights = name.partition("/")
        model = load_model(name, weights or None)[0]
    return name, Normalised(model).eval()


def read(items: Sequence[tuple[Path, int]], size: int) -> tuple[Tensor, Tensor]:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pixels = list(pool.map(lambda item: resize_and_crop(read_image(item[0]), size), items))
    images = torch.stack(pixels).float() / 255
    return images, torch.tensor([label for _, label in items])


@torch.inference_mode()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    device = next(model.parameters()).device
    return torch.cat([model(batch.to(device)).cpu() for batch in images.split(64)])


class Photographs:
    """Held-out images by network, and images of the training part for the map."""

    def __init__(self, options: argparse.Namespace) -> None:
        split = stratified_split(class_folders(options.data, Path(options.data).parent), 0)
        self.size = options.size
        self.map_images, _ = read(split["train"][:: max(len(split["train"]) // 512, 1)], self.size)
        self.images, self.labels = read(split["test"] + split["validation"], self.size)
        self.order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(options.seed))

    def right(self, models: Sequence[nn.Module], count: int) -> tuple[Tensor, Tensor]:
        """Return up to ``count`` images that every model classifies right, and their labels."""
        images, labels = self.images[self.order], self.labels[self.order]
        good = torch.ones(len(images), dtype=torch.bool)
        for model in models:
            predicted = logits(model, images).argmax(1)
            if int(predicted.max()) > 100:  # not the 101 classes: its own decision is the label
                labels = predicted
            good &= predicted == labels
        print(f"{int(good.sum())} of {len(good)} images are classified right", flush=True)
        return images[good][:count], labels[good][:count]

    def sensitivity(self, model: nn.Module) -> Tensor:
        # Of the mean output, as the documented results were measured.
        return DeadPixelMap(model).attribute(self.map_images.split(32), "mean")


def clock() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def wilson(count: int, total: int) -> tuple[float, float]:
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return interval.low, interval.high


def paired(mine: Tensor, its: Tensor) -> dict[str, Any]:
    """Difference of two success rates over the same images, its 95 % interval and McNemar's exact p."""
    only_mine, only_its = int((mine & ~its).sum()), int((its & ~mine).sum())
    difference = mine.double() - its.double()
    margin = 1.96 * float(sem(difference.numpy()))
    p = binomtest(only_mine, only_mine + only_its).pvalue if only_mine + only_its else 1.0
    mean = float(difference.mean())
    return {"difference": mean, "interval": (mean - margin, mean + margin), "p": p}


def said(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return (
        f"{100 * one['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}, p = {one['p']:.2g})"
    )


# Peers


def torchattacks_side(
    model: nn.Module, population: int, generations: int
) -> Callable[[Tensor, Tensor], Tensor]:
    import torchattacks

    attack = torchattacks.OnePixel(model, pixels=1, steps=generations, popsize=population, inf_batch=128)

    def run(images: Tensor, labels: Tensor) -> Tensor:
        # What the peers' copies of SciPy's evolution draw from.
        np.random.seed(0)  # noqa: NPY002
        return attack(images, labels)

    return run


def art_side(model: nn.Module, generations: int) -> Callable[[Tensor, Tensor], Tensor]:
    from art.attacks.evasion import PixelAttack
    from art.estimators.classification import PyTorchClassifier

    def run(images: Tensor, labels: Tensor) -> Tensor:
        classifier = PyTorchClassifier(
            model,
            nn.CrossEntropyLoss(),
            tuple(images.shape[1:]),
            int(logits(model, images[:1]).shape[1]),
            clip_values=(0.0, 1.0),
            device_type=images.device.type.replace("cuda", "gpu"),
        )
        np.random.seed(0)  # noqa: NPY002
        attack = PixelAttack(classifier, th=1, es=1, max_iter=generations, verbose=False)
        return torch.as_tensor(attack.generate(images.cpu().numpy(), labels.cpu().numpy()))

    return run


def peers(options: argparse.Namespace, photographs: Photographs) -> list[dict[str, Any]]:
    rows = []
    for text in options.models or ["demo"]:
        name, model = named_model(text)
        model = model.to(options.device)
        images, labels = photographs.right([model], options.peer_images)
        for budget, (population, generations) in BUDGETS.items():
            if budget > options.budget:
                continue
            ours = OnePixelAttack(
                model, 0.0, 1.0, population_size=population, max_generations=generations, seed=options.seed
            )
            sides: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"erfattr": ours.perturb}
            if "torchattacks" in options.sides:
                sides["torchattacks"] = torchattacks_side(model, population, generations)
            # Its population of 400 is more than the smallest budget.
            if "ART" in options.sides and budget >= 400:
                sides["ART"] = art_side(model, budget // 400 - 1)
            outcomes: dict[str, list[Tensor]] = {side: [] for side in sides}
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            blocks = list(zip(images.split(options.block), labels.split(options.block), strict=True))
            for some, their in blocks:
                given, its = some.to(options.device), their.to(options.device)
                for side, attack in sides.items():
                    begun = clock()
                    adversarial = attack(given, its)
                    seconds[side].append(clock() - begun)
                    outcomes[side].append(logits(model, adversarial).argmax(1) != their)
            success = {side: torch.cat(parts) for side, parts in outcomes.items()}
            for side in sides:
                rate = len(images) / sum(seconds[side])
                row: dict[str, Any] = {
                    "model": name,
                    "size": photographs.size,
                    "candidates": budget,
                    "side": side,
                    "images": len(images),
                    "success": float(success[side].double().mean()),
                    "images_a_second": rate,
                }
                line = f"{name} {budget:5d} candidates  {side:12s} {100 * row['success']:5.1f} %"
                line += f"  {rate:6.2f} images/s"
                if side != "erfattr":
                    ratios = np.divide(seconds[side], seconds["erfattr"])
                    row |= {
                        "ours_against_it": paired(success["erfattr"], success[side]),
                        "time_ratio": sum(seconds[side]) / sum(seconds["erfattr"]),
                        "time_ratio_range": (float(ratios.min()), float(ratios.max())),
                    }
                    line += f"  ours: {said(row['ours_against_it'])}, {row['time_ratio']:.2f} x as fast"
                    line += f" ({ratios.min():.2f} to {ratios.max():.2f})"
                print(line, flush=True)
                rows.append(row)
    return rows


# Overhead


def folds_of(model: nn.Module, images: Tensor) -> tuple[tuple[str, str], ...]:
    """Return which batch normalisations can be folded."""
    return trace_layers(model, {}, (images.shape[2], images.shape[3]), images.shape[1]).folds


def scipy_attack(
    model: nn.Module, images: Tensor, labels: Tensor, population: int, generations: int
) -> tuple[Tensor, int]:
    """One image after the other with SciPy: DE/rand/1, no crossover, a generation a call.

    Returns success of each image and the number of samples run.
    """
    quick, _ = prepared(model, Execution(), folds=folds_of(model, images))
    success, samples, won = [], 0, False
    height, width = images.shape[2:]
    for image, label in zip(images, labels.tolist(), strict=True):
        rows = image.expand(population, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        won = False

        def values(vectors: Any, image: Tensor = image, label: int = label, rows: Tensor = rows) -> Any:
            nonlocal won, samples
            rows[:] = image
            vectors = torch.as_tensor(vectors.T)
            y, x = (vectors[:, 0] * height).long(), (vectors[:, 1] * width).long()
            rows[torch.arange(len(rows)), :, y.clamp(max=height - 1), x.clamp(max=width - 1)] = vectors[
                :, 2:
            ].float()
            with torch.inference_mode():
                outputs = quick(rows)
                others = outputs.index_fill(1, torch.tensor(label), -torch.inf).amax(1)
                margin = (outputs[:, label] - others).double().numpy()
            won = won or bool((margin < 0).any())
            samples += len(rows)
            return margin

        differential_evolution(
            values,
            [(0, 1)] * 5,
            strategy="rand1bin",
            maxiter=generations,
            popsize=1,
            init=np.random.default_rng(0).random((population, 5)),
            mutation=0.5,
            recombination=1.0,
            tol=0,
            atol=-1,
            polish=False,
            updating="deferred",
            vectorized=True,
            callback=lambda *_, **__: won,  # noqa: B023
        )
        success.append(won)
    return torch.tensor(success), samples


def share_outside_forward(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> float:
    """Return the time a run spends outside forward passes, over the time spent in them.

    Both parts are of the same seconds, so that a machine whose speed changes disturbs neither. Making the
    folded copy counts as outside.
    """
    spent = 0.0
    answers = Trials._answers

    def timed(self: Trials, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        def run(*inputs: Any) -> Any:
            nonlocal spent
            begun = clock()
            outputs = forward(*inputs)
            spent += clock() - begun
            return outputs

        return answers(self, run, *given, **options)

    attack = OnePixelAttack(model, 0.0, 1.0, population_size=40, max_generations=9, seed=seed)
    with patch.object(Trials, "_answers", timed):
        begun = clock()
        attack.perturb(images, labels)
        whole = clock() - begun
    return whole / spent - 1


def overhead(options: argparse.Namespace, photographs: Photographs) -> list[dict[str, Any]]:
    rows = []
    for text in options.models or ["demo"]:
        name, model = named_model(text)
        images, labels = photographs.right([model], options.block)
        quick, _ = prepared(model, Execution(), folds=folds_of(model, images))
        shares, within, others = [], [], []
        for _ in range(options.rounds):
            attack = OnePixelAttack(model, 0.0, 1.0, population_size=40, max_generations=9, seed=options.seed)
            begun = clock()
            _, report = attack.perturb(images, labels, return_report=True)
            mine = clock() - begun
            count = int(report.queries.sum())
            batch = images[torch.arange(64) % len(images)].contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                begun = clock()
                for start in range(0, count, 64):
                    quick(batch[: min(64, count - start)])
                floor = clock() - begun
            shares.append(mine / floor - 1)
            within.append(share_outside_forward(model, images, labels, options.seed))
            begun = clock()
            scipy_success, samples = scipy_attack(model, images, labels, 40, 9)
            others.append((clock() - begun) / samples / (mine / count))
        row = {
            "model": name,
            "images": len(images),
            "samples": count,
            "overhead": float(np.median(shares)),
            "overhead_range": (min(shares), max(shares)),
            "overhead_within": float(np.median(within)),
            "overhead_within_range": (min(within), max(within)),
            "scipy_time_a_sample_over_ours": float(np.median(others)),
            "scipy_range": (min(others), max(others)),
            "success": float(report.success.double().mean()),
            "scipy_success": float(scipy_success.double().mean()),
            "ms_a_sample_by_batch": {},
        }
        with torch.inference_mode():
            for size in (8, 16, 32, 64, 128, 256):
                batch = images[torch.arange(size) % len(images)].contiguous(memory_format=torch.channels_last)
                quick(batch)
                begun = clock()
                for _ in range(1024 // size):
                    quick(batch)
                row["ms_a_sample_by_batch"][size] = 1000 * (clock() - begun) / 1024
            if name == "demo":
                row["share_of_time"] = share_of_early_layers(quick.model, batch[:64])
        rows.append(row)
        by_size = ", ".join(f"{size}: {ms:.3f}" for size, ms in row["ms_a_sample_by_batch"].items())
        print(
            f"{name}: {100 * row['overhead']:.1f} % ({100 * min(shares):.1f} to {100 * max(shares):.1f}) "
            f"over {count} bare forward samples; within a run {100 * row['overhead_within']:.1f} % "
            f"({100 * min(within):.1f} to {100 * max(within):.1f}); "
            f"SciPy takes {row['scipy_time_a_sample_over_ours']:.2f} x "
            f"({min(others):.2f} to {max(others):.2f}) our time a sample, success "
            f"{100 * row['scipy_success']:.0f} % against {100 * row['success']:.0f} %\n"
            f"  ms a forward sample by batch size: {by_size}\n  early layers: {row.get('share_of_time')}",
            flush=True,
        )
    return rows


def share_of_early_layers(model: nn.Module, batch: Tensor) -> dict[str, float]:
    """Share of the forward pass spent up to a layer, and of its map that one pixel of the image reaches."""
    stages = [nn.Sequential(model.conv1, model.bn1, model.relu), model.maxpool, model.layer1, model.layer2]

    def seconds(call: Callable[[], Any]) -> float:
        call()
        begun = clock()
        for _ in range(20):
            call()
        return clock() - begun

    whole = seconds(lambda: model(batch))
    shares = {}
    for index, name in enumerate(("conv1", "maxpool", "layer1", "layer2")):
        early = nn.Sequential(*stages[: index + 1])
        one = batch[:1].clone()
        one[0, :, one.shape[2] // 2, one.shape[3] // 2] += 1
        reached = ((early(one) - early(batch[:1])).abs().amax((0, 1)) > 0).double().mean()
        shares[name] = {"time": seconds(lambda early=early: early(batch)) / whole, "reached": float(reached)}
    return shares


# Aim


class Ranked(RandomPixelAttack):
    """Every pixel at the corner colour farthest from its present one, in the order of a rank (N, H, W)."""

    def __init__(self, model: nn.Module, order: Callable[[Tensor], Tensor], **options: Any) -> None:
        super().__init__(model, 0.0, 1.0, **options)
        self.order = order

    def _search(self, space: PixelSpace, _trials: Any, /) -> Any:
        present = space.present.transpose(1, 2).reshape(space.n_images, 3, space.height, space.width)
        amplitude = torch.maximum(present, 1 - present).sum(1)
        return RankedSearch(space, self.order(amplitude).flatten(1), self._sizes())


class RankedSearch:
    """Proposes pixels in the order of a rank, (N, H * W)."""

    def __init__(self, space: PixelSpace, rank: Tensor, sizes: Sequence[int]) -> None:
        self.space, self.generations = space, len(sizes)
        self.slices = iter(rank.argsort(1, descending=True)[:, : sum(sizes)].split(list(sizes), dim=1))

    def propose(self, images: Tensor) -> Candidates:
        ranks = next(self.slices)[images][..., None]
        return self.space.candidates(images, ranks, self.space.farthest(images, ranks))

    def observe(self, images: Tensor, values: Tensor) -> None:
        pass


def arms(model: nn.Module, R: Tensor, population: int, generations: int, seed: int) -> dict[str, Any]:  # noqa: N803
    options = {"seed": seed, "check_every": 5}
    evolution = {"population_size": population, "max_generations": generations, **options}
    direct = {"max_candidates": population * (1 + generations), **options}
    named: dict[str, Any] = {"all pixels": OnePixelAttack(model, 0.0, 1.0, **evolution)}
    for fraction in (0.5, 0.25, 0.1):
        named[f"strongest {fraction}"] = StrongPixelAttack(model, R, 0.0, 1.0, fraction=fraction, **evolution)
    named["in proportion to R"] = StrongPixelAttack(
        model, R, 0.0, 1.0, fraction=1.0, sampling="proportional", **evolution
    )
    named["weakest 0.25"] = OnePixelAttack(model, 0.0, 1.0, mask=weak_pixels(R, 0.25), **evolution)
    named["random"] = RandomPixelAttack(model, 0.0, 1.0, **direct)
    named["ranked by amplitude"] = Ranked(model, lambda amplitude: amplitude, **direct)
    named["ranked by R"] = Ranked(model, lambda amplitude: R.expand_as(amplitude), **direct)
    listed = {"fraction": 1.0, "sampling": "ranked"}
    named["ranked by amplitude x R"] = StrongPixelAttack(
        model,
        R,
        0.0,
        1.0,
        **listed,
        population_size=population * (1 + generations),
        max_generations=0,
        **options,
    )
    named["listed by amplitude x R first"] = StrongPixelAttack(model, R, 0.0, 1.0, **listed, **evolution)
    named["gradient (white box)"] = GradientPixelAttack(model, 0.0, 1.0, **direct)
    return named


def first_successes(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Candidates tried up to the success, infinity without one; not the image itself and the confirmation."""
    _, report = attack.perturb(images, labels, return_report=True)
    extra = 2 + isinstance(attack, GradientPixelAttack)
    return torch.where(report.success, (report.queries - extra).double(), torch.inf)


def curves(
    options: argparse.Namespace, named: dict[str, Any], images: Tensor, labels: Tensor, budget: int, file: str
) -> list[dict[str, Any]]:
    rows, firsts = [], {}
    points = [point for point in CURVE if point <= budget]
    for name, attack in named.items():
        begun = time.perf_counter()
        firsts[name] = first_successes(attack, images, labels)
        rates = {point: float((firsts[name] <= point).double().mean()) for point in points}
        found = firsts[name][firsts[name].isfinite()]
        row: dict[str, Any] = {
            "arm": name,
            "images": len(images),
            "success": rates,
            "median_candidates_to_success": float(found.median()) if len(found) else None,
        }
        base = firsts["all pixels"]
        row["against_all_pixels"] = {point: paired(firsts[name] <= point, base <= point) for point in points}
        rows.append(row)
        shown = "  ".join(f"{point}: {100 * rate:4.1f}" for point, rate in rates.items())
        print(
            f"{name:24s} success % at {shown}  median {row['median_candidates_to_success']}"
            f"  [{time.perf_counter() - begun:.0f} s]",
            flush=True,
        )
        for point in (25, 50, 100, budget):
            print(
                f"    at {point:4d} against all pixels: {said(row['against_all_pixels'][point])}", flush=True
            )
    draw(firsts, len(images), budget, options.output / file)
    return rows


def draw(firsts: dict[str, Tensor], total: int, budget: int, file: Path) -> None:
    """Success by candidates, with 95 % bands of Wilson."""
    shown = [name for name in firsts if not name.startswith("ranked by") and name != "strongest 0.1"]
    figure = Figure(figsize=(7, 4.6), dpi=150, layout="constrained")
    ax = figure.subplots()
    steps = np.unique(np.geomspace(5, budget, 60).round())
    for index, name in enumerate(shown):
        counts = [int((firsts[name] <= step).sum()) for step in steps]
        bands = np.array([wilson(count, total) for count in counts]) * 100
        (line,) = ax.plot(steps, 100 * np.array(counts) / total, color=f"C{index}", label=name)
        if name in ("all pixels", "strongest 0.25", "weakest 0.25"):
            ax.fill_between(steps, *bands.T, color=line.get_color(), alpha=0.15, linewidth=0)
    ax.set_xscale("log")
    ax.set_xticks(ticks := [point for point in CURVE if 5 <= point <= budget], [f"{tick}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("candidates tried for an image")
    ax.set_ylabel("images whose class changed (%)")
    ax.set_ylim(bottom=0)
    ax.set_title(f"one-pixel attacks on the demo network, {total} images, bands: 95 %")
    ax.legend(fontsize="small", loc="upper left")
    figure.savefig(file)


def aim(options: argparse.Namespace, photographs: Photographs) -> list[dict[str, Any]]:
    _, model = named_model("demo")
    images, labels = photographs.right([model], options.images)
    named = arms(model, photographs.sensitivity(model), *BUDGETS[400], options.seed)
    wanted = ["all pixels", *(options.arms or named)]
    return curves(options, {name: named[name] for name in wanted}, images, labels, 400, "aim.png")


def long(options: argparse.Namespace, photographs: Photographs) -> list[dict[str, Any]]:
    _, model = named_model("demo")
    images, labels = photographs.right([model], options.images)
    named = arms(model, photographs.sensitivity(model), *BUDGETS[2000], options.seed)
    names = ("all pixels", "strongest 0.25", "listed by amplitude x R first", "weakest 0.25")
    chosen = {name: named[name] for name in names}
    return curves(options, chosen, images, labels, 2000, "long.png")


def padding(options: argparse.Namespace, photographs: Photographs) -> list[dict[str, Any]]:
    models = dict(named_model(text) for text in options.models or ["demo"])
    images, labels = photographs.right(list(models.values()), options.images)
    rows: list[dict[str, Any]] = []
    gaps = {}
    for name, model in models.items():
        R = photographs.sensitivity(model)  # noqa: N806
        named = arms(model, R, *BUDGETS[400], options.seed)
        firsts = {
            arm: first_successes(named[arm], images, labels) for arm in ("strongest 0.25", "weakest 0.25")
        }
        strong, weak = (first.isfinite() for first in firsts.values())
        gaps[name] = strong.double() - weak.double()
        rows.append(
            {
                "model": name,
                "images": len(images),
                "spread_of_R": float(R.std() / R.mean()),
                "strong": float(strong.double().mean()),
                "weak": float(weak.double().mean()),
                "gap": paired(strong, weak),
            }
        )
        row = rows[-1]
        print(
            f"{name}: deviation of R / mean {row['spread_of_R']:.3f}; success strong "
            f"{100 * row['strong']:.1f} %, weak {100 * row['weak']:.1f} %, gap {said(row['gap'])}",
            flush=True,
        )
    names = list(models)
    for name in names[1:]:
        change = gaps[name] - gaps[names[0]]
        margin = 1.96 * float(sem(change.numpy()))
        rows.append(
            {
                "gap_of": name,
                "less_that_of": names[0],
                "points": float(100 * change.mean()),
                "margin": 100 * margin,
            }
        )
        print(
            f"gap of {name} less that of {names[0]}: {100 * change.mean():+.1f} +- {100 * margin:.1f} points",
            flush=True,
        )
    return rows


# Eq. 12


def equation_12(options: argparse.Namespace, photographs: Photographs) -> list[dict[str, Any]]:
    """Add one amplitude to all channels of a pixel; compare the label's logit with what is predicted."""
    _, model = named_model("demo")
    images, labels = photographs.right([model], min(options.images, 200))
    R = photographs.sensitivity(model)  # noqa: N806
    generator = torch.Generator().manual_seed(options.seed)
    points = 40
    x = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(x).gather(1, labels[:, None]).sum(), x)
    before = logits(model, images).gather(1, labels[:, None])
    pixels = torch.randint(photographs.size**2, (len(images), points), generator=generator)
    y, x_ = pixels // photographs.size, pixels % photographs.size
    rows = []
    each = torch.arange(points)
    for bound in (0.02, 0.1, 0.3, 1.0):
        # The same amplitude in all channels, as far as the pixel's colour allows.
        wish = (2 * torch.rand(len(images), points, generator=generator) - 1) * bound
        present = images[torch.arange(len(images))[:, None], :, y, x_]
        epsilon = torch.maximum(torch.minimum(wish, 1 - present.amax(-1)), -present.amin(-1))
        measured = []
        for index, image in enumerate(images):
            many = image.repeat(points, 1, 1, 1)
            many[each, :, y[index], x_[index]] += epsilon[index][:, None]
            measured.append(logits(model, many)[:, labels[index]] - before[index])
        change = torch.stack(measured)
        slope = gradient[torch.arange(len(images))[:, None], :, y, x_].sum(-1)
        predictions = {
            "gradient: change": (epsilon * slope, change),
            "gradient: size of change": ((epsilon * slope).abs(), change.abs()),
            "R: change": (epsilon * R[y, x_], change),
            "R: size of change": ((epsilon * R[y, x_]).abs(), change.abs()),
            "amplitude alone: size of change": (epsilon.abs(), change.abs()),
            "R alone: size of change": (R[y, x_], change.abs()),
        }
        for name, pair in predictions.items():
            predicted, actual = (one.double().flatten().numpy() for one in pair)
            pearson = float(np.corrcoef(predicted, actual)[0, 1])
            rank = float(spearmanr(predicted, actual).statistic)
            rows.append(
                {
                    "amplitude_up_to": bound,
                    "prediction": name,
                    "pearson": pearson,
                    "spearman": rank,
                    "changes": len(actual),
                }
            )
            print(
                f"amplitude up to {bound:4.2f}  {name:32s} Pearson {pearson:+.3f}, Spearman {rank:+.3f}",
                flush=True,
            )
    return rows


CALLS = {
    "peers": peers,
    "overhead": overhead,
    "aim": aim,
    "long": long,
    "padding": padding,
    "eq12": equation_12,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Caltech-101: a folder, or a tar file of it")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=None,
        metavar="MODEL",
        help="for peers, overhead and padding: demo, a torchvision NAME[/WEIGHTS], or "
        "NAME=CHECKPOINT[@VARIANT] of the demo network (default: demo)",
    )
    parser.add_argument("--size", type=int, default=64, help="of the images in pixels")
    parser.add_argument("--images", type=int, default=400, help="at most so many, for aim, long, padding")
    parser.add_argument("--peer-images", type=int, default=128, help="at most so many, for peers")
    parser.add_argument("--block", type=int, default=32, help="images of a call, for peers and overhead")
    parser.add_argument(
        "--arms", nargs="+", default=None, metavar="ARM", help="for aim: only these, beside all pixels"
    )
    parser.add_argument("--budget", type=int, default=2000, help="largest number of candidates, for peers")
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="for peers, beside ours (default: all)"
    )
    parser.add_argument("--device", default="cpu", help="for peers: torch device (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="for overhead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("attack-benchmark"), help="folder of the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    photographs = Photographs(options)
    record = {key: str(value) for key, value in vars(options).items()}
    record |= {"torch": torch.__version__, "torchvision": torchvision.__version__}
    record |= {"machine": f"{os.cpu_count()}-core {platform.machine()} CPU"}
    if options.device != "cpu":
        record |= {"gpu": torch.cuda.get_device_name(options.device)}
    for part in options.parts:
        print(f"--- {part}", flush=True)
        begun = time.perf_counter()
        rows = CALLS[part](options, photographs)
        result = {"options": record, "seconds": time.perf_counter() - begun, "rows": rows}
        write_json(options.output / f"{part}.json", result)


if __name__ == "__main__":
    main()
