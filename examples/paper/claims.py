# %% [markdown]
# The claims of sections 3 and 5, each with its data and a verdict.
#
# A claim *holds* where an effect in its direction is significant (p below 0.05), *does not hold* where one
# in the other direction is, and is *not decided* in between. It *cannot be tested here* where what it needs
# is not there. The rule of each claim stands in `verdicts.py`, which was written before the runs that it
# judges. Claims about tables read the results of their scripts; two are measured here.

# %%
from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import exp, log
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from paper import TABLE_1, TABLE_2, Row, options, print_table, write_result
from runs import trained_network
from scipy.stats import pearsonr, rankdata, spearmanr
from torch import Tensor, nn
from verdicts import (
    FAILS,
    HOLDS,
    OPEN,
    RULES,
    SIGNIFICANT,
    STRONG,
    UNTESTED,
    Pooled,
    agreed,
    random_effects,
    stratified,
    verdict,
)

from erfattr import DeadPixelMap, demo_model, sample_images
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.recipes import find_recipe

# Convolutions of the networks of one kind, by which depth is counted.
DEPTH = {"resnet50": 50, "resnet101": 101, "resnet152": 152}


def missing(what: str, command: str) -> Row:
    """Say what a claim would need."""
    said = f"{what} not there; python examples/paper/{command} --data FOLDER makes them"
    return {"verdict": UNTESTED, "evidence": said}


def read(given: argparse.Namespace, name: str) -> list[Row] | Row:
    """Return the rows that a script wrote, or a row that says they are missing."""
    # As a script writes them into a folder of this name, or as the record keeps them.
    script = name.partition("_")[0]
    places = (given.results / name / f"{script}.json", given.results / f"{name}.json")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return missing(f"the results {name} are", f"{script}.py")
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


# %% [markdown]
# Section 3. Nine networks are few: the interval of a correlation of 0 is -0.66 to 0.66.


# %%
def size_does_not_describe_accuracy(given: argparse.Namespace) -> Row:
    """The rank correlation of size and accuracy: of the paper's tables, and of table 2 measured here."""
    tables = {
        "the paper's Table 1": [row | {"accuracy": row["acc1"]} for row in TABLE_1.values()],
        "the paper's Table 2": [row | {"accuracy": row["test_accuracy"]} for row in TABLE_2.values()],
    }
    rows = read(given, "table2")
    rows = [] if isinstance(rows, dict) else [row for row in rows if "Weights." in row["weights"]]
    if len(rows) > 3:  # fewer pairs have no interval
        tables["table 2 measured here"] = [row | {"accuracy": row["test_accuracy"]} for row in rows]
    found = {}
    for table, networks in tables.items():
        for size, keys in (("theoretical", ("trf",)), ("effective", ("sigma_x", "sigma_y"))):
            sizes = [sum(row[key] for key in keys) for row in networks]
            # Pearson's correlation of the ranks is Spearman's.
            correlation = pearsonr(rankdata(sizes), rankdata([row["accuracy"] for row in networks]))
            low, high = correlation.confidence_interval()
            found[f"{table}, {size}"] = {
                "correlation": correlation.statistic,
                "p": correlation.pvalue,
                "low": low,
                "high": high,
            }
    if any(test["p"] < SIGNIFICANT and test["correlation"] > 0 for test in found.values()):
        judged = FAILS
    else:
        judged = HOLDS if all(test["high"] < STRONG for test in found.values()) else OPEN
    said = "; ".join(
        f"{name} {test['correlation']:+.2f} ({test['low']:+.2f} to {test['high']:+.2f}, p = {test['p']:.2g})"
        for name, test in found.items()
    )
    evidence = f"Spearman's correlation over networks, 95 % interval: {said}"
    if len(tables) == 2:
        evidence += "; these are the paper's own numbers, trained ResNets were not measured here"
    return {"verdict": judged, "evidence": evidence, "numbers": found}


