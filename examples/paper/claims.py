# %% [markdown]
# The claims of sections 3 and 5, each with its data and a verdict.
#
# A claim *holds* where an effect in its direction is significant (p below 0.05), *does not hold* where one
# in the other direction is, and is *not decided* in between. It *cannot be tested here* where what it needs
# is not there. Where a claim is measured in several ways or on several networks, all must agree; imbalance
# is claimed of every network, so one that rises refutes it. That there is no relation is no effect: it
# holds where the 95 % interval leaves out a strong one. Claims about tables read the results of their
# scripts; two claims are measured here.

# %%
from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from paper import TABLE_1, TABLE_2, Row, options, print_table, write_result
from runs import trained_network
from scipy.stats import norm, pearsonr, rankdata, spearmanr
from torch import Tensor, nn

from erfattr import DeadPixelMap, demo_model, sample_images
from erfattr.training.comparison import PairedDifference
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.recipes import find_recipe

SIGNIFICANT = 0.05
HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "not decided", "cannot be tested here"
# A rank correlation below this explains less than half of the variance of the ranks.
STRONG = 0.5**0.5
# Convolutions of the networks of one kind, by which depth is counted.
DEPTH = {"resnet50": 50, "resnet101": 101, "resnet152": 152}


def verdict(effect: float, p: float | None, claimed: int) -> str:
    """Judge an effect whose claimed sign is +1 or -1; no p: all values were equal, and the sign decides."""
    if p is not None and p >= SIGNIFICANT:
        return OPEN
    return HOLDS if effect * claimed > 0 else FAILS


def agreed(verdicts: Iterable[str]) -> str:
    """Several measurements of one claim decide it where they agree."""
    different = set(verdicts)
    return different.pop() if len(different) == 1 else OPEN


def missing(what: str, command: str) -> Row:
    """Say what a claim would need."""
    said = f"{what} not there; python examples/paper/{command} --data FOLDER makes them"
    return {"verdict": UNTESTED, "evidence": said}


def read(given: argparse.Namespace, name: str) -> list[Row] | Row:
    """Return the rows that a script wrote, or a row that says they are missing."""
    path = given.results / name / f"{name}.json"
    if not path.is_file():
        return missing(f"the results {path.name} are", f"{name}.py")
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
    for row in rows:
        if row["model"] in DEPTH and "sigma_x" in row:
            kind = "trained" if "Weights." in row["weights"] else "random weights, measured here"
            kinds.setdefault(kind, {})[row["model"]] = (row["sigma_x"] + row["sigma_y"]) / 2
    ratios = {
        kind: sizes["resnet152"] / sizes["resnet50"]
        for kind, sizes in kinds.items()
        if len(sizes) == len(DEPTH)
    }
    said = "; ".join(f"{kind}: {ratio:.2f}" for kind, ratio in ratios.items())
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
def padding_lowers_imbalance(given: argparse.Namespace) -> Row:
    """Every L1 and L2 of figure 4: all must fall, and none may rise."""
    rows = read(given, "figure4")
    if isinstance(rows, dict):
        return rows
    scores, verdicts = [], []
    for row in rows:
        for n in (1, 2):
            scores.append(row[f"l{n}_difference"] / row[f"l{n}_difference_error"])
            # Over runs by the t-test of their pairs; over the images of one network by the normal law.
            p = row[f"l{n}_p"] if f"l{n}_p" in row else 2 * norm.sf(abs(scores[-1]))
            verdicts.append(verdict(scores[-1], p, -1))
    judged = FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else OPEN
    kinds = sorted({row["weights"].split(",")[0] for row in rows})
    fell = sum(score < 0 for score in scores)
    said = (
        f"{fell} of {len(scores)} indices of {len(rows)} networks fell, {verdicts.count(HOLDS)} significantly"
    )
    unclear = [
        row["model"]
        for row, pair in zip(rows, zip(verdicts[::2], verdicts[1::2], strict=True), strict=True)
        if OPEN in pair
    ]
    if unclear:
        said += f"; not decided: {', '.join(unclear)}"
    return {"verdict": judged, "evidence": f"{said} ({', '.join(kinds)})", "numbers": {"scores": scores}}


