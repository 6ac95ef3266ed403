"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from erfattr.report._map_image import new_axes


def plot_curves(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    ax: Axes | None = None,
    *,
    quantity: str = "accuracy",
    target: float | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a quantity over epochs: a colour for each variant, a line for each run, a dot where it ended.

    Args:
        histories: For each variant its runs, for each run its epochs, as in `TrainingRun.history`.
        ax: Where to draw; ``None`` for a new figure of pyplot.
        quantity: ``"accuracy"`` (in percent) or another key of the epochs.
        target: Draw a dashed line there.
        title: What to write above.

    Returns:
        ``ax``.

    Raises:
        ValueError: no variant, a variant without runs, or a run without epochs.

    Example:
        >>> from matplotlib.figure import Figure
        >>> run = [{"epoch": 1, "accuracy": 50.0}, {"epoch": 2, "accuracy": 99.0}]
        >>> ax = plot_curves({"original": [run]}, Figure().subplots(), target=90)
        >>> ax.lines[0].get_xydata().tolist()
        [[1.0, 50.0], [2.0, 99.0]]
    """
    if not histories or not all(runs and all(runs) for runs in histories.values()):
        raise ValueError(
            f"histories: expected runs of one epoch or more for each variant, got {list(histories) or 'none'}"
        )
    ax = new_axes() if ax is None else ax
    for number, (name, runs) in enumerate(histories.items()):
        for index, run in enumerate(runs):
            epochs = [record["epoch"] for record in run]
            values = [record[quantity] for record in run]
            label = f"{name}, {len(runs)} run{'s' if len(runs) > 1 else ''}" if index == 0 else None
            ax.plot(epochs, values, color=f"C{number}", alpha=0.8, label=label, marker="o", markevery=[-1])
    if target is not None:
        ax.axhline(target, color="0.4", linestyle="--", linewidth=1, label=f"target {target:g}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"{quantity} (%)" if quantity == "accuracy" else quantity)
    ax.set_title(title or "")
    ax.legend()
    return ax