def size_saturates_with_depth(given: argparse.Namespace) -> Row:
    """Growth of sigma from ResNet-50 to ResNet-152, beside that of the square root of depth."""
    rows = read(given, "table1")
    if isinstance(rows, dict):
        return rows
    growth = (DEPTH["resnet152"] / DEPTH["resnet50"]) ** 0.5
    paper = {name: (TABLE_1[name]["sigma_x"] + TABLE_1[name]["sigma_y"]) / 2 for name in DEPTH}
    kinds: dict[str, dict[str, float]] = {"the paper's Table 1": paper}
    errors: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["model"] in DEPTH and "sigma_x" in row:
            kind = "trained" if "Weights." in row["weights"] else "random weights, measured here"
            kinds.setdefault(kind, {})[row["model"]] = (row["sigma_x"] + row["sigma_y"]) / 2
            # Jackknife errors over the images; the axes' mean error, as if they erred alike.
            if row["model"] != "resnet101" and row.get("sigma_x_error") is not None:
                error = (row["sigma_x_error"] + row["sigma_y_error"]) / 2
                errors.setdefault(kind, {})[row["model"]] = error
    ratios = {
        kind: sizes["resnet152"] / sizes["resnet50"]
        for kind, sizes in kinds.items()
        if len(sizes) == len(DEPTH)
    }
    ratio_errors = {
        kind: ratios[kind] * sum((error / kinds[kind][name]) ** 2 for name, error in found.items()) ** 0.5
        for kind, found in errors.items()
        if kind in ratios and len(found) == 2
    }
    said = "; ".join(
        f"{kind}: {ratio:.2f}" + (f" +- {ratio_errors[kind]:.2f}" if kind in ratio_errors else "")
        for kind, ratio in ratios.items()
    )
    # Saturated: nearer to no growth at all than to that of the square root.
    trained = ratios.get("trained")
    if trained is None:
        judged = UNTESTED
        said += "; trained weights were not available"
    else:
        judged = HOLDS if trained < growth**0.5 else FAILS
    evidence = f"sigma of ResNet-152 over that of ResNet-50 (square root of depth: {growth:.2f}): {said}"
    return {"verdict": judged, "evidence": evidence, "numbers": {"sizes": kinds, "ratios": ratios}}


# %% [markdown]
# Sections 4 and 5.


# %%
def over(pooled: Pooled, unit: str = "") -> str:
    """Return a pooled effect as a sentence has it."""
    interval = f"{pooled.low:+.3g} to {pooled.high:+.3g}, p = {pooled.p:.2g}"
    return f"{pooled.mean:+.3g} +- {pooled.error:.2g}{unit} ({interval})"


def padding_lowers_imbalance_of_resnets(given: argparse.Namespace) -> Row:
    """L1 of figure 4 before and after, over ResNets and the demo network, which is one."""
    rows = read(given, "figure4")
    if isinstance(rows, dict):
        return rows
    rows = [row for row in rows if "resn" in row["model"] or row["model"] == "demo"]
    if len(rows) < 3:
        return missing("three ResNets in figure4 are", "figure4.py")
    changes = [row["l1_difference"] for row in rows]
    errors = [row["l1_difference_error"] for row in rows]
    pooled = random_effects(changes, errors)
    judged = verdict(pooled.mean.mean, pooled.mean.p, -1)
    if judged == HOLDS and pooled.high >= 0:
        judged = OPEN
    kinds = sorted({row["weights"].split(",")[0] for row in rows})
    evidence = (
        f"change of L1 over {len(rows)} ResNets ({', '.join(kinds)}): {over(pooled.mean)}; a further "
        f"network: {pooled.low:+.3f} to {pooled.high:+.3f}"
    )
    scores = [change / error for change, error in zip(changes, errors, strict=True)]
    return {"verdict": judged, "evidence": evidence, "numbers": {"scores": scores, "pooled": pooled}}


def padding_lowers_imbalance_without_a_pool(given: argparse.Namespace) -> Row:
    """L1 of figure 4 of MobileNetV2, over its trained runs."""
    rows = read(given, "figure4")
    if isinstance(rows, dict):
        return rows
    row = next((row for row in rows if row["model"] == "mobilenet_v2" and "l1_p" in row), None)
    if row is None:
        return missing("trained runs of mobilenet_v2 in figure4 are", "table3.py --models mobilenet_v2")
    evidence = (
        f"change of L1 of mobilenet_v2 ({row['weights']}): {row['l1_difference']:+.3f} +- "
        f"{row['l1_difference_error']:.3f}, p = {row['l1_p']:.2g}"
    )
    score = row["l1_difference"] / row["l1_difference_error"]
    judged = verdict(row["l1_difference"], row["l1_p"], -1)
    return {"verdict": judged, "evidence": evidence, "numbers": {"scores": [score]}}


