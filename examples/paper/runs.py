"""What the tables and figures about trained networks share: options, networks, and folders of runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from matplotlib.figure import Figure
from paper import Row, beside, options
from torch import nn

from erfattr import load_model
from erfattr.models.heads import replace_head
from erfattr.remedies.variants import make_variant
from erfattr.training.comparison import TrainingComparison, compare_training
from erfattr.training.data import TrainingImages, find_images
from erfattr.training.hardware import PRECISIONS, Hardware
from erfattr.training.recipes import Recipe, find_recipe
from erfattr.training.runs import TrainingRun
from erfattr.training.tasks import task_of


def training_options(
    description: str, output: str, *, runs: str, seeds: int, weights: bool
) -> argparse.ArgumentParser:
    """Return a parser of the options of a script that trains; ``runs`` names the folder its runs lie in."""
    parser = options(description, output, weights=weights, data="Caltech-101, or any folder of class folders")
    parser.add_argument("--models", nargs="+", default=None, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=seeds, help="number of runs (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="the others follow (default: %(default)s)")
    parser.add_argument("--recipe", default=None, help="of erfattr compare (default: that of the scale)")
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare images")
    parser.add_argument(
        "--map-images", type=int, default=256, help="of a run's maps, before and after (default: %(default)s)"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("paper-results", runs),
        help="folder of the runs, a folder for each network: what is finished there is read and not repeated "
        "(default: %(default)s)",
    )
    return parser


@dataclass(frozen=True)
class Runs:
    """Runs of one recipe over one set of images, a folder for each network."""

    images: TrainingImages
    folder: Path
    hardware: Hardware
    seeds: range
    weights: str
    map_images: int

    @classmethod
    def of(cls, given: argparse.Namespace, recipe: Recipe, weights: str) -> Runs:
        """Read the images that the options name."""
        if given.data is None:
            sys.exit("--data: expected a folder of images, such as Caltech-101; got none")
        if given.seeds < 2:
            sys.exit(f"--seeds: expected 2 or more, got {given.seeds}: one run has no standard error")
        accelerator = "cpu" if given.device == "cpu" else "gpu"
        return cls(
            TrainingImages(find_images(given.data), recipe),
            given.runs,
            Hardware(accelerator, 1, given.precision, given.workers),
            range(given.first_seed, given.first_seed + given.seeds),
            weights,
            given.map_images,
        )

    def built(self, name: str, seed: int) -> tuple[nn.Module, str]:
        """Return a network with an output for each class, and what its weights are.

        Raises:
            FileNotFoundError: its weights cannot be had.
        """
        weights = None if name == "demo" and self.weights != "none" else self.weights
        model, info = load_model(name, weights, seed=seed)
        words = "random initialisation" if info.seed is not None else info.weights
        return replace_head(model, len(self.images.prepared(0).classes), seed), words

    def compare(self, name: str, variants: list[str]) -> TrainingComparison:
        """Train a network and its variants, or read what is finished."""
        print(f"{name}: {', '.join(variants)}, {len(self.seeds)} runs each", flush=True)
        return compare_training(
            lambda seed: self.built(name, seed)[0],
            variants,
            self.images,
            self.seeds,
            self.folder / name,
            n_map_images=self.map_images,
            hardware=self.hardware,
            progress=_said,
        )

    def paired_rows(self, name: str, variants: list[str]) -> tuple[list[Row], TrainingComparison | None]:
        """Return a row for each variant beside the first; where weights are missing, a row that says so."""
        try:
            words = self.built(name, self.seeds[0])[1]
        except FileNotFoundError:
            return [{"model": name, "weights": f"{self.weights} not available"}], None
        comparison = self.compare(name, variants)
        means = comparison.rows()[comparison.outcome]
        before = means[variants[0]]
        rows: list[Row] = []
        for variant in variants[1:]:
            after, change = means[variant], comparison.differences()[comparison.outcome][variant]
            row: Row = {"model": name, "weights": words, "variant": variant, "runs": len(self.seeds)}
            for when, mean in (("before", before), ("after", after), ("difference", change.difference)):
                row |= {when: mean.value, f"{when}_error": mean.standard_error}
            row |= {"p": change.p_value, "rank_p": change.rank_p_value}
            row |= {"before_values": list(before.values), "after_values": list(after.values)}
            rows.append(row)
        return rows, comparison

    def settings(self) -> dict[str, Any]:
        """Return what all rows depend on."""
        return {
            "recipe": self.images.recipe.numbers(),
            "images": f"{len(self.images.source.names)} images of {len(self.images.source.classes)} classes",
            "seeds": list(self.seeds),
            "weights": self.weights,
            "precision": self.hardware.precision,
        }


def paired_line(row: Row, paper: Mapping[str, tuple[float, float]], digits: int) -> list[str]:
    """Return the cells of a row of `Runs.paired_rows` beside the paper's; PAIRED_HEADINGS stands above."""
    if "variant" not in row:
        return [row["model"], row["weights"], *["-"] * 5]
    # The paper's networks are padded with zeros; what is drawn anew is held against nothing.
    known = paper.get(row["model"]) if row["variant"] == "padded" else None
    numbers = (None, None, None) if known is None else (*known, known[1] - known[0])
    cells = [
        f"{beside(row[when], number, digits)} +- {row[f'{when}_error']:.{digits}f}"
        for when, number in zip(("before", "after", "difference"), numbers, strict=True)
    ]
    p = "-" if row["p"] is None else f"{row['p']:.2g}, by ranks {row['rank_p']:.2g}"
    return [row["model"], row["weights"], row["variant"], *cells, p]


