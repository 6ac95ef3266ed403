# %% [markdown]
# Table 4: epochs until the micro-object task is learned, before and after kernel padding.
#
# From scratch, so no weights are missing. At the paper's scale ResNet-101 and its two relatives at 224
# pixels; on a CPU the demo architecture at 32. `padded` is the paper's change, whose new weights begin at
# zero; `padded_fresh` draws the even kernels as a whole. Figure 5 draws the curves of these runs.

# %%
from __future__ import annotations

from paper import TABLE_4, print_table, write_result
from runs import PAIRED_HEADINGS, Runs, chosen_recipe, draw_pairs, paired_line, training_options

from erfattr.training.tasks import task_of

MODELS = {"paper": tuple(TABLE_4), "cpu": ("demo",)}


# %%
def main(arguments: list[str] | None = None) -> None:
    """Train every network and its padded selves, print the rows beside the paper's, write the results."""
    parser = training_options(
        __doc__ or "Table 4 of the paper.", "table4", runs="micro-object", seeds=5, weights=False
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        default=("original", "padded", "padded_fresh"),
        metavar="VARIANT",
        help="of erfattr compare, the first being what the others are compared with (default: all three)",
    )
    parser.add_argument(
        "--looks",
        type=int,
        default=1,
        help="times in an epoch that the accuracy is measured: with 2 or more the result is in steps",
    )
    given = parser.parse_args(arguments)
    looks = {} if given.looks == 1 else {"looks": given.looks}
    recipe = chosen_recipe(given, "micro_object", "micro_object_cpu", always=looks)
    runs = Runs.of(given, recipe, "none")
    rows = []
    for name in given.models or MODELS[given.scale]:
        rows += runs.paired_rows(name, list(given.variants))[0]
    outcome = task_of(recipe).outcome()
    print(f"{outcome}, {recipe.name}")
    print_table([PAIRED_HEADINGS, *(paired_line(row, TABLE_4, 1) for row in rows)])
    write_result(given.output, "table4", runs.settings(), rows, draw_pairs(rows, outcome))


if __name__ == "__main__":
    main()