def judged_by_pairs(given: argparse.Namespace, table: str, claimed: int, unit: str) -> Row:
    """Take the paired differences of a table; networks must agree."""
    rows = read(given, table)
    if isinstance(rows, dict):
        return rows
    rows = [row for row in rows if "variant" in row]
    judged = agreed(verdict(row["difference"], row["p"], claimed) for row in rows)
    said = "; ".join(
        f"{row['model']}, {row['variant']}: {row['difference']:+.2f} +- {row['difference_error']:.2f} {unit}"
        f", {row['runs']} runs" + ("" if row["p"] is None else f", p = {row['p']:.2g}")
        for row in rows
    )
    numbers = [{key: row[key] for key in ("model", "variant", "runs", "difference", "p")} for row in rows]
    return {"verdict": judged, "evidence": said, "numbers": numbers}


def padding_costs_accuracy(given: argparse.Namespace) -> Row:
    """The paired differences of table 3."""
    return judged_by_pairs(given, "table3", -1, "points")


def padding_speeds_up_small_perturbations(given: argparse.Namespace) -> Row:
    """The paired differences of table 4."""
    return judged_by_pairs(given, "table4", -1, "epochs")


class Step(NamedTuple):
    """What a step of one pixel changes: predictions, in percent, and the mean top probability."""

    flips: float
    moves: float


@torch.inference_mode()
def changed_by_a_step(network: nn.Module, images: Tensor) -> Step:
    """Compare a network's outputs for images with those for the images moved by (1, 1)."""
    here, there = (
        torch.cat([network(batch) for batch in part.split(64)]).softmax(1)
        for part in (images[..., :-1, :-1], images[..., 1:, 1:])
    )
    top = here.argmax(1)
    index = torch.arange(len(top))
    return Step(
        flips=100 * float((top != there.argmax(1)).double().mean()),
        moves=float((here - there)[index, top].abs().double().mean()),
    )


def padding_steadies_translation(given: argparse.Namespace) -> Row:
    """Predictions for an image and for the image moved by one pixel, of table 3's networks."""
    finished = [
        {int(path.parent.name[5:]) for path in (given.runs / given.model / variant).glob("seed-*/weights.pt")}
        for variant in ("original", "padded")
    ]
    seeds = sorted(set.intersection(*finished))
    if len(seeds) < 2:
        return missing(
            f"two finished pairs of {given.model} in --runs are", f"table3.py --models {given.model}"
        )
    if given.data is None:
        return {"verdict": UNTESTED, "evidence": "--data: expected the images of table 3, got none"}
    recipe = find_recipe("caltech101_finetune" if given.scale == "paper" else "caltech101_finetune_cpu")
    source = find_images(given.data)
    # One pixel larger, so that the moved image has real content at its border.
    test = TrainingImages(source, replace(recipe, size=recipe.size + 1)).prepared(0).test
    images = torch.stack([test[index][0] for index in range(len(test))])
    found: dict[str, list[Step]] = {}
    for variant in ("original", "padded"):
        for seed in seeds:
            network = trained_network(given.runs, given.model, variant, seed, len(source.classes))
            found.setdefault(variant, []).append(changed_by_a_step(network, images))
    flips, moves = (
        PairedDifference.of(
            *([getattr(step, change) for step in found[name]] for name in ("padded", "original"))
        )
        for change in Step._fields
    )
    before = sum(step.flips for step in found["original"]) / len(seeds)
    evidence = (
        f"{given.model}, {len(seeds)} runs, {len(images)} images moved by (1, 1): {before:.2f} % of the "
        f"predictions change before padding; difference {flips} points; of the top probability {moves}"
    )
    judged = agreed(verdict(change.difference.value, change.p_value, -1) for change in (flips, moves))
    return {"verdict": judged, "evidence": evidence, "numbers": found}


