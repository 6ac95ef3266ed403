"""The curve of receptive-field sizes against depth, as the numbers that an SVG is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from erfattr.receptive_field.field import ReceptiveField
from erfattr.report.map_report import MapReport

WIDTH, HEIGHT = 640.0, 300.0
"""Of the SVG's own coordinates; a browser scales them."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 10.0, 34.0


@dataclass(frozen=True)
class Point:
    """A point of a curve, with what is said of it."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Curve:
    """A curve of one kind.

    Attributes:
        kind: ``"trf"``, ``"half"`` (50 % of the mass) or ``"most"`` (99 %).
        label: In words.
        points: From left to right.
    """

    kind: str
    label: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """The points as an SVG polyline has them."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class DepthChart:
    """Sizes in pixels against depth.

    Attributes:
        curves: What is drawn.
        ticks: Height and words of each line of the grid.
        words: The chart in words.
    """

    curves: tuple[Curve, ...]
    ticks: tuple[tuple[float, str], ...]
    words: str


def depth_chart(fields: Mapping[str, ReceptiveField], reports: Iterable[MapReport]) -> DepthChart | None:
    """Return theoretical and effective sizes by depth: layers in the order in which they finish.

    Effective sizes are the sides of the squares about the unit's centre that hold 50 % and 99 % of the
    mass, of the layers that were mapped. The larger of rows and columns is drawn, on a logarithmic axis.

    Returns:
        The chart; ``None`` without layers.
    """
    # Behind global pooling there are no units left that could be compared.
    layers = {name: field for name, field in fields.items() if name and max(field.output_size) > 1}
    if not layers:
        return None
    places = {name: index for index, name in enumerate(layers)}
    of_units = [report for report in reports if report.source.layer in places]
    shares = {"half": 0.5, "most": 0.99}
    sides = {
        kind: [(report, _side(report, share)) for report in of_units if _side(report, share) > 0]
        for kind, share in shares.items()
    }
    largest = max(
        [max(field.size) for field in layers.values()]
        + [side for found in sides.values() for _, side in found]
    )
    top = math.ceil(math.log2(max(largest, 2)))

    def at(name: str, size: float) -> tuple[float, float]:
        across = places[name] / max(len(layers) - 1, 1)
        up = math.log2(max(size, 1)) / top
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    drawn = [
        Curve(
            "trf",
            "theoretical receptive field",
            tuple(
                Point(
                    *at(name, max(field.size)), f"{name}: {field.size[0]} x {field.size[1]} ({field.status})"
                )
                for name, field in layers.items()
            ),
        )
    ]
    for kind, found in sides.items():
        points = [
            Point(
                *at(report.source.layer, side),
                f"{report.title}: {side:g} px hold {100 * shares[kind]:g} % of the mass",
            )
            for report, side in sorted(found, key=lambda entry: places[entry[0].source.layer])
        ]
        if points:
            drawn.append(
                Curve(kind, f"square with {100 * shares[kind]:g} % of the effective field", tuple(points))
            )
    ticks = tuple(
        (at(next(iter(layers)), 2**power)[1], str(2**power)) for power in range(0, top + 1, max(1, top // 6))
    )
    last = list(layers.values())[-1]
    words = (
        f"{len(layers)} layers; the theoretical field ends at {last.size[0]} x {last.size[1]} pixels. "
        + "; ".join(point.words for curve in drawn[1:] for point in curve.points)
    )
    return DepthChart(tuple(drawn), ticks, words.strip())


def _side(report: MapReport, share: float) -> float:
    sizes = report.sizes
    return dict(zip(sizes.fractions, sizes.mass_squares, strict=True)).get(share, 0.0)
