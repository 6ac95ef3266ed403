"""The forecast of a map, where its grid comes from and what remedies change: table, figure and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from erfattr._files import environment, write_json, writing
from erfattr.forecast.cures import RemedyForecast
from erfattr.forecast.grid import GridSources
from erfattr.metrics.imbalance import phase_contrast, phase_profile
from erfattr.report._map_image import choose_colors, drawn_values
from erfattr.report.map_plots import plot_map
from erfattr.report.pixel_plots import save_figure
from erfattr.report.profile_plots import plot_phase_profile, profile_limits
from erfattr.report.text_table import text_table

# Of remedies on single layers, so many of the strongest are drawn; the table has all.
_MOST_BARS = 14


@dataclass(frozen=True)
class Measured:
    """A measured map beside a forecast.

    Attributes:
        map: R of eq. 3, (H, W).
        halves: The same over every other image, two of (H, W).
        n_images: Number of images.
    """

    map: Tensor
    halves: tuple[Tensor, Tensor]
    n_images: int


@dataclass(frozen=True)
class Agreement:
    """How a forecast's phase profile and a measured one agree.

    Attributes:
        correlation: Between the two, as they are.
        reliability: Of the measured profile: how it correlates with one over as many other images, from its
            halves (Spearman and Brown); ``nan`` where the halves do not agree at all.
        corrected: ``correlation`` over the root of ``reliability``: without the noise of the measured one.
        contrast_ratio: Contrast of the forecast over the measured one without its noise.
    """

    correlation: float
    reliability: float
    corrected: float
    contrast_ratio: float


def agreement(forecast: Tensor, measured: Measured, period: tuple[int, int]) -> Agreement:
    """Compare the phase profiles of a forecast and of a measured map.

    Args:
        forecast: (H, W).
        measured: The map and its halves.
        period: Of the grid.

    Example:
        >>> import torch
        >>> R = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(8, 8)
        >>> agreement(3 * R, Measured(R, (R, R), 2), (2, 2))
        Agreement(correlation=1.0, reliability=1.0, corrected=1.0, contrast_ratio=1.0)
    """
    mine, its = phase_profile(forecast, period), phase_profile(measured.map, period)
    between = _correlation(*(phase_profile(half, period) for half in measured.halves))
    reliability = 2 * between / (1 + between) if between > 0 else math.nan
    correlation = _correlation(mine, its)
    contrast = phase_contrast(its) * math.sqrt(reliability)
    return Agreement(
        correlation,
        reliability,
        correlation / math.sqrt(reliability),
        phase_contrast(mine) / contrast if contrast > 0 else math.nan,
    )


def _correlation(first: Tensor, second: Tensor) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = float(first.norm() * second.norm())
    return round(float((first * second).sum()) / size, 12) if size > 0 else math.nan


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a network's grid without images, and with them where they were given.

    Attributes:
        forecast: (H, W).
        sources: Where the grid comes from.
        remedies: What each remedy would change, the original first.
        measured: The measured map; ``None``: no images were given.
    """

    forecast: Tensor
    sources: GridSources
    remedies: tuple[RemedyForecast, ...]
    measured: Measured | None = None

    @property
    def agreement(self) -> Agreement | None:
        """How forecast and measured map agree."""
        return None if self.measured is None else agreement(self.forecast, self.measured, self.sources.period)

    def sentences(self) -> list[str]:
        """Say the most important in words."""
        found = []
        strongest = max(self.sources.sources, key=lambda source: source.share, default=None)
        what = (
            "the output"
            if self.sources.unit is None
            else f"unit {self.sources.unit} of {self.sources.layer!r}"
        )
        rows, columns = self.sources.period
        period = f"{rows}" if rows == columns else f"{rows} x {columns}"
        found.append(f"{what}: forecast phase contrast {self.sources.contrast:.4f} at period {period}")
        if strongest is not None and strongest.share > 0:
            found.append(
                f"most of the grid goes with {strongest.layer}: {100 * strongest.share:.0f} % of its variance"
            )
        elif self.sources.sources:
            found.append("no single strided layer makes the grid")
        else:
            found.append("no convolution or pool on the way reads the image in steps")
        found.append(self.remedy_sentence())
        agreed = self.agreement
        if agreed is not None and self.measured is not None:
            found.append(
                f"measured over {self.measured.n_images} images: profiles correlate {agreed.corrected:.2f} "
                f"without the noise (reliability {agreed.reliability:.2f}), forecast contrast over measured "
                f"{agreed.contrast_ratio:.2f}"
            )
        return found

    def remedy_sentence(self) -> str:
        """Say which remedy lowers the contrast most, and at what price."""
        cures = [remedy for remedy in self.remedies[1:] if remedy.contrast < self.remedies[0].contrast]
        if cures:
            best = min(cures, key=lambda remedy: remedy.contrast)
            kept = "the outputs stay until it is trained" if best.same_outputs else "the outputs change"
            cost = 100 * (best.flops / max(1, self.remedies[0].flops) - 1)
            return (
                f"the strongest remedy is {best.title}: contrast {best.contrast:.4f}, "
                f"{cost:+.0f} % operations, {kept}"
            )
        return "no remedy that is known here would lower the contrast"

    def remedy_rows(self) -> list[tuple[str, ...]]:
        """Return the table of remedies as cells, headings first."""
        found: list[tuple[str, ...]] = [
            ("remedy", "contrast", "L1", "centre", "GFLOP", "parameters", "outputs at first")
        ]
        for remedy in self.remedies:
            y, x = remedy.center
            found.append(
                (
                    remedy.title,
                    f"{remedy.contrast:.4f}",
                    f"{remedy.l1:.4f}",
                    f"({y:.1f}, {x:.1f})",
                    f"{remedy.flops / 1e9:.2f}",
                    f"{remedy.parameters / 1e6:.2f} M",
                    "the same" if remedy.same_outputs else "others",
                )
            )
        return found

    def tables(self) -> str:
        """Return both tables and the sentences as text."""
        parts = ["\n".join(self.sentences()), text_table(self.sources.rows()), text_table(self.remedy_rows())]
        return "\n\n".join(parts)

    def numbers(self) -> dict[str, Any]:
        """Return every number, for JSON."""
        agreed = self.agreement
        return {
            "sources": {**asdict(self.sources), "remainder": self.sources.remainder},
            "remedies": [asdict(remedy) for remedy in self.remedies],
            "measured": None
            if agreed is None or self.measured is None
            else {"n_images": self.measured.n_images, **asdict(agreed)},
            "sentences": self.sentences(),
        }


