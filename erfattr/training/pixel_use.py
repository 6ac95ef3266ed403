"""How evenly a network uses its pixels, in a few numbers: imbalance, phase contrast, where a unit looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from erfattr._checks import check_module, check_positive_int, describe
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.datasets.image_loader import ImageLoader
from erfattr.metrics.corrected_imbalance import Estimate, corrected_imbalance
from erfattr.metrics.significance import estimate_phase_profile
from erfattr.metrics.sizes import centroid
from erfattr.receptive_field.trace import theoretical_receptive_field


@dataclass(frozen=True)
class PixelUse:
    """Numbers of a network's maps over images: of the mean output, and of the last layer's middle unit.

    The mean of all outputs serves every task, trained or not; in a trained classifier it nearly cancels, so
    compare it between networks that were trained alike, and take `DeadPixelMap` for one network.

    Attributes:
        l1: L1 of the output's map without its sampling noise.
        l2: L2, likewise.
        phase_contrast: Of the output's map, without its sampling noise.
        phase_error: Standard error of that.
        period: Stride in pixels, (vertical, horizontal), that the phases are of.
        layer: The last spatial feature map before global pooling.
        unit: The middle unit of that layer.
        unit_center: Pixel (y, x) that the strides and paddings put the unit on; ``None`` if not traced.
        centroid: Centre of mass (y, x) of the unit's effective receptive field.
        image_center: ((H - 1) / 2, (W - 1) / 2).
        n_images: Number of images.
    """

    l1: Estimate
    l2: Estimate
    phase_contrast: float
    phase_error: float
    period: tuple[int, int]
    layer: str
    unit: tuple[int, int]
    unit_center: tuple[float, float] | None
    centroid: tuple[float, float]
    image_center: tuple[float, float]
    n_images: int

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> PixelUse:
        """Return it from what `dataclasses.asdict` and JSON make of it."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in numbers.items()
        }
        values |= {name: Estimate(**numbers[name]) for name in ("l1", "l2")}
        return cls(**values)

    @property
    def offset(self) -> tuple[float, float]:
        """Centroid minus image centre, (y, x) in pixels; negative where the unit looks too far up or left."""
        return self.centroid[0] - self.image_center[0], self.centroid[1] - self.image_center[1]


class SmallImagesError(ValueError):
    """The images hold fewer than three of the network's strides."""


def measure_pixel_use(model: nn.Module, images: Tensor, batch_size: int = 16) -> PixelUse:
    """Measure imbalance, phase contrast and alignment of a network over images, in one pass.

    Args:
        model: The network; it comes back as it was.
        images: (N, C, H, W), at least three periods of the network's stride high and wide, so that the
            border, where phases look different, can be left out. They are put on the model's device batch by
            batch.
        batch_size: Images a forward pass.

    Returns:
        `PixelUse`.

    Raises:
        TypeError: ``model`` is not a module, ``images`` not a tensor, or ``batch_size`` not an integer.
        ValueError: too few images for standard errors, images that are too small, a stride that is not of
            whole pixels, or as `SensitivityMaps`.

    Example:
        >>> import torch
        >>> layer = nn.Conv2d(3, 1, 3, stride=2, padding=1, bias=False)
        >>> _ = nn.init.ones_(layer.weight)
        >>> model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> use = measure_pixel_use(model, torch.rand(16, 3, 9, 9))
        >>> use.unit, use.centroid, use.period, round(use.phase_contrast, 3)
        ((2, 2), (4.0, 4.0), (2, 2), 0.484)
    """
    check_module("model", model)
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a tensor (N, C, H, W), got {describe(images)}")
    check_positive_int("batch_size", batch_size)
    erf, output = SensitivityMaps(model, [FeatureUnit(), ModelOutput("mean")]).attribute(
        ImageLoader(images, batch_size)
    )
    height, width = output.mean.shape
    if erf.source is None or erf.source.unit is None:
        raise ValueError("model: expected a feature map with units")
    field = theoretical_receptive_field(model, erf.source.layer, (height, width))
    period = field.period
    if period is None:
        raise ValueError(f"model: expected a stride of whole pixels, got {field.stride} in {field.layer}")
    if height < 3 * period[0] - 2 or width < 3 * period[1] - 2:
        raise SmallImagesError(
            f"images: expected at least three strides of {period[0]} x {period[1]} pixels, "
            f"got {height} x {width}"
        )
    phase = estimate_phase_profile(output, period)
    return PixelUse(
        l1=corrected_imbalance(output, 1),
        l2=corrected_imbalance(output, 2),
        phase_contrast=phase.corrected_contrast,
        phase_error=phase.contrast_standard_error,
        period=period,
        layer=erf.source.layer,
        unit=erf.source.unit,
        unit_center=erf.source.center,
        centroid=centroid(erf.mean),
        image_center=((height - 1) / 2, (width - 1) / 2),
        n_images=output.n_images,
    )
