"""What a page shows of one network: all that was measured, and why the rest was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from erfattr._checks import describe
from erfattr.receptive_field.field import ReceptiveField
from erfattr.report.diagnosis import Diagnosis
from erfattr.report.map_report import MapReport

Part = TypeVar("Part")


@dataclass(frozen=True)
class Missing:
    """A part that could not be computed.

    Attributes:
        why: In one sentence.
    """

    why: str


@dataclass(frozen=True)
class SaliencyExample:
    """One image with its saliency before and after debiasing.

    Attributes:
        title: What is shown, such as the name of the image and the class that was explained.
        image: (3, H, W), 0..1.
        raw: (H, W), not negative.
        debiased: (H, W), likewise.
    """

    title: str
    image: Tensor
    raw: Tensor
    debiased: Tensor


@dataclass(frozen=True)
class Contrast:
    """A phase contrast without its noise.

    Attributes:
        value: The contrast; negative where none can be told from noise.
        error: One standard deviation.
    """

    value: float
    error: float


@dataclass(frozen=True)
class SaliencyBeforeAfter:
    """What debiasing does to saliency.

    Attributes:
        examples: Single images.
        method: What explained them, in words.
        n_images: Images that the contrasts are over.
        before: Phase contrast of the mean saliency of one half of the images; ``None``: it could not be told.
        after: The same half with the pattern of the other half divided out.
    """

    examples: tuple[SaliencyExample, ...]
    method: str
    n_images: int = 0
    before: Contrast | None = None
    after: Contrast | None = None


@dataclass(frozen=True)
class NetworkPage:
    """What a page shows of one network. A part that is ``None`` is left out, one that is `Missing` says why.

    Attributes:
        name: What the network is called.
        maps: By row of the grid, such as ``"stride 8"`` or ``"output"``; networks that stand side by side
            share the names of their rows. What `analyse_map` gives.
        weights: Where its weights are from, in words.
        fields: Of every layer, as `receptive_fields` returns them.
        diagnosis: Forecast of the grid, its sources and the remedies.
        tiling: What tiles need, line by line.
        saliency: Before and after debiasing.
        record: What is needed to repeat the run.
        seconds_per_image: How long an image took, for the forecast of a longer run.

    Raises:
        TypeError: a map is neither a `MapReport` nor `Missing`.
        ValueError: no name, or a map with negative values.

    Example:
        >>> from erfattr import ERF, demo_model, sample_images
        >>> from erfattr.report.map_report import analyse_map
        >>> _, statistics = ERF(demo_model()).attribute(sample_images(4, 64), return_statistics=True)
        >>> NetworkPage("demo", {"stride 32": analyse_map(statistics)}).deepest.title
        'layer4, unit (1, 1)'
    """

    name: str
    maps: Mapping[str, MapReport | Missing]
    weights: str = ""
    fields: Mapping[str, ReceptiveField] | Missing | None = None
    diagnosis: Diagnosis | Missing | None = None
    tiling: Sequence[str] | Missing | None = None
    saliency: SaliencyBeforeAfter | Missing | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    seconds_per_image: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name: expected what the network is called, got {describe(self.name)}")
        for row, report in self.maps.items():
            if not isinstance(report, (MapReport, Missing)):
                raise TypeError(f"maps: expected a MapReport or Missing for {row!r}, got {describe(report)}")
            if isinstance(report, MapReport) and bool((report.statistics.mean < 0).any()):
                raise ValueError(
                    f'maps: expected maps without negative values, got some in {row!r}; take rectify="relu" '
                    'or "abs"'
                )

    @property
    def measured(self) -> dict[str, MapReport]:
        """The maps that there are, by row."""
        return {row: report for row, report in self.maps.items() if isinstance(report, MapReport)}

    @property
    def deepest(self) -> MapReport | None:
        """The map of the deepest unit; ``None`` where there is none."""
        units = [report for report in self.measured.values() if report.source.unit is not None]
        return units[-1] if units else None

    @property
    def output(self) -> MapReport | None:
        """The dead-pixel map; ``None`` where there is none."""
        return next((report for report in self.measured.values() if report.source.unit is None), None)


def present(part: Part | Missing | None) -> Part | None:
    """Return a part that was computed, ``None`` for any other."""
    return None if isinstance(part, Missing) else part
