# %% [markdown]
# Figure 2: why an odd kernel with stride 2 makes a checkerboard.
#
# The dead-pixel map of a convolution of ones counts how many of its outputs read each pixel. With stride 2 a
# kernel of 3 reads every other row once and the others twice; an even kernel reads every row equally often.

# %%
from __future__ import annotations

import torch
from matplotlib.figure import Figure
from paper import Row, options, print_table, write_result
from torch import Tensor, nn

from erfattr import DeadPixelMap
from erfattr.report.map_plots import plot_map

SIZE = 80
# Away from the border, where padding takes no part.
INTERIOR = slice(SIZE // 2 - 8, SIZE // 2 + 8)
KERNELS = (1, 2, 3, 4, 7, 8)


# %%
def coverage(kernel: int, stages: int) -> Tensor:
    """How often each pixel is read by stages of ``kernel`` x ``kernel`` convolutions with stride 2."""
    layers = [nn.Conv2d(1, 1, kernel, stride=2, padding=(kernel - 1) // 2, bias=False) for _ in range(stages)]
    network = nn.Sequential(*layers, nn.Flatten())
    for layer in layers:
        nn.init.ones_(layer.weight)
    image = torch.zeros(1, 1, SIZE, SIZE)
    outputs = network(image).shape[1]
    # The map is of the mean output; the sum counts.
    return outputs * DeadPixelMap(network).attribute(image, target="mean")


def interior(counts: Tensor) -> list[float]:
    """Different counts among the pixels away from the border."""
    return counts[INTERIOR, INTERIOR].round(decimals=3).unique().tolist()


# %%
def main(arguments: list[str] | None = None) -> None:
    """Count for odd and even kernels, one stage and two, draw and write."""
    given = options(__doc__ or "Figure 2 of the paper.", "figure2").parse_args(arguments)
    rows: list[Row] = []
    figure = Figure(figsize=(2.3 * len(KERNELS), 5.6), layout="constrained")
    axes = figure.subplots(2, len(KERNELS))
    for stages in (1, 2):
        for ax, kernel in zip(axes[stages - 1], KERNELS, strict=True):
            counts = coverage(kernel, stages)
            found = interior(counts)
            row = " ".join(f"{count:g}" for count in found)
            rows.append({"kernel": kernel, "stages": stages, "counts": row})
            title = f"{kernel}x{kernel}, stride 2{', twice' * (stages == 2)}\n{row}"
            plot_map(counts[INTERIOR, INTERIOR], ax, relative=False, colorbar=False, title=title)
            ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
            even = len(found) == 1
            if even != (kernel % 2 == 0):
                raise AssertionError(
                    f"kernel {kernel}: expected equal counts for even kernels alone, got {found}"
                )
    print("How often pixels away from the border are read:")
    print_table([["kernel", "stages", "counts"], *([str(value) for value in row.values()] for row in rows)])
    write_result(given.output, "figure2", {"size": SIZE}, rows, figure)


if __name__ == "__main__":
    main()