def perturbation_follows_sensitivity(given: argparse.Namespace) -> Row:
    """Change of the mean output by a step of single pixels, beside R of other photographs (eq. 12)."""
    model = demo_model().eval()
    images = sample_images(64, size=64)
    # Photograph k modulo 8: four make the map, the other four are changed.
    mine = torch.arange(64) % 8 < 4
    R = DeadPixelMap(model).attribute(images[mine], target="mean")  # noqa: N806
    others = images[~mine]
    pixels = torch.randperm(R.numel(), generator=torch.Generator().manual_seed(0))[: given.pixels]
    rises, changes = [], []
    with torch.inference_mode():
        before = model(others).mean(1)
        for pixel in pixels.tolist():
            y, x = divmod(pixel, R.shape[1])
            changed = others.clone()
            changed[:, :, y, x] += given.step
            change = model(changed).mean(1) - before
            rises.append(change.clamp(min=0).mean())
            changes.append(change.abs().mean())
    effect, sensitivity = torch.stack(rises), R.flatten()[pixels]
    # R counts what raises the output; the size of the change counts falls as well.
    tests = [spearmanr(sensitivity, values) for values in (effect, torch.stack(changes))]
    evidence = (
        f"demo network, mean output, {len(pixels)} pixels of 64 x 64 changed by {given.step:g} standard "
        f"deviations in photographs that did not make R: Spearman's correlation of R with the mean rise "
        f"{tests[0].statistic:+.2f} (p = {tests[0].pvalue:.2g}), with the mean absolute change "
        f"{tests[1].statistic:+.2f} (p = {tests[1].pvalue:.2g})"
    )
    judged = agreed(verdict(test.statistic, test.pvalue, 1) for test in tests)
    numbers = {"sensitivity": sensitivity.tolist(), "effect": effect.tolist()}
    numbers |= {"correlation": tests[0].statistic, "correlation_of_change": tests[1].statistic}
    return {"verdict": judged, "evidence": evidence, "numbers": numbers}


CLAIMS: Mapping[str, tuple[str, Callable[[argparse.Namespace], Row]]] = {
    "size": ("The size of the receptive field does not describe accuracy", size_does_not_describe_accuracy),
    "depth": ("The size of the effective receptive field saturates with depth", size_saturates_with_depth),
    "imbalance": ("Kernel padding lowers the imbalance", padding_lowers_imbalance),
    "accuracy": ("Kernel padding costs accuracy on general classification", padding_costs_accuracy),
    "speed": ("Kernel padding speeds up tasks of small perturbations", padding_speeds_up_small_perturbations),
    "translation": (
        "After padding, predictions change less by a step of a pixel",
        padding_steadies_translation,
    ),
    "perturbation": (
        "The effect of a changed pixel follows its sensitivity R",
        perturbation_follows_sensitivity,
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
    elif name == "imbalance":
        ax.plot(numbers["scores"], "o")
        ax.axhline(0, color="k", linewidth=0.8)
        ax.set(xlabel="index of a network", ylabel="difference / its standard error")
    elif name in ("accuracy", "speed"):
        labels = [f"{pair['model']}\n{pair['variant']}" for pair in numbers]
        ax.bar(labels, [pair["difference"] for pair in numbers])
        ax.axhline(0, color="k", linewidth=0.8)
        ax.set_ylabel("difference, padded - original")
    elif name == "translation":
        for column, steps in enumerate(numbers.values()):
            ax.plot([column] * len(steps), [step.flips for step in steps], "o")
        ax.set_xticks(range(len(numbers)), list(numbers))
        ax.set(xlim=(-0.5, len(numbers) - 0.5), ylabel="predictions changed by a pixel (%)")
    else:
        ax.plot(numbers["sensitivity"], numbers["effect"], ".")
        ax.set(xlabel="R", ylabel="mean rise of the output")
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
    parser.add_argument("--model", default="demo", help="of table 3, for translation (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=512, help="changed singly (default: %(default)s)")
    parser.add_argument("--step", type=float, default=0.5, help="of that change (default: %(default)s)")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in given.claims:
        statement, judge = CLAIMS[name]
        rows.append({"claim": name, "statement": statement} | judge(given))
        print(f"{statement}: {rows[-1]['verdict'].upper()}\n    {rows[-1]['evidence']}", flush=True)
    print_table([["claim", "verdict"], *([row["claim"], row["verdict"]] for row in rows)])
    figure = Figure(figsize=(4.2 * min(len(rows), 4), 3.6 * -(-len(rows) // 4)), layout="constrained")
    for place, row in enumerate(rows):
        ax = figure.add_subplot(-(-len(rows) // 4), min(len(rows), 4), place + 1)
        draw(ax, row["claim"], row)
    settings = {"claims": list(given.claims), "model": given.model, "significant": SIGNIFICANT}
    settings |= {"strong": STRONG, "pixels": given.pixels, "step": given.step, "results": given.results.name}
    settings |= {"runs": given.runs.name, "data": None if given.data is None else given.data.name}
    write_result(given.output, "claims", settings, rows, figure)


if __name__ == "__main__":
    main()
