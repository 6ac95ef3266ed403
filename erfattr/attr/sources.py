"""What a map can be the sensitivity of: a unit of a feature map, or the network's output.

A kind of source is one subclass of `Source`: it says which layer it reads and what scalar it makes of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from typing_extensions import override

from erfattr._checks import Rectify, as_int, describe
from erfattr._model import find_layer, refuse_compiled_layer
from erfattr.attr._gradients import Batch, ResolvedSource, Unit, unit_sum, unit_values
from erfattr.attr.layouts import ConstantMeanError, ToSpatial, is_constant_mean, read_as_map
from erfattr.attr.selection import Select, check_select, named_select, selected
from erfattr.attr.targets import OutputTarget, check_target, output_sum
from erfattr.metrics.statistics import MapSource
from erfattr.receptive_field.layout import Layout


class FirstLook(NamedTuple):
    """What the first pass shows a source of its layer.

    Attributes:
        layer: Name of the layer that the source reads; ``""``: the network's own output.
        value: The layer's output.
        images: Number of images in that pass.
        rectify: What will be done to each image's gradient.
        input_size: (H, W) of the images.
        find: Gives the layout of a tensor that the layer gave, or in words why it is not known.
    """

    layer: str
    value: Any
    images: int
    rectify: Rectify
    input_size: tuple[int, int]
    find: Callable[[Tensor], Layout | str]


class Source(ABC):
    """What a map is the sensitivity of: a scalar that a network gives for each image."""

    @property
    def wants_labels(self) -> bool:
        """Whether the scalar needs the loader's labels."""
        return False

    @property
    def wants_layout(self) -> bool:
        """Whether it has to be known where the rows and columns of the layer's output lie."""
        return False

    @property
    def reading(self) -> Hashable:
        """How the layer's output is read; what is found of a layout holds for sources that read alike."""
        return self.wants_layout

    def check(self, model: Callable[..., Any]) -> None:  # noqa: B027  (most kinds have nothing to refuse)
        """Raise, before anything runs, where ``model`` cannot have this source."""

    @abstractmethod
    def identity(self, model: Callable[..., Any]) -> tuple[Any, ...]:
        """Return what a saved state must agree on: texts, numbers and tuples of them."""

    @abstractmethod
    def layer_in(self, model: Callable[..., Any]) -> str | None:
        """Return the name of the layer whose output is read.

        ``""`` is the network's own output, ``None`` the last spatial feature map before global pooling.
        """

    @abstractmethod
    def resolve(self, first: FirstLook) -> ResolvedSource:
        """Return the scalar and its description, or raise where the layer's output does not serve."""

    def unit_in(self, size: tuple[int, int]) -> Unit | None:
        """Return the unit in a feature map (H, W), inside or not; ``None``: it has no unit."""
        del size
        return None

    def at(self, layer: str, unit: Unit) -> Source | None:
        """Return the same at another unit, which a crop of the image may need; ``None``: it has no unit."""
        del layer, unit
        return None


