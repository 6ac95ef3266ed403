# %% [markdown]
# Figure 1: effective receptive fields before (top) and after kernel padding (bottom): of a unit of the 7x7
# map, of a unit of the 14x14 map, and of the output.
#
# Zeros change nothing before they are trained, so both rows are of networks that table3.py fine-tuned. Where
# there are none, and with `--weights none`, they are freshly initialised, with even kernels at the bottom.

# %%
from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure
from paper import Row, options, print_table, write_result
from runs import trained_network

from erfattr import (
    FeatureUnit,
    ImageFiles,
    ImageLoader,
    ModelOutput,
    SensitivityMaps,
    corrected_imbalance,
    load_model,
    sample_images,
)
from erfattr.remedies.variants import make_variant
from erfattr.report.map_plots import plot_map

# Of each network the last map of 7x7 and of 14x14.
LAYERS = {"mobilenet_v2": ("features", "features.13")}
RESNET_LAYERS = ("layer4", "layer3")


# %%
def main(arguments: list[str] | None = None) -> None:
    """Draw the six maps; print and write L1 and L2 of each without its sampling noise."""
    parser = options(__doc__ or "Figure 1 of the paper.", "figure1", data="folder of photographs")
    parser.add_argument("--model", default=None, help="default: resnext101_32x8d; demo at scale cpu")
    parser.add_argument(
        "--weights",
        choices=("trained", "none"),
        default=None,
        help="of the runs of table3.py, or random ones (default: trained where there are such runs)",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("paper-results", "fine-tuned"), help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=101, help="of the run (default: %(default)s)")
    parser.add_argument("--count", type=int, default=None, help="images (default: 500; 64 at scale cpu)")
    given = parser.parse_args(arguments)
    name = given.model or ("resnext101_32x8d" if given.scale == "paper" else "demo")
    weights = given.weights or "trained"
    for variant in ("original", "padded") if weights == "trained" else ():
        folder = given.runs / name / variant / f"seed-{given.seed}"
        if not (folder / "weights.pt").is_file():
            said = f"--runs: expected a finished run in {folder}; table3.py --models {name} makes it"
            if given.weights is not None:
                sys.exit(said)
            print(f"{said}. Freshly initialised networks take its place")
            weights = "none"
            break
    variants = ("original", "padded" if weights == "trained" else "padded_fresh")
    if weights == "trained":
        networks = [
            trained_network(given.runs, name, variant, given.seed, given.classes) for variant in variants
        ]
    else:
        original = load_model(name, "none", seed=given.seed)[0]
        networks = [make_variant(variant, original, given.seed).eval() for variant in variants]
    count = given.count or (500 if given.scale == "paper" else 64)
    images = sample_images() if given.data is None else ImageFiles(given.data, 224, count)
    last, before_last = LAYERS.get(name, RESNET_LAYERS)
    sources = [FeatureUnit(last, (3, 3)), FeatureUnit(before_last, (7, 7)), ModelOutput("mean")]
    titles = (f"{last}, unit (3, 3)", f"{before_last}, unit (7, 7)", "output")
    figure = Figure(figsize=(11, 6), layout="constrained")
    state = "fine-tuned" if weights == "trained" else "random initialisation, not trained"
    figure.suptitle(f"{name}, {state}, seed {given.seed}", fontsize=11)
    rows: list[Row] = []
    for place, (variant, network) in enumerate(zip(variants, networks, strict=True)):
        maps = SensitivityMaps(network.to(given.device), sources).attribute(
            ImageLoader(images, batch_size=8), max_examples=count, show_progress=True
        )
        for column, (statistics, title) in enumerate(zip(maps, titles, strict=True)):
            ax = figure.add_subplot(2, 3, place * 3 + column + 1)
            plot_map(statistics.mean, ax, title=f"{variant}: {title}")
            row: Row = {"model": name, "weights": weights, "variant": variant, "map": title}
            row["images"] = statistics.n_images
            for order in (1, 2):
                estimate = corrected_imbalance(statistics, order)
                row |= {f"l{order}": estimate.value, f"l{order}_error": estimate.standard_error}
            rows.append(row)
    cells = [
        [row["variant"], row["map"]] + [f"{row[f'l{n}']:.3f} +- {row[f'l{n}_error']:.3f}" for n in (1, 2)]
        for row in rows
    ]
    print_table([[name, "map", "L1", "L2"], *cells])
    settings = {"model": name, "weights": weights, "seed": given.seed, "count": count}
    settings["images"] = "the embedded images" if given.data is None else f"photographs in {given.data.name}"
    write_result(given.output, "figure1", settings, rows, figure)


if __name__ == "__main__":
    main()
