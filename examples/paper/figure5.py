# %% [markdown]
# Figure 5: accuracy over the epochs of the micro-object task, before and after kernel padding.
#
# Draws the runs of table4.py. A run ends where the recipe lets it end.

# %%
from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from paper import TABLE_4, Row, options, print_table, write_result
from runs import comparison_record

from erfattr.report.curves import plot_curves

MODELS = {"paper": tuple(TABLE_4), "cpu": ("demo",)}


# %%
def main(arguments: list[str] | None = None) -> None:
    """Draw the curves; print and write when each run passed the target."""
    parser = options(__doc__ or "Figure 5 of the paper.", "figure5")
    parser.add_argument("--models", nargs="+", default=None, metavar="NAME")
    parser.add_argument(
        "--runs", type=Path, default=Path("paper-results", "micro-object"), help="default: %(default)s"
    )
    given = parser.parse_args(arguments)
    models = given.models or MODELS[given.scale]
    records = {name: comparison_record(given.runs, name, "table4.py") for name in models}
    figure = Figure(figsize=(6.4 * len(models), 4.4), layout="constrained")
    rows: list[Row] = []
    for ax, (model, record) in zip(
        figure.subplots(1, len(models), squeeze=False)[0], records.items(), strict=True
    ):
        recipe = record["recipe"]
        histories = {
            name: [run["history"] for run in variant["runs"]] for name, variant in record["variants"].items()
        }
        plot_curves(histories, ax, target=recipe["target"], title=f"{model}, {recipe['name']}")
        ax.set_ylabel("test accuracy (%)")
        for name, variant in record["variants"].items():
            for run in variant["runs"]:
                row: Row = {"model": model, "variant": name, "seed": run["seed"]}
                row |= {"epochs_to_target": run["epochs_to_target"], "last_accuracy": run["test_accuracy"]}
                rows.append(row | {"accuracy": [epoch["accuracy"] for epoch in run["history"]]})
    cells = [[str(value) for value in list(row.values())[:5]] for row in rows]
    print_table([["model", "variant", "seed", "epochs", "accuracy at the end (%)"], *cells])
    recipes = {model: record["recipe"] for model, record in records.items()}
    settings = {"runs": given.runs.name, "recipes": recipes}
    write_result(given.output, "figure5", settings, rows, figure)


if __name__ == "__main__":
    main()