def pairs_of(row: Row) -> list[tuple[float, float]]:
    """Return before and after of each pair of runs."""
    return list(zip(row["before_values"], row["after_values"], strict=True))


def strata_said(names: Sequence[str], strata: Sequence[Sequence[float]]) -> str:
    """Return the mean and the number of pairs of each stratum."""
    return ", ".join(
        f"{name} {sum(values) / len(values):+.3g} ({len(values)} pairs)"
        for name, values in zip(names, strata, strict=True)
    )


def padding_costs_accuracy(given: argparse.Namespace) -> Row:
    """The new pairs of table 3, stratified by network."""
    rows = read(given, "table3_verdict")
    if isinstance(rows, dict):
        return rows
    rows = [row for row in rows if row.get("variant") == "padded"]
    strata = [[after - before for before, after in pairs_of(row)] for row in rows]
    pooled, names = stratified(strata), [row["model"] for row in rows]
    evidence = f"{over(pooled, ' points')} of test accuracy; {strata_said(names, strata)}"
    numbers = {"pooled": pooled, "strata": dict(zip(names, strata, strict=True))}
    return {"verdict": verdict(pooled.mean, pooled.p, -1), "evidence": evidence, "numbers": numbers}


def padding_speeds_up_small_perturbations(given: argparse.Namespace) -> Row:
    """The new pairs of table 4 in both tasks, stratified by task: logarithms of steps to the target."""
    strata: dict[str, list[float]] = {}
    for name, task in (("table4_verdict", "black or red"), ("table4_shades_verdict", "two shades of red")):
        rows = read(given, name)
        if isinstance(rows, dict):
            return rows
        (row,) = (row for row in rows if row.get("variant") == "padded_fresh")
        strata[task] = [log(after / before) for before, after in pairs_of(row)]
    pooled = stratified(list(strata.values()))
    evidence = (
        f"steps to the target, padded_fresh over original: x {exp(pooled.mean):.2f} ({exp(pooled.low):.2f} "
        f"to {exp(pooled.high):.2f}, p = {pooled.p:.2g}); logarithms: "
        f"{strata_said(list(strata), list(strata.values()))}"
    )
    numbers = {"pooled": pooled, "strata": strata}
    return {"verdict": verdict(pooled.mean, pooled.p, -1), "evidence": evidence, "numbers": numbers}


class Step(NamedTuple):
    """What a step of one pixel changes: predictions, in percent, and the mean top probability."""

    flips: float
    moves: float


# The eight steps of one pixel, (rows, columns).
STEPS = tuple(step for step in itertools.product((-1, 0, 1), repeat=2) if step != (0, 0))


@torch.inference_mode()
def changed_by_a_step(network: nn.Module, images: Tensor) -> Step:
    """Compare a network's outputs for the images' inner part with those a pixel further, in eight ways.

    ``images`` have a margin of one pixel on each side, so that the moved part has real content at its border.
    """
    height, width = images.shape[-2] - 2, images.shape[-1] - 2

    def outputs(row: int, column: int) -> Tensor:
        part = images[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]
        return torch.cat([network(batch) for batch in part.split(64)]).softmax(1)

    here = outputs(0, 0)
    top, index = here.argmax(1), torch.arange(len(here))
    flips, moves = [], []
    for row, column in STEPS:
        there = outputs(row, column)
        flips.append(100 * (top != there.argmax(1)).double().mean())
        moves.append((here - there)[index, top].abs().double().mean())
    return Step(float(torch.stack(flips).mean()), float(torch.stack(moves).mean()))


