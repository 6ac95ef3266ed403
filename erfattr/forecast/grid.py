"""Which layers make the grid of a map, by forecast: each without its own pattern, and each alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from erfattr._checks import check_choice
from erfattr.forecast.forecasting import Prepared, Unit, Weights, prepare
from erfattr.metrics.imbalance import phase_contrast, phase_profile


@dataclass(frozen=True)
class GridSource:
    """What one strided layer contributes to the grid.

    Attributes:
        layer: Dotted name.
        without: Contrast of the forecast with this layer's pattern smoothed away.
        alone: Contrast with those of all other strided layers smoothed away.
        share: 1 - (``without`` / contrast)^2: how much of the profile's variance goes with it.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 2, stride=2))
        >>> found = grid_sources(model, "output", weights="expected", input_size=64, in_channels=1)
        >>> [(source.layer, source.share > 0.9) for source in found.sources]
        [('0', True), ('1', False)]
    """

    layer: str
    without: float
    alone: float
    share: float


@dataclass(frozen=True)
class GridSources:
    """Where the grid of a forecast comes from.

    Attributes:
        layer: The layer whose map is forecast, or ``"output"``.
        unit: The position; ``None`` for the output.
        period: Of the grid, rows and columns in pixels.
        contrast: Phase contrast of the forecast.
        sources: One entry for each strided layer on the way, in order.
        left: Contrast with the patterns of all of them smoothed away: slices and patches that no
            convolution or pool made, the border, and the curvature of the envelope.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 2, stride=2))
        >>> found = grid_sources(model, "output", weights="expected", input_size=64, in_channels=1)
        >>> found.layer, found.period, found.left < found.contrast
        ('output', (4, 4), True)
    """

    layer: str
    unit: Unit | None
    period: tuple[int, int]
    contrast: float
    sources: tuple[GridSource, ...]
    left: float

    @property
    def remainder(self) -> float:
        """What the shares do not add up to, 1 less their sum.

        Negative where patterns agree, and each is needed for what they make together; positive where they
        fill each other's gaps, or where ``left`` is large.
        """
        return 1.0 - sum(source.share for source in self.sources)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table as cells, headings first."""
        found: list[tuple[str, ...]] = [("layer", "contrast without it", "alone", "share")]
        found += [
            (s.layer, f"{s.without:.4f}", f"{s.alone:.4f}", f"{100 * s.share:.0f} %") for s in self.sources
        ]
        found.append(("all of them", f"{self.left:.4f}", f"{self.contrast:.4f}", ""))
        found.append(("not additive", "", "", f"{100 * self.remainder:.0f} %"))
        return found


def grid_sources(
    model: nn.Module,
    layer: nn.Module | str | None = None,
    unit: Unit | Literal["center"] = "center",
    weights: Weights = "given",
    *,
    input_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
) -> GridSources:
    """Say how much of the grid's contrast each strided layer makes, by forecast, without images.

    A layer's own pattern is smoothed away by a box as wide as its stride over what it hands back: the comb of
    its stride becomes flat, whatever its kernel, and the energy stays. What is then left of the contrast is
    compared with the whole (``without``); with all other layers smoothed, what this one makes alone. Shares
    are of the variance of the phase profile. They add up where patterns are independent; what they do not add
    up to is stated. Layers that step by slices or patches (Swin) are not seen: they show in ``left``.

    Args:
        model: As for `forecast_map`, and all other arguments.
        layer: See there.
        unit: See there.
        weights: See there.
        input_size: See there.
        in_channels: See there.

    Returns:
        The contrast and its sources.

    Raises:
        TypeError: see `forecast_map`.
        ValueError: see there; the map has no period shorter than the image.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 2, stride=2))
        >>> found = grid_sources(model, "output", weights="expected", input_size=64, in_channels=1)
        >>> found.period, [source.layer for source in found.sources if source.share > 0.9]
        ((4, 4), ['0'])
    """
    check_choice("weights", weights, ("given", "expected"))
    prepared = prepare(model, layer, unit, input_size, in_channels, None)
    return sources_of(prepared, weights)


def sources_of(prepared: Prepared, weights: Weights) -> GridSources:
    """Do what `grid_sources` does for a pass that has been written down.

    Raises:
        ValueError: the map has no period shorter than the image.
    """
    period = period_of(prepared)
    strided = prepared.strided

    def contrast(even: tuple[str, ...] = ()) -> float:
        return contrast_of(prepared.map(weights, even), period)

    whole = contrast()
    sources = []
    for name in strided:
        without = contrast((name,))
        alone = contrast(tuple(other for other in strided if other != name))
        share = 1.0 - (without / whole) ** 2 if whole > 0 else 0.0
        sources.append(GridSource(name, without, alone, share))
    return GridSources(prepared.layer, prepared.unit, period, whole, tuple(sources), contrast(strided))


def period_of(prepared: Prepared) -> tuple[int, int]:
    """Return the period of a forecast.

    Raises:
        ValueError: it has none shorter than the image.
    """
    if prepared.period is None:
        raise ValueError(
            f"input_size: expected an image larger than the total stride as far as {prepared.layer!r}, got "
            f"{tuple(prepared.tape.image.shape[2:])}: no grid repeats inside it"
        )
    return prepared.period


def contrast_of(forecast: Tensor, period: tuple[int, int]) -> float:
    """Return the phase contrast of a map."""
    return phase_contrast(phase_profile(forecast, period))
