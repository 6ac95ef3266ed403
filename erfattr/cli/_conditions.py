"""``--fail-if``: a condition on a map's numbers, by which a script learns what a person would read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from erfattr.cli.options.conditions import Condition
from erfattr.report.map_report import MapReport

STATUS = 3

_VALUES: dict[str, Callable[[MapReport], float | None]] = {
    "L1": lambda report: _value(report.corrected.get("L1")),
    "L2": lambda report: _value(report.corrected.get("L2")),
    "contrast": lambda report: None if report.phase is None else report.phase.corrected_contrast,
    "weak_phases": lambda report: None if report.weak is None else int(report.weak.mask.sum()),
    "dead_pixels": lambda report: report.dead,
    "sigma_y": lambda report: None if report.fit is None else report.fit.sigma_y,
    "sigma_x": lambda report: None if report.fit is None else report.fit.sigma_x,
    "error": lambda report: report.relative_error if math.isfinite(report.relative_error) else None,
}


def that_hold(conditions: Sequence[Condition], reports: Sequence[tuple[str, MapReport]]) -> list[str]:
    """Return in words which conditions hold, of which map.

    Args:
        conditions: What was asked for.
        reports: Maps and what they are called on the command line.

    Raises:
        ValueError: no map is called so, or none has the number.
    """
    found = []
    for condition in conditions:
        maps = [(name, report) for name, report in reports if condition.map in (None, name)]
        values = [(name, _VALUES[condition.number](report)) for name, report in maps]
        known = [(name, value) for name, value in values if value is not None]
        if not known:
            of = condition.map or " or ".join(name for name, _ in reports)
            raise ValueError(f"--fail-if: {condition.number} of {of} could not be measured")
        found += [
            f"{name}: {condition.number} is {value:.4g}, {condition.said}"
            for name, value in known
            if condition.holds(value)
        ]
    return found


def not_measured(conditions: Sequence[Condition], reports: Sequence[tuple[str, MapReport]]) -> list[str]:
    """Return in words which maps lack a number that is asked of all of them."""
    return [
        f"{name}: {condition.number} could not be measured, and was not compared"
        for condition in conditions
        for name, report in reports
        if condition.map is None and _VALUES[condition.number](report) is None
    ]


def _value(estimate: object) -> float | None:
    value: float | None = getattr(estimate, "value", None)
    return value if value is None or math.isfinite(value) else None