def padding_steadies_translation(given: argparse.Namespace) -> Row:
    """Predictions for an image and for the image moved by one pixel, of the networks in --runs."""
    finished: dict[str, list[int]] = {}
    for folder in sorted(path.parent for path in given.runs.glob("*/original")):
        seeds = [
            {int(path.parent.name[5:]) for path in (folder / variant).glob("seed-*/weights.pt")}
            for variant in ("original", "padded")
        ]
        if len(set.intersection(*seeds)) > 1:
            finished[folder.name] = sorted(set.intersection(*seeds))
    if not finished:
        return missing("two finished pairs of a network in --runs are", "table3.py")
    if given.data is None:
        return {"verdict": UNTESTED, "evidence": "--data: expected the images of table 3, got none"}
    recipe = find_recipe("caltech101_finetune" if given.scale == "paper" else "caltech101_finetune_cpu")
    source = find_images(given.data)
    test = TrainingImages(source, replace(recipe, size=recipe.size + 2)).prepared(0).test
    images = torch.stack([test[index][0] for index in range(len(test))])
    found: dict[str, dict[str, list[Step]]] = {}
    for model, seeds in finished.items():
        for variant in ("original", "padded"):
            steps = []
            for seed in seeds:
                network = trained_network(given.runs, model, variant, seed, len(source.classes))
                steps.append(changed_by_a_step(network, images))
            found.setdefault(model, {})[variant] = steps
    pooled, strata = {}, {}
    for change in Step._fields:
        strata[change] = [
            [
                getattr(after, change) - getattr(before, change)
                for before, after in zip(*pair.values(), strict=True)
            ]
            for pair in found.values()
        ]
        pooled[change] = stratified(strata[change])
    before = [step.flips for pair in found.values() for step in pair["original"]]
    evidence = (
        f"{len(images)} images, eight steps: {sum(before) / len(before):.2f} % of the predictions change "
        f"before padding; difference {over(pooled['flips'], ' points')}; "
        f"{strata_said(list(found), strata['flips'])}; "
        f"of the top probability {over(pooled['moves'])}"
    )
    judged = verdict(pooled["flips"].mean, pooled["flips"].p, -1)
    return {"verdict": judged, "evidence": evidence, "numbers": {"steps": found, "pooled": pooled}}


class Perturbed(NamedTuple):
    """Pixels changed singly: R, and what became of the output."""

    sensitivity: Tensor
    """R of each pixel, (pixels,)."""
    changes: Tensor
    """Of the output by one fixed step, (pixels, images)."""
    amplitudes: Tensor
    """Random steps, (pixels, images)."""
    by_amplitude: Tensor
    """Changes of the output by those, (pixels, images)."""


@cache  # two claims rest on it
def perturbed(n_pixels: int, fixed_step: float) -> Perturbed:
    """Change single pixels of photographs that did not make R, and measure the mean output."""
    model = demo_model().eval()
    images = sample_images(64, size=64)
    # Photograph k modulo 8: four make the map, the other four are changed.
    mine = torch.arange(64) % 8 < 4
    R = DeadPixelMap(model).attribute(images[mine], target="mean")  # noqa: N806
    others = images[~mine]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randperm(R.numel(), generator=generator)[:n_pixels]
    amplitudes = fixed_step * (2 * torch.rand(len(pixels), len(others), generator=generator) - 1)
    changes, by_amplitude = [], []
    with torch.inference_mode():
        before = model(others).mean(1)
        for pixel, steps in zip(pixels.tolist(), amplitudes, strict=True):
            y, x = divmod(pixel, R.shape[1])
            for step, kept in ((torch.full_like(steps, fixed_step), changes), (steps, by_amplitude)):
                changed = others.clone()
                changed[:, :, y, x] += step[:, None]
                kept.append(model(changed).mean(1) - before)
    return Perturbed(R.flatten()[pixels], torch.stack(changes), amplitudes, torch.stack(by_amplitude))


