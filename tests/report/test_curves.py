from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from erfattr.report.curves import plot_curves


def history(*accuracies: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch + 1, "accuracy": value, "loss": 1 / (epoch + 1)}
        for epoch, value in enumerate(accuracies)
    ]


def test_every_run_is_a_line_and_every_variant_a_colour() -> None:
    runs = {"original": [history(50, 60, 95), history(55, 99)], "padded": [history(70, 96)]}
    ax = plot_curves(runs, Figure().subplots(), target=90, title="task")
    lines = [line.get_xydata().tolist() for line in ax.lines]
    assert lines[:3] == [[[1, 50], [2, 60], [3, 95]], [[1, 55], [2, 99]], [[1, 70], [2, 96]]]
    assert ax.lines[0].get_color() == ax.lines[1].get_color() != ax.lines[2].get_color()
    assert list(ax.lines[3].get_ydata()) == [90, 90]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "original, 2 runs",
        "padded, 1 run",
        "target 90",
    ]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("epoch", "accuracy (%)", "task")


def test_another_quantity() -> None:
    ax = plot_curves({"original": [history(50, 60)]}, Figure().subplots(), quantity="loss")
    assert ax.lines[0].get_xydata().tolist() == [[1, 1], [2, 0.5]]
    assert ax.get_ylabel() == "loss"


@pytest.mark.parametrize("runs", [{}, {"original": []}, {"original": [[]]}])
def test_nothing_to_draw(runs: Any) -> None:
    with pytest.raises(ValueError, match="histories: expected runs of one epoch or more for each variant"):
        plot_curves(runs, Figure().subplots())
