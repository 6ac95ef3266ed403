"""How many images find a weak phase or a dead pixel? Found and falsely marked, on maps whose truth is known.

    python benchmarks/power.py --repeats 20                 # numbers and figure, half an hour of a core
    python benchmarks/power.py --repeats 2 --counts 25 100  # a quick look

Maps are drawn as `benchmarks/estimators.py` draws them: a bell of sigma 60 pixels on 224 x 224, noise as
heavy-tailed and as shared between neighbours as gradients' is. Weakened by a known share are one phase in 16
of period 4 (a pixel in 16, `dead_pixels`) and, of period 32, 64 of the 1,024 phases (`weak_phases`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from estimators import group_means, sizes_of, spread_of, statistics, truth_map
from matplotlib.figure import Figure

from erfattr import dead_pixels, weak_phases
from erfattr._files import environment, write_json

COUNTS = (25, 50, 100, 200, 400, 800, 1600)
# What is left of a weakened pixel's or phase's sensitivity.
PIXELS = (0.0, 0.2, 0.4)
PHASES = (0.8, 0.9, 0.95)
NOISES = ("gradients", "heavy")


def weakened(left: float, period: int, count: int) -> tuple[np.ndarray, torch.Tensor]:
    """Return a bell of which ``count`` phases of a period keep a share, and the weak phases (period, period).

    They lie evenly over the period: each has neighbours that are not weak.
    """
    step = round(period / count**0.5)
    weak = torch.zeros(period, period, dtype=torch.bool)
    weak[::step, ::step] = True
    truth = truth_map("smooth")
    side = -(-truth.shape[0] // period)
    everywhere = weak.repeat(side, side)[: truth.shape[0], : truth.shape[1]].numpy()
    return np.where(everywhere, left * truth, truth), weak


def found(marked: torch.Tensor, weak: torch.Tensor) -> tuple[float, int]:
    """Return the share of the weak ones that is marked, and how many others are."""
    return marked[weak].double().mean().item(), int((marked & ~weak).sum())


def measure(repeats: int, counts: list[int]) -> list[dict[str, Any]]:
    """Return one row for each test, noise, strength and number of images."""
    rows = []
    for test, period, count, shares in (("dead_pixels", 4, 1, PIXELS), ("weak_phases", 32, 64, PHASES)):
        for noise in NOISES:
            spread = spread_of(noise, truth_map("3-3-3-3-3"))
            for left in shares:
                truth, weak = weakened(left, period, count)
                side = truth.shape[0] // period
                for images in counts:
                    rng = np.random.default_rng(images)
                    sizes = sizes_of(images, 16)
                    power, false = [], []
                    for _ in range(repeats):
                        drawn = statistics(group_means(noise, truth, sizes, spread, rng), sizes)
                        if test == "dead_pixels":
                            share, others = found(dead_pixels(drawn), weak.repeat(side, side))
                        else:
                            share, others = found(weak_phases(drawn, period).mask, weak)
                        power.append(share)
                        false.append(others)
                    rows.append(
                        {
                            "test": test,
                            "noise": noise,
                            "left": left,
                            "images": images,
                            "found": float(np.mean(power)),
                            "falsely_marked": float(np.mean(false)),
                            "of": int((~weak).sum()) * (side**2 if test == "dead_pixels" else 1),
                        }
                    )
                    print(*rows[-1].values(), flush=True)
    return rows


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the share found above, the falsely marked ones below, a column for each test."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for column, test in enumerate(("dead_pixels", "weak_phases")):
        here = [row for row in rows if row["test"] == test]
        for index, left in enumerate(sorted({row["left"] for row in here})):
            for noise, line in zip(NOISES, ("-", "--"), strict=True):
                of = [row for row in here if (row["left"], row["noise"]) == (left, noise)]
                images = [row["images"] for row in of]
                label = f"{100 * left:.0f} % of sensitivity left, {noise}"
                style = {"color": f"C{index}", "linestyle": line, "marker": "o", "markersize": 3}
                axes[0, column].plot(images, [100 * row["found"] for row in of], label=label, **style)
                axes[1, column].plot(images, [row["falsely_marked"] for row in of], **style)
        what = "pixels" if test == "dead_pixels" else "phases of period 32"
        axes[0, column].set(
            title=f"{test}: {what}", ylabel=f"weak {what.split()[0]} found (%)", ylim=(-3, 103), xscale="log"
        )
        handles, labels = axes[0, column].get_legend_handles_labels()
        axes[1, column].legend(
            handles, labels, fontsize=7, ncol=1, loc="upper center", bbox_to_anchor=(0.5, -0.22)
        )
        most = here[0]["of"]
        axes[1, column].set(
            xlabel="images",
            ylabel=f"falsely marked a map, of {most:,}",
            ylim=(-0.1, max(3, *(row["falsely_marked"] for row in here))),
        )
        axes[1, column].set_xticks(sorted({row["images"] for row in rows}))
        axes[1, column].xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
        axes[1, column].xaxis.set_minor_locator(mpl.ticker.NullLocator())
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20, help="maps for each point (default: %(default)s)")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of images")
    parser.add_argument("--output", type=Path, default=Path("power"), help="folder (default: %(default)s)")
    parser.add_argument("--redraw", action="store_true", help="draw the numbers that --output holds")
    given = parser.parse_args()
    if given.redraw:
        rows = json.loads((given.output / "power.json").read_text(encoding="utf-8"))["rows"]
        draw(rows).savefig(given.output / "power.png", dpi=110)
        return
    torch.set_num_threads(1)
    rows = measure(given.repeats, given.counts)
    given.output.mkdir(parents=True, exist_ok=True)
    write_json(
        given.output / "power.json", {"repeats": given.repeats, "environment": environment(), "rows": rows}
    )
    draw(rows).savefig(given.output / "power.png", dpi=110)


if __name__ == "__main__":
    main()
