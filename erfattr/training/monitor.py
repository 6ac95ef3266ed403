"""Maps in the course of a training: numbers and a figure of fixed images, at a bounded cost, for any loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor, nn

from erfattr._checks import check_fraction, check_module, check_positive_int, describe
from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.attr.targets import OutputTarget
from erfattr.datasets.image_loader import ImageLoader
from erfattr.metrics.sizes import centroid
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.map_report import MapReport, analyse_map
from erfattr.report.maps import draw_map

# What a map will cost is tried on so many images before the first one.
_TRIED = 2


@dataclass(frozen=True)
class PixelWatch:
    """What one look at a network's pixels gave.

    Attributes:
        output: The dead-pixel map of the output, measured.
        unit: The effective receptive field of the last layer's middle unit, measured.

    Example:
        >>> from erfattr import demo_model, sample_images, watch_pixels
        >>> watch = watch_pixels(demo_model(), sample_images(16, size=64))
        >>> watch.output.source.layer, watch.unit.source.layer
        ('output', 'layer4')
    """

    output: MapReport
    unit: MapReport

    def scalars(self) -> dict[str, float]:
        """Return what a logger takes: each number, and its standard error over images as ``NAME_error``.

        ``L1`` and ``phase_contrast`` are of the output's map, without sampling noise; ``sigma_y``,
        ``sigma_x`` (Gaussian fit) and ``centroid_y``, ``centroid_x`` of the unit's, in pixels. What cannot be
        measured (no Gaussian fits, a stride of 1) is left out.
        """
        found: dict[str, float | None] = {}
        index = self.output.corrected.get("L1")
        if index is not None:
            found |= {"L1": index.value, "L1_error": index.standard_error}
        phase = self.output.phase
        if phase is not None:
            found |= {
                "phase_contrast": phase.corrected_contrast,
                "phase_contrast_error": phase.contrast_standard_error,
            }
        fit = self.unit.fit
        if fit is not None:
            found |= {"sigma_y": fit.sigma_y, "sigma_x": fit.sigma_x}
            if fit.standard_errors.source == "images":
                errors = fit.standard_errors
                found |= {"sigma_y_error": errors.sigma_y, "sigma_x_error": errors.sigma_x}
        found["centroid_y"], found["centroid_x"] = centroid(self.unit.statistics.mean)
        if self.unit.centroid_error is not None:
            found["centroid_y_error"], found["centroid_x_error"] = self.unit.centroid_error
        return {name: float(value) for name, value in found.items() if value is not None}

    def figure(self) -> Figure:
        """Draw the output's map: as a whole, its pixels, its profile, its phases."""
        return draw_map(self.output)


def watch_pixels(
    model: nn.Module, images: Tensor, *, batch_size: int = 16, target: OutputTarget = "predicted"
) -> PixelWatch:
    """Map a network in the middle of its training, and leave it as it was: mode, gradients, random state.

    Inside a ``torch.distributed`` group this process works alone, so one of them may call it.

    Args:
        model: The network, not wrapped (``ddp.module``).
        images: (N, C, H, W), the same each time; 16 or more for standard errors.
        batch_size: Images a forward pass.
        target: Which output is mapped; ``"mean"`` for a network that is not trained yet.

    Returns:
        The maps, measured: `PixelWatch.scalars` for a logger, `PixelWatch.figure` for a look.

    Raises:
        TypeError: ``model`` is not a module, ``images`` not a tensor.
        ValueError: as `SensitivityMaps`.

    Example:
        >>> import torch
        >>> from erfattr import demo_model, sample_images
        >>> watch = watch_pixels(demo_model(), sample_images(16, 64))
        >>> sorted(watch.scalars())[:4]
        ['L1', 'L1_error', 'centroid_x', 'centroid_x_error']
    """
    check_module("model", model)
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a tensor (N, C, H, W), got {describe(images)}")
    check_positive_int("batch_size", batch_size)
    unit, output = SensitivityMaps(model, [FeatureUnit(), ModelOutput(target)]).attribute(
        ImageLoader(images, batch_size), distributed=False
    )
    fields = receptive_fields(
        model, (images.shape[-2], images.shape[-1]), in_channels=images.shape[1], probe=False
    )
    field = fields.get(unit.source.layer) if unit.source is not None else None
    return PixelWatch(
        analyse_map(output, period=None if field is None else field.period), analyse_map(unit, field)
    )


class PixelWatcher:
    """Decides when to look: every so many epochs, for a share of the time at most.

    Args:
        images: (N, C, H, W), fixed.
        every: Look after every so many epochs.
        share: Spend at most this share of the time since the training began, in (0, 1]; a look that would
            cost more is left out, and said.
        batch_size: Images a forward pass.
        target: Which output is mapped.
        say: Called with a sentence when a look is left out.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: fewer than two images, ``every`` below 1, ``share`` outside (0, 1].

    Example:
        >>> from erfattr import demo_model, sample_images
        >>> model = demo_model()
        >>> watcher = PixelWatcher(sample_images(16, 64), every=2, share=1.0)
        >>> watcher.begin()
        >>> watcher.after_epoch(0, model) is None  # epoch 0 of every 2 is not due
        True
    """

    def __init__(
        self,
        images: Tensor,
        *,
        every: int = 1,
        share: float = 0.05,
        batch_size: int = 16,
        target: OutputTarget = "predicted",
        say: Callable[[str], Any] = lambda _: None,
    ) -> None:
        if not isinstance(images, Tensor):
            raise TypeError(f"images: expected a tensor (N, C, H, W), got {describe(images)}")
        if images.ndim != 4 or len(images) < _TRIED:
            raise ValueError(f"images: expected (N, C, H, W), two or more, got shape {tuple(images.shape)}")
        check_positive_int("every", every)
        check_fraction("share", share)
        check_positive_int("batch_size", batch_size)
        self.images = images
        self.every = every
        self.share = share
        self.batch_size = batch_size
        self.target = target
        self.say = say
        self.begin()

    def begin(self) -> None:
        """Count the time from here on."""
        self._begun = time.perf_counter()
        self.spent = 0.0
        self._expected: float | None = None

    def after_epoch(self, epoch: int, model: nn.Module) -> PixelWatch | None:
        """Look at the network after an epoch, counted from 0, if it is due and can be afforded."""
        if (epoch + 1) % self.every:
            return None
        trained = time.perf_counter() - self._begun - self.spent
        if self._expected is None and self.share < 1:
            started = time.perf_counter()
            SensitivityMaps(model, [FeatureUnit(), ModelOutput(self.target)]).per_image(
                self.images, max_examples=_TRIED
            )
            cost = time.perf_counter() - started
            self.spent += cost
            self._expected = cost * len(self.images) / _TRIED
        expected = self._expected or 0.0
        # spent / (trained + spent) stays below the share.
        if self.share < 1 and self.spent + expected > self.share / (1 - self.share) * trained:
            self.say(
                f"no map after epoch {epoch}: it would take some {expected:.1f} s, and maps may take "
                f"{100 * self.share:g} % of the time; so far {trained:.1f} s of training and "
                f"{self.spent:.1f} s of maps"
            )
            return None
        started = time.perf_counter()
        found = watch_pixels(model, self.images, batch_size=self.batch_size, target=self.target)
        self._expected = time.perf_counter() - started
        self.spent += self._expected
        return found