@dataclass(frozen=True)
class FeatureUnit(Source):
    """A unit of a feature map, whose sensitivity is the effective receptive field (eq. 1).

    Attributes:
        layer: Module or dotted name; ``None``: the last spatial feature map before global pooling.
        unit: ``"center"``, which is (H // 2, W // 2), or the position (i, j) from 0.
        to_spatial: Brings the layer's output to (N, C, H, W) where it is not; see `from_channels_last` and
            `from_tokens`.
        channel: ``None``: the mean over channels, F of eq. 1; an index from 0: that channel alone.
        select: Of a layer that gives several tensors the index, key or attribute of one, or a callable that
            returns it; ``None``: the only one.

    Example:
        >>> from erfattr import FeatureUnit, SensitivityMaps, demo_model, sample_images
        >>> corners = [FeatureUnit("layer3", (1, 1)), FeatureUnit("layer3", (2, 2))]
        >>> maps = SensitivityMaps(demo_model(), corners).attribute(sample_images(2, size=64))
        >>> len(maps), maps[0].mean.shape
        (2, torch.Size([64, 64]))
    """

    layer: nn.Module | str | None = None
    unit: Unit | Literal["center"] = "center"
    to_spatial: ToSpatial | None = None
    channel: int | None = None
    select: Select = None

    def __post_init__(self) -> None:
        if self.layer is not None and not isinstance(self.layer, (nn.Module, str)):
            raise TypeError(f"layer: expected a module, its dotted name or None, got {describe(self.layer)}")
        object.__setattr__(self, "unit", as_int(self.unit))
        object.__setattr__(self, "channel", as_int(self.channel))
        pair = isinstance(self.unit, tuple) and len(self.unit) == 2
        if not (self.unit == "center" or (pair and all(type(index) is int for index in self.unit))):
            raise ValueError(
                f'unit: expected "center" or a pair of integers (i, j), got {describe(self.unit)}'
            )
        if self.to_spatial is not None and not callable(self.to_spatial):
            raise TypeError(f"to_spatial: expected a callable or None, got {describe(self.to_spatial)}")
        if self.channel is not None and type(self.channel) is not int:
            raise TypeError(f"channel: expected an integer or None, got {describe(self.channel)}")
        check_select(self.select)

    @property
    @override
    def wants_layout(self) -> bool:
        return self.to_spatial is None

    @property
    @override
    def reading(self) -> Hashable:
        return self.wants_layout, self.select

    @override
    def check(self, model: Callable[..., Any]) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: a layer's unit needs a torch.nn.Module, got {describe(model)}")
        name = "" if self.layer is None else find_layer(model, self.layer)[0]
        refuse_compiled_layer(model, name)

    @override
    def identity(self, model: Callable[..., Any]) -> tuple[Any, ...]:
        layer = self.layer
        if isinstance(layer, nn.Module) and isinstance(model, nn.Module):
            layer, _ = find_layer(model, layer)
        return (layer, self.unit, self.to_spatial is not None, self.channel, named_select(self.select))

    @override
    def layer_in(self, model: Callable[..., Any]) -> str | None:
        if self.layer is None or not isinstance(model, nn.Module):
            return None
        return find_layer(model, self.layer)[0]

    @override
    def resolve(self, first: FirstLook) -> ResolvedSource:
        name = first.layer
        reading, words = read_as_map(name, first.value, self.select, self.to_spatial, first.find)
        features = reading.features(first.value, first.images)
        channels, height, width = features.shape[1:]
        i, j = unit = self.unit_in((height, width))
        if not (0 <= i < height and 0 <= j < width):
            raise ValueError(
                f"unit: expected a position inside the {height} x {width} map of layer {name!r}, got {(i, j)}"
            )
        if self.channel is not None and not 0 <= self.channel < channels:
            raise ValueError(
                f"target: expected a channel of the {channels} of layer {name!r}, got {self.channel}"
            )

        def scalar(output: Any, batch: Batch) -> Tensor:
            return unit_sum(reading.features(output, len(batch.images)), unit, self.channel)

        if self.channel is None and is_constant_mean(features):
            raise ConstantMeanError(name, chosen=self.layer is not None)
        size = (height, width)
        described = MapSource(name, unit, size, None, self.channel, first.rectify, first.input_size, words)
        values = unit_values(features[:1], unit, self.channel).detach().clone()
        return ResolvedSource(name, scalar, described, values, reading.layout)

    @override
    def unit_in(self, size: tuple[int, int]) -> Unit:
        return (size[0] // 2, size[1] // 2) if self.unit == "center" else self.unit

    @override
    def at(self, layer: str, unit: Unit) -> Source | None:
        # What to_spatial does with a smaller map is not known.
        return None if self.to_spatial is not None else replace(self, layer=layer, unit=unit)


@dataclass(frozen=True)
class ModelOutput(Source):
    """The network's output, whose sensitivity is the dead-pixel map.

    Attributes:
        target: ``"predicted"``: the largest of the (N, classes) outputs, of outputs (N, classes, ...) at
            every position; ``"label"``: the output of the loader's label; an integer (or tuple of them, for
            outputs of more dimensions): that output; ``"mean"``: mean of all outputs of an image, which
            nearly cancels in a trained classifier; ``None``: ``"predicted"``.
        select: Of a network that gives several tensors the index, key or attribute of one, or a callable that
            returns it; ``None``: the only one, or that under ``"out"`` or ``"logits"``.

    Example:
        >>> from erfattr import FeatureUnit, ModelOutput, SensitivityMaps, demo_model, sample_images
        >>> both = SensitivityMaps(demo_model(), [FeatureUnit("layer4"), ModelOutput("predicted")])
        >>> [statistics.mean.shape for statistics in both.attribute(sample_images(2, size=64))]
        [torch.Size([64, 64]), torch.Size([64, 64])]
    """

    target: OutputTarget = None
    select: Select = None

    def __post_init__(self) -> None:
        check_target(self.target)
        object.__setattr__(self, "target", "predicted" if self.target is None else as_int(self.target))
        check_select(self.select)

    @property
    @override
    def wants_labels(self) -> bool:
        return self.target == "label"

    @override
    def identity(self, model: Callable[..., Any]) -> tuple[Any, ...]:
        del model
        return ("output", self.target, named_select(self.select))

    @override
    def layer_in(self, model: Callable[..., Any]) -> str | None:
        del model
        return ""

    @override
    def resolve(self, first: FirstLook) -> ResolvedSource:
        _, taken = selected("the model", first.value, self.select)

        def scalar(output: Any, batch: Batch) -> Tensor:
            tensor, _ = selected("the model", output, self.select)
            return output_sum(tensor, self.target, batch.labels, len(batch.images), batch.first_index)

        described = MapSource("output", None, None, None, self.target, first.rectify, first.input_size, taken)
        return ResolvedSource("", scalar, described)