def perturbation_follows_sensitivity(given: argparse.Namespace) -> Row:
    """Size of the output's change by a step of single pixels, beside R of other photographs (eq. 12)."""
    found = perturbed(given.pixels, given.step)
    R, rises = found.sensitivity, found.changes.clamp(min=0).mean(1)  # noqa: N806
    # R counts what raises the output; the size of the change counts falls as well.
    tests = [spearmanr(R, values) for values in (rises, found.changes.abs().mean(1))]
    size, amplitude = found.by_amplitude.abs().flatten(), found.amplitudes.abs()
    with_r, alone = (
        spearmanr(predicted.flatten(), size).statistic for predicted in (amplitude * R[:, None], amplitude)
    )
    evidence = (
        f"demo network, mean output, {len(R)} pixels of 64 x 64 changed by {given.step:g} standard "
        f"deviations in photographs that did not make R: Spearman's correlation of R with the mean rise "
        f"{tests[0].statistic:+.2f} (p = {tests[0].pvalue:.2g}), with the mean absolute change "
        f"{tests[1].statistic:+.2f} (p = {tests[1].pvalue:.2g}); single changes by random amplitudes: "
        f"size with |amplitude| R {with_r:+.3f}, with |amplitude| alone {alone:+.3f}"
    )
    judged = agreed(verdict(test.statistic, test.pvalue, 1) for test in tests)
    numbers = {"sensitivity": R.tolist(), "effect": rises.tolist(), "label": "mean rise of the output"}
    numbers |= {"correlation": tests[0].statistic, "correlation_of_change": tests[1].statistic}
    numbers |= {"amplitude_and_r": with_r, "amplitude": alone}
    return {"verdict": judged, "evidence": evidence, "numbers": numbers}


def perturbation_has_the_sign_of_equation_12(given: argparse.Namespace) -> Row:
    """Whether a pixel made brighter raises the output, the more the larger R."""
    found = perturbed(given.pixels, given.step)
    mean = found.changes.mean(1)
    test = spearmanr(found.sensitivity, mean)
    moved = found.amplitudes * found.by_amplitude
    share = 100 * float((moved > 0).double().mean())
    evidence = (
        f"the same pixels: Spearman's correlation of R with the mean signed change {test.statistic:+.3f} "
        f"(p = {test.pvalue:.2g}); {share:.1f} % of single changes have the sign of the amplitude"
    )
    numbers = {"sensitivity": found.sensitivity.tolist(), "effect": mean.tolist()}
    numbers |= {"label": "mean signed change of the output", "correlation": test.statistic, "share": share}
    return {"verdict": verdict(test.statistic, test.pvalue, 1), "evidence": evidence, "numbers": numbers}


CLAIMS: Mapping[str, tuple[str, Callable[[argparse.Namespace], Row]]] = {
    "size": ("The size of the receptive field does not describe accuracy", size_does_not_describe_accuracy),
    "depth": ("The size of the effective receptive field saturates with depth", size_saturates_with_depth),
    "imbalance_resnets": (
        "Kernel padding lowers the imbalance of ResNets",
        padding_lowers_imbalance_of_resnets,
    ),
    "imbalance_no_pool": (
        "Kernel padding lowers the imbalance of a network without a pool",
        padding_lowers_imbalance_without_a_pool,
    ),
    "accuracy": ("Kernel padding costs accuracy on general classification", padding_costs_accuracy),
    "speed": ("Kernel padding speeds up tasks of small perturbations", padding_speeds_up_small_perturbations),
    "translation": (
        "After padding, predictions change less by a step of a pixel",
        padding_steadies_translation,
    ),
    "perturbation_size": (
        "The size of a changed pixel's effect follows its sensitivity R",
        perturbation_follows_sensitivity,
    ),
    "perturbation_sign": (
        "The sign of a changed pixel's effect follows equation 12",
        perturbation_has_the_sign_of_equation_12,
    ),
}


# %% [markdown]
# One panel for each claim that was tested.


