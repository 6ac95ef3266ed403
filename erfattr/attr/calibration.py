"""The expected map of an attribution method over a data set, and what it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum.attr import Attribution, LayerAttribution, NeuronAttribution
from torch import Tensor, nn

from erfattr._batches import (
    NOT_FINITE,
    Finite,
    arguments_of_each,
    as_arguments,
    count_images,
    numbered_batches,
    refuse_non_finite,
)
from erfattr._checks import check_choice, check_positive_int, describe, is_int
from erfattr._model import device_and_dtype, find_layer, untouched, weights_hash
from erfattr._progress import progress
from erfattr.attr.targets import OutputTarget, named_classes
from erfattr.metrics.statistics import MapSource, MapStatistics, StreamingStatistics
from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields

# What belongs to one call and not to the method: the data, and how much of it is computed at once.
_OF_THE_CALL = {
    "additional_forward_args",
    "baselines",
    "feature_mask",
    "internal_batch_size",
    "nt_samples_batch_size",
    "perturbations_per_eval",
    "return_convergence_delta",
    "show_progress",
    "target",
}
_MAPS = "inputs: expected finite attributions, got NaN or infinity in image {image}"
# The modes of ``torch.nn.functional.interpolate`` for images.
INTERPOLATE_MODES = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")


@dataclass(frozen=True)
class Calibration:
    """The mean absolute attribution of one method on one model, and what that is.

    Attributes:
        statistics: The map with its standard error and number of images; its ``source`` holds the target and
            the size of the images.
        method: Name of the method, with what it wraps.
        settings: Arguments of ``attribute`` that change the map, in words.
        weights_sha256: Hash of the model's weights.
        period: The model's total stride in pixels, (vertical, horizontal), with which the map repeats;
            ``None`` where it could not be read.

    Example:
        >>> from captum.attr import Saliency
        >>> from erfattr import DebiasedAttribution, demo_model, sample_images
        >>> debiased = DebiasedAttribution.calibrate(Saliency(demo_model()), sample_images(2, size=64))
        >>> debiased.sensitivity_map.method, debiased.sensitivity_map.period
        ('Saliency()', (32, 32))
    """

    statistics: MapStatistics
    method: str
    settings: dict[str, str]
    weights_sha256: str
    period: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.statistics, MapStatistics):
            raise TypeError(f"statistics: expected a MapStatistics, got {describe(self.statistics)}")
        for name in ("method", "weights_sha256"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected a text, got {describe(getattr(self, name))}")
        texts = isinstance(self.settings, dict) and all(
            isinstance(word, str) for pair in self.settings.items() for word in pair
        )
        if not texts:
            raise TypeError(f"settings: expected texts by name, got {describe(self.settings)}")
        if self.period is not None and not (
            isinstance(self.period, tuple) and len(self.period) == 2 and all(map(is_int, self.period))
        ):
            raise TypeError(f"period: expected a pair of integers or None, got {describe(self.period)}")


def calibrate(
    method: Attribution,
    inputs: Any,
    *,
    target: OutputTarget = "predicted",
    interpolate_mode: str | None = None,
    max_examples: int | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> Calibration:
    r"""Average the absolute attributions of a method over images and channels.

    .. math:: R_{xy} = \frac{1}{N C} \sum_{n, z} |A_{nzxy}|

    Images are put where the model is, in its dtype. It runs in evaluation mode and comes back as it was, as
    does the random state. Memory does not grow with the number of images. It does not say what matters in any
    one image.

    Args:
        method: A Captum attribution that returns maps of the input's size, on a ``torch.nn.Module``.
        inputs: An iterable of batches (a ``DataLoader``), or one batch, as `DeadPixelMap` takes them.
        target: Which output is explained: an index, or for each image the ``"predicted"`` class or its
            ``"label"``; ``None`` where the model has one output an image.
        interpolate_mode: How a map of another size (that of a layer) is brought to the input's.
        max_examples: Stop after this many images.
        show_progress: Show a progress bar on standard error.
        **settings: Further arguments of the method's ``attribute``, such as ``n_steps=16``.

    Returns:
        The `Calibration`.

    Raises:
        TypeError: ``method`` is no Captum attribution, or its model is no ``torch.nn.Module``.
        ValueError: an unknown ``interpolate_mode``; no image; labels that are missing; attributions of
            another size than the images, not finite, or zero on all images.

    Example:
        >>> from captum.attr import Saliency
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, stride=2, bias=False), nn.Flatten(), nn.AvgPool1d(4))
        >>> _ = nn.init.constant_(model[0].weight, -4.0)
        >>> calibrate(Saliency(model), torch.zeros(3, 1, 4, 4), target=0).statistics.mean
        tensor([[1., 0., 1., 0.],
                [0., 0., 0., 0.],
                [1., 0., 1., 0.],
                [0., 0., 0., 0.]], dtype=torch.float64)
    """
    model = checked_model(method)
    check_interpolate_mode(interpolate_mode)
    if max_examples is not None:
        check_positive_int("max_examples", max_examples)
    streaming = StreamingStatistics()
    size, channels = (0, 0), 0
    device, dtype = device_and_dtype(model)
    arguments = arguments_of_each(inputs, as_arguments(settings.get("additional_forward_args")))
    with (
        untouched(model),
        _numpy_state_kept(),
        progress(count_images(inputs, max_examples), show=show_progress) as bar,
    ):
        for first_index, images, labels in numbered_batches(
            inputs, target == "label", max_examples=max_examples
        ):
            size, channels = (images.shape[2], images.shape[3]), images.shape[1]
            images = images.to(device=device, dtype=dtype)
            extra = arguments(first_index, len(images))
            if extra:
                settings["additional_forward_args"] = extra
            chosen: Any = target
            if isinstance(target, str):
                check_choice("target", target, ("predicted", "label"))
                with torch.no_grad():
                    chosen = named_classes(target, model(images, *extra), labels, first_index)
            found = method.attribute(images, target=chosen, **settings)
            maps = to_size(found, size, interpolate_mode).detach().abs().mean(1)
            # Images on a GPU were not looked at before, and a ReLU's gradient hides their NaN.
            looked_at = [Finite.of(first_index, images, NOT_FINITE), Finite.of(first_index, maps, _MAPS)]
            refuse_non_finite(looked_at)
            streaming.update(maps, first_index)
            bar.update(len(images))
    if streaming.n_images == 0:
        raise ValueError("inputs: expected at least one image, got none")
    source = MapSource("output", None, None, None, target, "abs", size)
    statistics = streaming.result(source)
    if not bool(statistics.mean.any()):
        raise ValueError("inputs: the attributions are zero on all images")
    return Calibration(
        statistics,
        describe_method(method),
        describe_settings(settings),
        weights_hash(model),
        _period(model, size, channels),
    )


def _period(model: nn.Module, size: tuple[int, int], channels: int) -> tuple[int, int] | None:
    try:
        return total_stride(receptive_fields(model, size, in_channels=channels, probe=False))
    except ValueError:  # the map is not lost for it
        return None


@contextmanager
def _numpy_state_kept() -> Iterator[None]:
    """Give back what is drawn from NumPy's random state, as GradientShap does."""
    state = np.random.get_state()  # noqa: NPY002  (the state that others draw from)
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def refuse_other_method(calibration: Calibration, method: Attribution) -> None:
    """Raise ``ValueError`` unless ``calibration`` was made with this method on this model."""
    remedy = "calibrate again, or pass calibration.statistics to use the map all the same"
    mine = describe_method(method)
    if mine != calibration.method:
        raise ValueError(f"sensitivity_map: calibrated for {calibration.method}, got {mine}; {remedy}")
    digest = weights_hash(checked_model(method))
    if digest != calibration.weights_sha256:
        raise ValueError(
            f"sensitivity_map: calibrated for a model with weights {calibration.weights_sha256[:12]}..., got "
            f"one with {digest[:12]}...; {remedy}"
        )