PAIRED_HEADINGS = ["model", "weights", "variant", "before", "after", "difference", "p"]


def draw_pairs(rows: Sequence[Row], outcome: str) -> Figure:
    """Draw every pair of runs as a line from before to after, and the means."""
    rows = [row for row in rows if "variant" in row]
    figure = Figure(figsize=(max(4.0, 2.6 * len(rows)), 4.2), layout="constrained")
    axes = figure.subplots(1, max(len(rows), 1), sharey=True, squeeze=False)[0]
    for ax, row in zip(axes, rows, strict=False):
        for pair in zip(row["before_values"], row["after_values"], strict=True):
            ax.plot((0, 1), pair, color="0.6", marker=".", linewidth=1)
        means, errors = (row["before"], row["after"]), (row["before_error"], row["after_error"])
        ax.errorbar((0, 1), means, errors, color="C3", marker="o", linewidth=2, capsize=3)
        ax.set_xticks((0, 1), ("before", row["variant"]))
        ax.set_xlim(-0.3, 1.3)
        ax.set_title(f"{row['model']}, {row['runs']} runs", fontsize=10)
    axes[0].set_ylabel(outcome)
    return figure


def comparison_record(folder: Path, name: str, command: str) -> Mapping[str, Any]:
    """Return the record of a finished comparison, or say what makes it."""
    path = folder / name / "comparison.json"
    if not path.is_file():
        sys.exit(f"--runs: expected finished runs of {name} in {folder / name}; {command} makes them")
    record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def trained_network(folder: Path, name: str, variant: str, seed: int, classes: int) -> nn.Module:
    """Return a network as a run left it."""
    network = make_variant(variant, replace_head(load_model(name, "none")[0], classes), seed)
    weights = torch.load(folder / name / variant / f"seed-{seed}" / "weights.pt", weights_only=True)
    network.load_state_dict(weights)
    return network.eval()


def chosen_recipe(
    given: argparse.Namespace,
    paper: str,
    cpu: str,
    always: Mapping[str, Any] = MappingProxyType({}),
    **changes: Any,
) -> Recipe:
    """Return the recipe of the scale, or the one that was asked for; ``always`` changes either of them."""
    if given.recipe is not None:
        return find_recipe(given.recipe, **always)
    return find_recipe(paper, **always) if given.scale == "paper" else find_recipe(cpu, **changes, **always)


def _said(variant: str, run: TrainingRun) -> None:
    print(f"seed {run.seed}, {variant}: {task_of(run.recipe).words(run)}", flush=True)
