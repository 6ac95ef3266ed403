# %% [markdown]
# Table 3: test accuracy after fine-tuning on Caltech-101, before and after kernel padding.
#
# At the paper's scale: ResNet-101 and its two relatives from ImageNet weights, 200 epochs at 224 pixels,
# three runs. On a CPU: MobileNetV2 from its ImageNet weights and the demo network, 2 epochs at 112 pixels.

# %%
from __future__ import annotations

from paper import TABLE_3, print_table, write_result
from runs import PAIRED_HEADINGS, Runs, chosen_recipe, draw_pairs, paired_line, training_options

MODELS = {"paper": tuple(TABLE_3), "cpu": ("mobilenet_v2", "demo")}


# %%
def main(arguments: list[str] | None = None) -> None:
    """Fine-tune every network and its padded self, print the rows beside the paper's, write the results."""
    parser = training_options(
        __doc__ or "Table 3 of the paper.", "table3", runs="fine-tuned", seeds=3, weights=True
    )
    given = parser.parse_args(arguments)
    recipe = chosen_recipe(given, "caltech101_finetune", "caltech101_finetune_cpu", epochs=2)
    runs = Runs.of(given, recipe, given.weights)
    rows = []
    for name in given.models or MODELS[given.scale]:
        rows += runs.paired_rows(name, ["original", "padded"])[0]
    print(f"test accuracy (%), {recipe.name}")
    print_table([PAIRED_HEADINGS, *(paired_line(row, TABLE_3, 2) for row in rows)])
    write_result(given.output, "table3", runs.settings(), rows, draw_pairs(rows, "test accuracy (%)"))


if __name__ == "__main__":
    main()