def refuse_other_settings(calibration: Calibration, settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless ``attribute`` is called with the settings of the calibration."""
    mine = describe_settings(settings)
    for name in sorted({*mine, *calibration.settings}):
        its, now = calibration.settings.get(name, "the default"), mine.get(name, "the default")
        if its != now:
            raise ValueError(
                f"{name}: calibrated with {its}, got {now}; calibrate with the same, or pass "
                "calibration.statistics to use the map all the same"
            )


def describe_method(method: Attribution) -> str:
    """Return a method's class with what tells it from others of the class: what it wraps, layer, scaling."""
    parts = []
    inner = getattr(method, "attribution_method", None)
    if isinstance(inner, Attribution):
        parts.append(describe_method(inner))
    elif method.multiplies_by_inputs:
        parts.append("multiplies by inputs")
    if isinstance(method, (LayerAttribution, NeuronAttribution)) and isinstance(method.layer, nn.Module):
        parts.append(find_layer(method.forward_func, method.layer)[0])
    return f"{type(method).__name__}({', '.join(parts)})"


def describe_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of ``attribute`` that belong to the method, in words."""
    return {name: describe(value) for name, value in settings.items() if name not in _OF_THE_CALL}


def check_method(method: Any) -> None:
    """Raise ``TypeError`` unless ``method`` is a Captum attribution."""
    if not isinstance(method, Attribution):
        raise TypeError(
            f"method: expected a Captum attribution such as Saliency(model), got {describe(method)}"
        )


def checked_model(method: Any) -> nn.Module:
    """Return the model of a Captum attribution, or raise ``TypeError``."""
    check_method(method)
    model = method.forward_func
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"method: a calibration needs a torch.nn.Module, whose weights tell it from others, got "
            f"{describe(model)}"
        )
    return model


def check_interpolate_mode(mode: str | None) -> None:
    """Raise ``ValueError`` unless ``mode`` is one that images are interpolated with, or ``None``."""
    if mode is not None:
        check_choice("interpolate_mode", mode, INTERPOLATE_MODES)


def to_size(attributions: Any, size: tuple[int, int], interpolate_mode: str | None) -> Tensor:
    """Return attributions (N, C, H, W) of the image's size, interpolated where that is asked for."""
    if isinstance(attributions, tuple) and len(attributions) == 1:
        attributions = attributions[0]
    if not isinstance(attributions, Tensor) or attributions.ndim != 4:
        raise ValueError(f"method: expected attributions (N, C, H, W), got {describe(attributions)}")
    if attributions.shape[2:] == size:
        return attributions
    if interpolate_mode is None:
        raise ValueError(
            f"method: expected attributions of the image's size {size}, got {tuple(attributions.shape[2:])}; "
            'a layer\'s attributions are brought to it with interpolate_mode="bilinear"'
        )
    resized: Tensor = LayerAttribution.interpolate(attributions, size, interpolate_mode)
    return resized