# %%
def draw(ax: Axes, name: str, row: Row) -> None:
    """Draw the numbers that a verdict rests on."""
    numbers = row.get("numbers")
    if numbers is None:
        ax.text(0.5, 0.5, "no data", ha="center", va="center")
        ax.set_axis_off()
    elif name == "size":
        for height, test in enumerate(numbers.values()):
            ax.plot((test["low"], test["high"]), (height, height), color="C0")
            ax.plot(test["correlation"], height, "o", color="C0")
        ax.axvline(STRONG, color="0.5", linestyle="--")
        ax.set_yticks(range(len(numbers)), [label.replace(", ", "\n") for label in numbers], fontsize=7)
        ax.set(xlabel="rank correlation with accuracy, 95 %", xlim=(-1, 1))
    elif name == "depth":
        for kind, sizes in numbers["sizes"].items():
            ax.plot([DEPTH[model] for model in sizes], list(sizes.values()), marker="o", label=kind)
        ax.set(xlabel="layers", ylabel="sigma (pixels)", ylim=(0, None))
        ax.legend(fontsize=7)
    elif name.startswith("imbalance"):
        ax.plot(numbers["scores"], "o")
        ax.axhline(0, color="k", linewidth=0.8)
        ax.set(xlabel="index of a network", ylabel="difference / its standard error")
    elif name in ("accuracy", "speed"):
        for place, values in enumerate(numbers["strata"].values()):
            ax.plot([place] * len(values), values, ".", color="0.6")
            ax.plot(place, sum(values) / len(values), "o", color="C0")
        pooled = numbers["pooled"]
        end = len(numbers["strata"])
        ax.errorbar(
            end, pooled.mean, [[pooled.mean - pooled.low], [pooled.high - pooled.mean]], fmt="o", color="C3"
        )
        ax.axhline(0, color="k", linewidth=0.8)
        labels = [label.replace(" or ", "\nor ").replace(" of ", "\nof ") for label in numbers["strata"]]
        ax.set_xticks(range(end + 1), [*labels, "together,\n95 %"])
        ax.set_xlim(-0.5, end + 0.5)
        unit = "points" if name == "accuracy" else "logarithm of steps"
        ax.set_ylabel(f"padded - original ({unit})")
    elif name == "translation":
        ticks = []
        for model, pair in numbers["steps"].items():
            for variant, steps in pair.items():
                ax.plot([len(ticks)] * len(steps), [step.flips for step in steps], "o")
                ticks.append(f"{model}\n{variant}")
        ax.set_xticks(range(len(ticks)), ticks, fontsize=7)
        ax.set(xlim=(-0.5, len(ticks) - 0.5), ylabel="predictions changed by a pixel (%)")
    else:
        ax.plot(numbers["sensitivity"], numbers["effect"], ".")
        ax.set(xlabel="R", ylabel=numbers["label"])
    ax.set_title(f"{name}: {row['verdict']}", fontsize=10)


def main(arguments: list[str] | None = None) -> None:
    """Judge every claim, print the verdicts, write CSV, JSON and figure."""
    parser = options(__doc__ or "The claims of the paper.", "claims", data="Caltech-101, for translation")
    parser.add_argument("--claims", nargs="+", choices=tuple(CLAIMS), default=tuple(CLAIMS), metavar="NAME")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("paper-results"),
        help="of the other scripts (default: %(default)s)",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("paper-results", "fine-tuned"), help="default: %(default)s"
    )
    parser.add_argument("--pixels", type=int, default=512, help="changed singly (default: %(default)s)")
    parser.add_argument("--step", type=float, default=0.5, help="of that change (default: %(default)s)")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in given.claims:
        statement, judge = CLAIMS[name]
        rows.append({"claim": name, "statement": statement, "rule": RULES[name]} | judge(given))
        print(f"{statement}: {rows[-1]['verdict'].upper()}\n    {rows[-1]['evidence']}", flush=True)
    print_table([["claim", "verdict"], *([row["claim"], row["verdict"]] for row in rows)])
    figure = Figure(figsize=(4.2 * min(len(rows), 4), 3.6 * -(-len(rows) // 4)), layout="constrained")
    for place, row in enumerate(rows):
        ax = figure.add_subplot(-(-len(rows) // 4), min(len(rows), 4), place + 1)
        draw(ax, row["claim"], row)
    settings = {"claims": list(given.claims), "significant": SIGNIFICANT}
    settings |= {"strong": STRONG, "pixels": given.pixels, "step": given.step, "results": given.results.name}
    settings |= {"runs": given.runs.name, "data": None if given.data is None else given.data.name}
    write_result(given.output, "claims", settings, rows, figure)


if __name__ == "__main__":
    main()