def draw_diagnosis(diagnosis: Diagnosis, heading: str | None = None) -> Figure:
    """Draw the forecast and its profile, the measured ones beside them, the sources and the remedies."""
    measured = diagnosis.measured
    rows = 1 if measured is None else 2
    remedies = _drawn(diagnosis.remedies)
    bars = max(len(diagnosis.sources.sources), len(remedies), 3)
    heights = 4.6 * rows, 0.6 + 0.3 * bars
    figure = Figure(figsize=(10.4, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    axes = upper.subplots(rows, 2, squeeze=False).ravel()
    period = diagnosis.sources.period
    pairs = [("forecast", diagnosis.forecast)]
    if measured is not None:
        pairs.append((f"measured, {measured.n_images} images", measured.map))
    # Forecast and measured map are there to be compared, so they share their colours, and so do the profiles.
    colors = choose_colors([drawn_values("forecast", values)[0] for _, values in pairs])
    profiles = [phase_profile(values, period) for _, values in pairs]
    limits = profile_limits(profiles)
    for index, ((title, values), profile) in enumerate(zip(pairs, profiles, strict=True)):
        plot_map(values, axes[2 * index], norm=colors.norm, title=title)
        contrast = f"{title.split(',')[0]}: contrast {phase_contrast(profile):.3g}"
        plot_phase_profile(profile, axes[2 * index + 1], limits=limits, title=contrast)
    left, right = lower.subplots(1, 2)
    _bars(
        left,
        [source.layer for source in diagnosis.sources.sources],
        [source.share for source in diagnosis.sources.sources],
        "share of the grid's variance that goes with the layer",
    )
    left.xaxis.set_major_formatter(PercentFormatter(1.0))
    _bars(right, [r.title for r in remedies], [r.contrast for r in remedies], "forecast phase contrast")
    right.axvline(diagnosis.remedies[0].contrast, color="0.4", linestyle=":", linewidth=1.2)
    if heading is not None:
        figure.suptitle(heading)
    return figure


def _drawn(remedies: Sequence[RemedyForecast]) -> list[RemedyForecast]:
    """The original and the remedies on all layers; of those on single layers the strongest."""
    whole = [remedy for remedy in remedies if len(remedy.layers) != 1]
    single = sorted((r for r in remedies if len(r.layers) == 1), key=lambda remedy: remedy.contrast)
    kept = whole + single[: max(0, _MOST_BARS - len(whole))]
    return [remedy for remedy in remedies if remedy in kept]


def _bars(ax: Axes, names: Sequence[str], values: Sequence[float], label: str) -> None:
    places = np.arange(len(names))
    ax.barh(places, values, color="#0072B2")
    ax.set_yticks(places, names, fontsize="small")
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)


def write_diagnosis(
    folder: str | Path, diagnosis: Diagnosis, record: Mapping[str, Any], heading: str | None = None
) -> list[Path]:
    """Write tables, forecast, figure and one JSON file, each whole or not at all.

    Args:
        folder: Where to; made if it is not there.
        diagnosis: What to write.
        record: What is needed to repeat the run.
        heading: What to write above the figure.

    Returns:
        ``diagnosis.png``, ``forecast.npy``, ``result.json``, ``tables.txt``, and ``measured.npy`` where there
        is a measured map.

    Raises:
        OSError: the folder cannot be written to.
    """
    with writing(folder) as stage:
        np.save(stage / "forecast.npy", diagnosis.forecast.numpy())
        if diagnosis.measured is not None:
            np.save(stage / "measured.npy", diagnosis.measured.map.numpy())
        result = {"record": record, "environment": environment(), **diagnosis.numbers()}
        write_json(stage / "result.json", result)
        (stage / "tables.txt").write_text(diagnosis.tables() + "\n", encoding="utf-8")
        save_figure(draw_diagnosis(diagnosis, heading), stage / "diagnosis.png")
        names = sorted(path.name for path in stage.iterdir())
    return [Path(folder) / name for name in names]
