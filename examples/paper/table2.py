# %% [markdown]
# Table 2: accuracy and receptive field sizes after fine-tuning on Caltech-101.
#
# The runs are the `original` ones of table3.py, and are read where they are finished; table 2 of the paper
# has one run of each of nine networks. The fit is that of Table 1, over test images of 224 pixels.

# %%
from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from paper import TABLE_2, Row, beside, print_table, resumed_rows, write_result
from runs import Runs, chosen_recipe, training_options
from table1 import layer_of

from erfattr import ERF, ImageLoader, fit_gaussian, theoretical_receptive_field
from erfattr.training.comparison import Mean
from erfattr.training.runs import train

MODELS = {"paper": tuple(TABLE_2), "cpu": ("mobilenet_v2", "demo")}


# %%
def measured(name: str, runs: Runs, images: Any, device: str) -> Row:
    """Fine-tune a network with each seed and fit its effective receptive fields."""
    try:
        words = runs.built(name, runs.seeds[0])[1]
    except FileNotFoundError:
        return {"model": name, "weights": f"{runs.weights} not available", "runs": 0}
    found: dict[str, list[float]] = {}
    for seed in runs.seeds:
        data = runs.images.prepared(seed)
        folder = runs.folder / name / "original" / f"seed-{seed}"
        run = train(
            runs.built(name, seed)[0], runs.images.recipe, data, folder, seed=seed, hardware=runs.hardware
        )
        erf = ERF(run.model.to(device), layer_of(name), unit=(3, 3))
        fit = fit_gaussian(erf.attribute(images, show_progress=True))
        numbers = {
            "validation_accuracy": max(epoch["accuracy"] for epoch in run.history),
            "test_accuracy": run.test_accuracy,
            "sigma_x": fit.sigma_x,
            "sigma_y": fit.sigma_y,
            "r_squared": fit.r_squared,
        }
        for key, value in numbers.items():
            found.setdefault(key, []).append(value)
        field = theoretical_receptive_field(run.model, layer_of(name), input_size=(224, 224))
    row: Row = {"model": name, "weights": words, "runs": len(runs.seeds), "trf": field.size[0]}
    for key, values in found.items():
        mean = Mean.of(values)
        row |= {key: mean.value, f"{key}_error": mean.standard_error}
    return row


def line(row: Row) -> list[str]:
    """A row beside the paper's; the paper has no errors."""
    paper = TABLE_2.get(row["model"], {})
    cells = [row["model"], row["weights"], str(row["runs"])]
    if row["runs"] == 0:
        return [*cells, *["-"] * 6]
    cells.append(beside(row["trf"], paper.get("trf"), 0))
    for key, digits in (
        ("validation_accuracy", 2),
        ("test_accuracy", 2),
        ("sigma_x", 1),
        ("sigma_y", 1),
        ("r_squared", 3),
    ):
        cells.append(f"{beside(row[key], paper.get(key), digits)} +- {row[f'{key}_error']:.{digits}f}")
    return cells


def drawn(rows: list[Row]) -> Figure:
    """Draw accuracy against size: the paper finds no trend."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    for name, row in TABLE_2.items():
        size = fmean((row["sigma_x"], row["sigma_y"]))
        ax.plot(size, row["test_accuracy"], "k+")
        ax.annotate(name, (size, row["test_accuracy"]), fontsize=7)
    for row in rows:
        if row["runs"]:
            size = fmean((row["sigma_x"], row["sigma_y"]))
            ax.errorbar(
                size, row["test_accuracy"], row["test_accuracy_error"], fmt="o", label=row["model"], capsize=3
            )
    ax.set(xlabel="mean of sigma_x and sigma_y (pixels)", ylabel="test accuracy (%)")
    ax.set_title("+ the paper's Table 2; dots: measured here", fontsize=10)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)
    return figure


# %%
def main(arguments: list[str] | None = None) -> None:
    """Fine-tune and measure every network, print the rows beside the paper's, write the results."""
    parser = training_options(
        __doc__ or "Table 2 of the paper.", "table2", runs="fine-tuned", seeds=3, weights=True
    )
    parser.add_argument("--count", type=int, default=None, help="test images (default: all; 64 at scale cpu)")
    given = parser.parse_args(arguments)
    recipe = chosen_recipe(given, "caltech101_finetune", "caltech101_finetune_cpu", epochs=2)
    runs = Runs.of(given, recipe, given.weights)
    count = given.count or (len(runs.images.split.test) if given.scale == "paper" else 64)
    images = ImageLoader(runs.images.maps(count), batch_size=8)
    settings = runs.settings() | {"map_images": count, "map_size": recipe.map_size}
    names = given.models or MODELS[given.scale]
    makers = {name: partial(measured, name, runs, images, given.device) for name in names}
    rows = resumed_rows(given.output, settings, makers, whole=lambda row: row["runs"] > 0)
    headings = ["model", "weights", "runs", "TRF", "validation (%)", "test (%)", "sigma_x", "sigma_y", "R^2"]
    print(f"{recipe.name}, unit (3, 3) of the 7 x 7 map")
    print_table([headings, *map(line, rows)])
    write_result(given.output, "table2", settings, rows, drawn(rows))


if __name__ == "__main__":
    main()
