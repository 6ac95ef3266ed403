"""What a map can be the sensitivity of, and its gradient image by image (eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from erfattr._checks import describe
from erfattr._model import find_layer, hooked, observed
from erfattr.metrics.statistics import MapSource
from erfattr.receptive_field.field import ReceptiveField

Rectify = Literal["relu", "abs", "none"]
ToSpatial = Callable[[Any], Tensor]
OutputTarget = int | tuple[int, ...] | Literal["predicted", "label"] | None

RECTIFY: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "abs": torch.abs,
    "none": lambda gradient: gradient,
}


@dataclass(frozen=True)
class FeatureUnit:
    """A unit of a feature map, whose sensitivity is the effective receptive field (eq. 1).

    Attributes:
        layer: Module or dotted name; ``None``: the last spatial feature map before global pooling.
        unit: ``"center"``, which is (H // 2, W // 2), or the position (i, j) from 0.
        to_spatial: Brings the layer's output to (N, C, H, W) where it is not; see `from_channels_last` and
            `from_tokens`.
    """

    layer: nn.Module | str | None = None
    unit: tuple[int, int] | Literal["center"] = "center"
    to_spatial: ToSpatial | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and not isinstance(self.layer, (nn.Module, str)):
            raise TypeError(f"layer: expected a module, its dotted name or None, got {describe(self.layer)}")
        pair = isinstance(self.unit, tuple) and len(self.unit) == 2
        if not (self.unit == "center" or (pair and all(type(index) is int for index in self.unit))):
            raise ValueError(
                f'unit: expected "center" or a pair of integers (i, j), got {describe(self.unit)}'
            )
        if self.to_spatial is not None and not callable(self.to_spatial):
            raise TypeError(f"to_spatial: expected a callable or None, got {describe(self.to_spatial)}")


@dataclass(frozen=True)
class ModelOutput:
    """The network's output, whose sensitivity is the dead-pixel map.

    Attributes:
        target: ``None``: mean of all outputs of an image; an integer (or tuple of them, for outputs of more
            dimensions): that output; ``"predicted"``: the largest of the (N, classes) outputs; ``"label"``:
            the output of the loader's label.
    """

    target: OutputTarget = None

    def __post_init__(self) -> None:
        target = self.target
        whole = isinstance(target, tuple) and target and all(type(index) is int for index in target)
        if not (target is None or type(target) is int or whole or target in ("predicted", "label")):
            raise ValueError(
                'target: expected None, an integer, a tuple of integers, "predicted" or "label", '
                f"got {describe(target)}"
            )


def from_channels_last(features: Tensor) -> Tensor:
    """Bring (N, H, W, C) features, such as those inside a Swin transformer, to (N, C, H, W).

    Example:
        >>> from_channels_last(torch.zeros(1, 7, 8, 3)).shape
        torch.Size([1, 3, 7, 8])
    """
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise ValueError(f"features: expected a tensor of shape (N, H, W, C), got {describe(features)}")
    return features.permute(0, 3, 1, 2)


def from_tokens(grid: tuple[int, int], prefix: int = 1) -> ToSpatial:
    """Return a function that brings (N, prefix + H * W, C) tokens to (N, C, H, W).

    Args:
        grid: (H, W) of the patches, (14, 14) for 16-pixel patches of a 224-pixel image.
        prefix: Tokens before the patches (class and register tokens), which are left out.

    Example:
        >>> from_tokens((14, 14))(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """
    height, width = grid

    def to_spatial(tokens: Tensor) -> Tensor:
        wanted = prefix + height * width
        if not isinstance(tokens, Tensor) or tokens.ndim != 3 or tokens.shape[1] != wanted:
            raise ValueError(
                f"tokens: expected a tensor of shape (N, {wanted}, C) for {prefix} prefix tokens and a "
                f"{height} x {width} grid, got {describe(tokens)}"
            )
        patches = tokens[:, prefix:].transpose(1, 2)
        return patches.reshape(len(tokens), -1, height, width)

    return to_spatial


@dataclass(frozen=True)
class GradientPlan:
    """The sources as one image showed them: which modules to watch, where in them, how often they run.

    Attributes:
        model: What is run.
        sources: The sources.
        rectify: What is done to each image's gradient.
        image_shape: (C, H, W) of the images.
        modules: The watched modules by name.
        runs: How often each runs in one forward pass.
        layers: Name of the layer of each source that is a unit, by the source's index.
        feature_sizes: (H, W) of its map.
        units: Its position.
        features: The unit's channels on the one image, (C,).
    """

    model: Callable[..., Any]
    sources: Sequence[FeatureUnit | ModelOutput]
    rectify: str
    image_shape: tuple[int, int, int]
    modules: dict[str, nn.Module]
    runs: dict[str, int]
    layers: dict[int, str]
    feature_sizes: dict[int, tuple[int, int]]
    units: dict[int, tuple[int, int]]
    features: dict[int, Tensor]

    def maps(
        self, images: Tensor, labels: Tensor | None, extra: tuple[Any, ...], first_index: int
    ) -> list[Tensor]:
        """Return for each source the rectified gradient of every image, (N, H, W)."""
        # Detached, so the caller's tensor keeps its own flag; an inference tensor cannot take one at all.
        images = (images.clone() if images.is_inference() else images.detach()).requires_grad_(True)
        # The model gets a copy: it may work in place on its input, which a leaf does not allow.
        seen, output = observed(
            self.modules,
            lambda name, value: self._unit_sums(name, value, len(images)),
            lambda: self.model(images.clone(), *extra),
            stop_after=self.runs if len(self.units) == len(self.sources) else None,
        )
        scalars: dict[int, Tensor] = {
            index: scalar for by_index in seen.values() for index, scalar in by_index.items()
        }
        for index, source in enumerate(self.sources):
            if isinstance(source, ModelOutput):
                scalars[index] = _output_sum(output, source.target, labels, len(images), first_index)
        maps = []
        for index in range(len(self.sources)):
            scalar = scalars[index]
            gradient = None
            if scalar.requires_grad:
                (gradient,) = torch.autograd.grad(
                    scalar, images, retain_graph=index < len(self.sources) - 1, allow_unused=True
                )
            if gradient is None:
                name = f"layer {self.layers[index]!r}" if index in self.layers else "the output"
                raise ValueError(f"model: {name} does not depend on the images")
            maps.append(RECTIFY[self.rectify](gradient.mean(1)))
        return maps

    def describe(self, fields: Mapping[str, ReceptiveField]) -> list[MapSource]:
        """Say of each source what it is, with the pixel its unit is centred on."""
        size = self.image_shape[1:]
        described = []
        for index, source in enumerate(self.sources):
            if isinstance(source, ModelOutput):
                described.append(MapSource("output", None, None, None, source.target, self.rectify, size))
                continue
            layer, unit, feature_size = self.layers[index], self.units[index], self.feature_sizes[index]
            field = fields.get(layer)
            center = field.center(unit) if field is not None and field.output_size == feature_size else None
            described.append(MapSource(layer, unit, feature_size, center, None, self.rectify, size))
        return described

    def _unit_sums(self, name: str, value: Any, images: int) -> dict[int, Tensor]:
        """Eq. 1 for every unit of one layer, summed over the batch."""
        sums = {}
        for index, (i, j) in self.units.items():
            if self.layers[index] == name:
                features = _spatial(self.sources[index], name, value, images)
                sums[index] = features[:, :, i, j].mean(1).sum()
        return sums


def make_plan(
    model: Callable[..., Any],
    sources: Sequence[FeatureUnit | ModelOutput],
    rectify: str,
    image: Tensor,
    extra: tuple[Any, ...],
) -> GradientPlan:
    """Run the model once on one image and resolve every source with what is seen."""
    layers: dict[int, str] = {}
    modules: dict[str, nn.Module] = {}
    default: str | None = None
    for index, source in enumerate(sources):
        # Units of other callables were refused by the constructor.
        if isinstance(source, FeatureUnit) and isinstance(model, nn.Module):
            layer = source.layer
            if layer is None:
                layer = default = default or last_spatial_layer(model, image, extra)
            layers[index], module = find_layer(model, layer)
            modules[layers[index]] = module
    runs = dict.fromkeys(modules, 0)
    sizes: dict[int, tuple[int, int]] = {}
    units: dict[int, tuple[int, int]] = {}
    vectors: dict[int, Tensor] = {}

    def look(name: str, value: Any) -> None:
        runs[name] += 1
        for index, layer in layers.items():
            if layer == name:
                wanted = sources[index]
                features = _spatial(wanted, name, value, 1)
                sizes[index] = height, width = features.shape[2], features.shape[3]
                unit = wanted.unit if isinstance(wanted, FeatureUnit) else "center"
                units[index] = i, j = (height // 2, width // 2) if unit == "center" else unit
                if not (0 <= i < height and 0 <= j < width):
                    raise ValueError(
                        f"unit: expected a position inside the {height} x {width} map of layer "
                        f"{name!r}, got {(i, j)}"
                    )
                vectors[index] = features[0, :, i, j].detach().clone()

    with torch.no_grad():
        observed(modules, look, lambda: model(image.clone(), *extra))
    shape = (image.shape[1], image.shape[2], image.shape[3])
    return GradientPlan(model, sources, rectify, shape, modules, runs, layers, sizes, units, vectors)


def last_spatial_layer(model: nn.Module, image: Tensor, additional_forward_args: tuple[Any, ...] = ()) -> str:
    """Return the dotted name of the last spatial feature map before global pooling.

    That is the last module to finish whose output is (N, C, H, W) with more than one position and that is
    not itself an adaptive pooling; of modules that end together the outermost.

    Raises:
        ValueError: no module of the model has such an output.
    """
    shapes: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            shapes.append((name, tuple(output.shape)))

    pooling = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    candidates = {
        name: module for name, module in model.named_modules() if name and not isinstance(module, pooling)
    }
    with torch.no_grad(), hooked(candidates, note):
        model(image.clone(), *additional_forward_args)
    if not shapes:
        raise ValueError(
            f"layer: no module of the {type(model).__name__} gives an output of shape (N, C, H, W) with more "
            "than one position; name a layer, and bring its output to that shape with to_spatial="
        )
    return shapes[-1][0]


def _spatial(source: FeatureUnit | ModelOutput, name: str, output: Any, images: int) -> Tensor:
    """Return a layer's output as (N, C, H, W), or say why it is not."""
    to_spatial = source.to_spatial if isinstance(source, FeatureUnit) else None
    features = output if to_spatial is None else to_spatial(output)
    if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != images:
        by = "" if to_spatial is None else " after to_spatial"
        raise ValueError(
            f"layer: expected {name!r} to give a tensor of shape ({images}, C, H, W){by}, got "
            f"{describe(features)}; to_spatial= brings another layout to that shape"
        )
    return features


def _output_sum(
    output: Any, target: OutputTarget, labels: Tensor | None, images: int, first_index: int
) -> Tensor:
    """Select what ``target`` names from the output and sum it over the batch."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"model: expected its output to be a tensor, got {describe(output)}; wrap the model in a "
            "module that returns the tensor to explain"
        )
    if output.ndim < 1 or len(output) != images:
        raise ValueError(f"model: expected an output of shape ({images}, ...), got {tuple(output.shape)}")
    if target is None:
        return output.flatten(1).mean(1).sum() if output.ndim > 1 else output.sum()
    if isinstance(target, str):
        return output.gather(1, named_classes(target, output, labels, first_index)[:, None]).sum()
    index = (target,) if isinstance(target, int) else target
    shape = output.shape[1:]
    if len(index) != len(shape) or not all(
        0 <= position < length for position, length in zip(index, shape, strict=True)
    ):
        raise ValueError(f"target: expected an index into outputs of shape {tuple(shape)}, got {target}")
    return output[(slice(None),) + index].sum()  # noqa: RUF005  (an index unpacked needs Python 3.11)


def named_classes(target: str, output: Tensor, labels: Tensor | None, first_index: int) -> Tensor:
    """Return the class of each image that ``target``, ``"predicted"`` or ``"label"``, names."""
    if output.ndim != 2:
        raise ValueError(
            f'target: "{target}" expects an output of shape (N, classes), got {tuple(output.shape)}'
        )
    return output.argmax(1) if target == "predicted" else _as_labels(labels, output, first_index)


def _as_labels(labels: Tensor | None, output: Tensor, first_index: int) -> Tensor:
    if labels is None or labels.ndim != 1 or len(labels) != len(output) or labels.is_floating_point():
        came = "none" if labels is None else describe(labels)
        raise ValueError(
            f'target: "label" expects one integer label an image with every batch, got {came} in the '
            f"batch that begins with image {first_index}"
        )
    labels = labels.to(device=output.device, dtype=torch.int64)
    classes = output.shape[1]
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(
            f'target: "label" expects labels from 0 to {classes - 1}, got {labels.min().item()} to '
            f"{labels.max().item()} in the batch that begins with image {first_index}"
        )
    return labels
