"""Figures are drawn when the results are written, and one that fails takes nothing with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from erfattr._files import writing


class FigureWarning(UserWarning):
    """A figure could not be drawn; what it would have shown is written all the same."""


def draw_figures(folder: Path, figures: Mapping[str, Callable[[Path], object]]) -> list[str]:
    """Draw figures into a folder that holds the results; return the names of those that were drawn.

    A figure of that name from an earlier run is removed first: it would not show these results.

    Args:
        folder: Where to.
        figures: For each file name what draws it there.
    """
    for name in figures:
        (folder / name).unlink(missing_ok=True)
    drawn = []
    for name, draw in figures.items():
        try:
            with writing(folder) as stage:
                draw(stage / name)
        except Exception as error:  # the results are worth more than any figure
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"{name} could not be drawn and is left out ({type(error).__name__}: {reason})",
                FigureWarning,
                stacklevel=3,
            )
        else:
            drawn.append(name)
    return drawn
