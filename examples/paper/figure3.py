# %% [markdown]
# Figure 3: kernel padding.
#
# A row and a column of zeros at the bottom and right make an odd kernel even; the outputs stay what they were
# until the new weights are trained. Drawn with the first kernels of the demo network.

# %%
from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from paper import Row, options, print_table, write_result
from torch import nn

from erfattr import demo_model, pad_kernels, sample_images

LAYERS = ("conv1", "layer2.0.conv1", "layer2.0.downsample.0")


# %%
def draw(ax: Axes, convolution: nn.Module, layer: str) -> None:
    """Draw a layer's first kernel, averaged over its inputs, and mark the zeros."""
    kernel = convolution.weight.detach()[0].mean(0)
    limit = float(kernel.abs().max())
    ax.imshow(kernel, cmap="RdBu", vmin=-limit, vmax=limit)
    for y, x in (kernel == 0).nonzero().tolist():
        ax.text(x, y, "0", ha="center", va="center")
    ax.set(title=f"{layer}: {kernel.shape[0]}x{kernel.shape[1]}", xticks=[], yticks=[])


def main(arguments: list[str] | None = None) -> None:
    """Draw three kernels before and after, and check that the network's outputs are the same."""
    given = options(__doc__ or "Figure 3 of the paper.", "figure3").parse_args(arguments)
    model = demo_model()
    padded, changes = pad_kernels(model, return_changes=True)
    print(changes.describe())
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    for column, layer in enumerate(LAYERS):
        for row, network in enumerate((model, padded)):
            ax = figure.add_subplot(2, len(LAYERS), row * len(LAYERS) + column + 1)
            draw(ax, network.get_submodule(layer), layer)
    images = sample_images(8, 224)
    rows: list[Row] = []
    for size in (224, 225, 223):
        part = torch.nn.functional.interpolate(images, size=(size, size))
        with torch.no_grad():
            expected, found = model(part), padded(part)
        difference = float((expected - found).abs().max() / expected.abs().max())
        rows.append({"size": size, "largest_relative_difference": difference})
        if difference > 1e-5:
            raise AssertionError(f"size {size}: expected the same outputs, got a difference of {difference}")
    print("Outputs before and after, largest difference relative to the largest output:")
    print_table(
        [[f"{row['size']} x {row['size']}", f"{row['largest_relative_difference']:.1e}"] for row in rows]
    )
    write_result(given.output, "figure3", {"layers": LAYERS}, rows, figure)


if __name__ == "__main__":
    main()
