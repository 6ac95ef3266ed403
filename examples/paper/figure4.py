# %% [markdown]
# Figure 4: imbalance of the output's map before and after kernel padding.
#
# As in the paper without a correction, where the map's own sampling noise counts as imbalance, and beside it
# without that noise, with standard errors. The paper shows bars and no numbers; its claim is that both
# indices fall in all nine networks. Zeros change nothing before they are trained: where there are no trained
# networks, both are freshly drawn, the padded one with even kernels from the start. Errors are over runs of
# trained networks, and over images of one draw of weights of the others.

# %%
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from paper import TABLE_1, Row, options, print_table, resumed_rows, write_result
from runs import comparison_record

from erfattr import DeadPixelMap, ImageFiles, ImageLoader, compare_imbalance, load_model, sample_images
from erfattr.remedies.variants import make_variant

# What table3.py trains, as columns: before and after the change of the kernels.
TRAINED = {"before": "original", "after": "padded"}
SMALL = ("resnet18", "resnet34", "resnet50")


# %%
def measured(name: str, images: Any, count: int, seed: int, device: str) -> Row:
    """Measure one network before and after, over the same images."""
    original, info = load_model(name, "none", seed=seed)
    maps = {
        variant: DeadPixelMap(make_variant(variant, original, seed).to(device).eval()).attribute(
            images, "mean", max_examples=count, show_progress=True, return_statistics=True
        )[1]
        for variant in ("original", "padded_fresh")
    }
    row: Row = {"model": name, "weights": info.weights, "images": maps["original"].n_images}
    for order in (1, 2):
        change = compare_imbalance(maps["padded_fresh"], maps["original"], order, paired=True)
        for when, estimate in (("before", change.second), ("after", change.first)):
            row[f"l{order}_{when}_uncorrected"] = estimate.uncorrected
            row[f"l{order}_{when}"] = estimate.value
            row[f"l{order}_{when}_error"] = estimate.standard_error
        row[f"l{order}_difference"] = change.difference
        row[f"l{order}_difference_error"] = change.standard_error
    return row


def trained(name: str, record: Mapping[str, Any]) -> Row:
    """Take the pixel use of trained networks from the record of a comparison."""
    uses = {when: record["variants"][variant]["after"] for when, variant in TRAINED.items()}
    row: Row = {
        "model": name,
        "weights": f"trained, {record['recipe']['name']}, {len(record['seeds'])} runs",
        "images": uses["before"][0]["n_images"],
    }
    for order in (1, 2):
        key = f"L{order}, after training"
        for when, variant in TRAINED.items():
            mean = record["means"][key][variant]
            row[f"l{order}_{when}_uncorrected"] = fmean(use[f"l{order}"]["uncorrected"] for use in uses[when])
            row[f"l{order}_{when}"] = mean["value"]
            row[f"l{order}_{when}_error"] = mean["standard_error"]
            begun = record["means"][f"L{order}, before training"][variant]
            row[f"l{order}_begun_{when}"] = begun["value"]
        pairs = record["differences"][key][TRAINED["after"]]
        row[f"l{order}_difference"] = pairs["difference"]["value"]
        row[f"l{order}_difference_error"] = pairs["difference"]["standard_error"]
        row[f"l{order}_p"] = pairs["p_value"]
    return row


def line(row: Row) -> list[str]:
    """Both indices before and after, without the noise; in brackets as they are with it."""
    cells = [row["model"], row["weights"], str(row["images"])]
    for order in (1, 2):
        for when in ("before", "after"):
            key = f"l{order}_{when}"
            cells.append(f"{row[key]:.3f} +- {row[f'{key}_error']:.3f} ({row[f'{key}_uncorrected']:.3f})")
        key = f"l{order}_difference"
        cells.append(f"{row[key]:+.3f} +- {row[f'{key}_error']:.3f}")
    return cells


def drawn(rows: list[Row]) -> Figure:
    """Draw bars as in the paper, and the value without noise as a dot with its error."""
    figure = Figure(figsize=(max(7, 1.5 + 1.1 * len(rows)), 6.4), layout="constrained")
    for ax, order in zip(figure.subplots(2, 1, sharex=True), (1, 2), strict=True):
        for side, when, color in ((-0.2, "before", "C0"), (0.2, "after", "C1")):
            places = [place + side for place in range(len(rows))]
            key = f"l{order}_{when}"
            bars = [row[f"{key}_uncorrected"] for row in rows]
            ax.bar(places, bars, 0.36, color=color, alpha=0.45, label=f"{when}, as the map is")
            values, errors = [row[key] for row in rows], [row[f"{key}_error"] for row in rows]
            label = f"{when}, without its noise"
            ax.errorbar(places, values, errors, fmt="o", color=color, markeredgecolor="k", label=label)
        ax.set_ylabel(f"L{order} of R / mean(R)")
    labels = [f"{row['model']}\n{row['weights'].split(',')[0]}" for row in rows]
    ax.set_xticks(range(len(rows)), labels, fontsize=8, rotation=20, ha="right")
    figure.axes[0].legend(fontsize=8, ncols=2)
    figure.axes[0].set_title("imbalance before and after kernel padding", fontsize=10)
    return figure


# %%
def main(arguments: list[str] | None = None) -> None:
    """Measure every network, print the rows, write CSV, JSON and figure."""
    parser = options(__doc__ or "Figure 4 of the paper.", "figure4", data="folder of photographs")
    parser.add_argument("--models", nargs="+", choices=tuple(TABLE_1), default=None, metavar="NAME")
    parser.add_argument("--count", type=int, default=None, help="images (default: 500; 48 at scale cpu)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument(
        "--runs", type=Path, default=Path("paper-results", "fine-tuned"), help="default: %(default)s"
    )
    parser.add_argument(
        "--trained",
        nargs="*",
        default=None,
        metavar="NAME",
        help="networks whose runs by table3.py lie in --runs: they come first (default: all that do)",
    )
    given = parser.parse_args(arguments)
    finished = sorted(path.parent.name for path in given.runs.glob("*/comparison.json"))
    names = finished if given.trained is None else given.trained
    rows = [trained(name, comparison_record(given.runs, name, "table3.py")) for name in names]
    models = given.models or (tuple(TABLE_1) if given.scale == "paper" else SMALL)
    count = given.count or (500 if given.scale == "paper" else 48)
    images = sample_images() if given.data is None else ImageFiles(given.data, 224, count)
    source = "the embedded images" if given.data is None else f"photographs in {given.data.name}"
    settings = {"images": source, "count": count, "size": 224, "seed": given.seed}
    loader = ImageLoader(images, batch_size=8)
    makers = {name: partial(measured, name, loader, count, given.seed, given.device) for name in models}
    rows += resumed_rows(given.output, settings, makers)
    headings = ["model", "weights", "images"]
    headings += [f"L{order} {what}" for order in (1, 2) for what in ("before", "after", "difference")]
    print(f"{source}; in brackets with the sampling noise, as in the paper")
    print_table([headings, *map(line, rows)])
    fallen = sum(row[f"l{order}_difference"] < 0 for row in rows for order in (1, 2))
    print(f"{fallen} of {2 * len(rows)} indices are smaller after padding (paper: all of 18)")
    write_result(given.output, "figure4", settings, rows, drawn(rows))


if __name__ == "__main__":
    main()
