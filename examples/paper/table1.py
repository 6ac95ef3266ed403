# %% [markdown]
# Table 1: theoretical and effective receptive field sizes of ResNets.
#
# The theoretical sizes need no weights and must be the paper's to the pixel. The effective ones are Gaussian
# fits to the receptive field of unit (3, 3) of `layer4`, averaged over the test images of CUB-200-2011. Where
# weights are not at hand, the row says so and a freshly initialised network's row stands below it.

# %%
from __future__ import annotations

import sys
from functools import partial
from typing import Any

from cub import cub_test_images
from matplotlib.figure import Figure
from paper import TABLE_1, Row, beside, options, print_table, resumed_rows, write_result

from erfattr import ERF, ImageLoader, fit_gaussian, load_model, sample_images, theoretical_receptive_field

# A network beyond the paper's, whose real weights are small: 14 MB.
MODELS = (*TABLE_1, "mobilenet_v2")


# What is fitted, in the order of the paper's columns.
FITTED = ("sigma_x", "sigma_y", "r_squared")


# %%
def layer_of(name: str) -> str:
    """The last feature map, 7 x 7."""
    return "features" if name == "mobilenet_v2" else "layer4"


def measured(name: str, weights: str, images: Any, count: int | None, device: str) -> Row:
    """Measure one network; where its weights cannot be had, the theoretical size alone."""
    layer = layer_of(name)
    untrained, _ = load_model(name, "none")
    field = theoretical_receptive_field(untrained, layer, input_size=(224, 224))
    row: Row = {"model": name, "weights": weights, "trf": field.size[0], "images": 0}
    try:
        model, info = load_model(name, weights, device=device)
    except FileNotFoundError:
        return row | {"weights": f"{weights} not available"}
    erf = ERF(model, layer, unit=(3, 3))
    _, statistics = erf.attribute(images, max_examples=count, show_progress=True, return_statistics=True)
    # Of the statistics, so that the errors are the scatter between samples of images; two images have none.
    grouped = len(statistics.group_sizes) > 2
    fit = fit_gaussian(statistics if grouped else statistics.mean)
    found = {name: getattr(fit, name) for name in FITTED}
    if grouped:
        found |= {f"{name}_error": getattr(fit.standard_errors, name) for name in FITTED}
    return row | {"weights": info.weights, "images": statistics.n_images} | found


def line(row: Row) -> list[str]:
    """A row beside the paper's; only rows with the paper's weights are held against its fits."""
    name = row["model"]
    paper = TABLE_1.get(name, {})
    trained = paper if row["weights"].endswith("Weights.IMAGENET1K_V1") else {}
    cells = [
        beside(row.get(key), trained.get(key), digits)
        + (f" +- {row[f'{key}_error']:.{digits}f}" if f"{key}_error" in row else "")
        for key, digits in zip(FITTED, (1, 1, 3), strict=True)
    ]
    return [name, row["weights"], str(row["images"]), beside(row["trf"], paper.get("trf"), 0), *cells]


def drawn(rows: list[Row]) -> Figure:
    """Size against depth is the paper's point: draw both sizes of every network."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    for row in (row for row in rows if "sigma_x" in row):
        label = f"{row['model']}, {row['weights'].split(',')[0]}"
        ax.plot(row["trf"], (row["sigma_x"] * row["sigma_y"]) ** 0.5, "o", label=label)
    for name, paper in TABLE_1.items():
        ax.plot(paper["trf"], (paper["sigma_x"] * paper["sigma_y"]) ** 0.5, "k+")
        ax.annotate(name, (paper["trf"], (paper["sigma_x"] * paper["sigma_y"]) ** 0.5), fontsize=7)
    ax.set(
        xlabel="theoretical receptive field (pixels)", ylabel="geometric mean of sigma_x, sigma_y (pixels)"
    )
    ax.set_title("+ the paper's Table 1; dots: measured here", fontsize=10)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7)
    return figure


# %%
def main(arguments: list[str] | None = None) -> None:
    """Measure every network, print the rows beside the paper's, write CSV, JSON and figure."""
    parser = options(__doc__ or "Table 1 of the paper.", "table1", weights=True, data="folder CUB_200_2011")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--count", type=int, default=None, help="images (default: all; 64 at scale cpu)")
    given = parser.parse_args(arguments)
    if given.data is not None:
        loader = ImageLoader(cub_test_images(given.data), batch_size=8)
        source = f"CUB-200-2011, test images in {given.data}"
    elif given.scale == "paper":
        sys.exit("--data: scale paper needs the folder CUB_200_2011, see cub.cub_test_images")
    else:
        loader, source = ImageLoader(sample_images(), batch_size=8), "the embedded images"
    count = given.count if given.count is not None or given.scale == "paper" else 64
    settings = {"weights": given.weights, "images": source, "count": count, "size": 224}
    makers = {}
    for name in given.models:
        for weights in dict.fromkeys((given.weights, "none")):
            makers[f"{name}, {weights}"] = partial(measured, name, weights, loader, count, given.device)
    rows = resumed_rows(given.output, settings, makers, whole=lambda row: row["images"] > 0)
    headings = ["model", "weights", "images", "TRF", "sigma_x", "sigma_y", "R^2"]
    print(f"{source}, unit (3, 3) of the 7 x 7 map")
    print_table([headings, *map(line, rows)])
    write_result(given.output, "table1", settings, rows, drawn(rows))


if __name__ == "__main__":
    main()
