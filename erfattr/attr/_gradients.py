"""Eq. 1 and 2: the scalar of each source and its gradient, image by image, for a batch in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from erfattr._checks import Rectify
from erfattr._model import gradient_of, observed
from erfattr.metrics.statistics import MapSource
from erfattr.receptive_field.layout import Layout

Unit = tuple[int, int]

RECTIFY: dict[Rectify, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "abs": torch.abs,
    "none": lambda gradient: gradient,
}


class Batch(NamedTuple):
    """The images of one forward pass, where and as the model wants them.

    Attributes:
        images: (N, C, H, W).
        labels: (N,) where a source wants them.
        extra: Further arguments of the model.
        first_index: Number of the first image in the whole sequence.
    """

    images: Tensor
    labels: Tensor | None
    extra: tuple[Any, ...]
    first_index: int

    def part(self, start: int, images: int | None) -> Batch:
        """Return so many of the images from this one on; ``None``: all that are left."""
        chosen = slice(start, None if images is None else start + images)
        labels = None if self.labels is None else self.labels[chosen]
        return self._replace(images=self.images[chosen], labels=labels, first_index=self.first_index + start)


@dataclass(frozen=True)
class ResolvedSource:
    """A source as one image showed it.

    Attributes:
        layer: Name of the layer whose output the scalar reads; ``""``: the network's own output.
        scalar: From that output and the batch to the scalar, summed over the images: the gradient of the sum
            is, image by image, the gradient of each.
        described: What the map is of; a unit's centre comes later, from the receptive field.
        values: What the scalar reads of the one image, to prove that a crop shows the same; ``None`` for a
            source that is never run on a crop.
        layout: How the layer's output is a feature map; ``None`` where the caller brings it to one, and of
            the output.
    """

    layer: str
    scalar: Callable[[Any, Batch], Tensor]
    described: MapSource
    values: Tensor | None = None
    layout: Layout | None = None

    @property
    def title(self) -> str:
        """What an error calls it."""
        return f"layer {self.layer!r}" if self.layer else "the output"


def unit_values(features: Tensor, unit: Unit, channel: int | None = None) -> Tensor:
    """Return what F of eq. 1 is the mean of: (N, K) channels at one position, or (N, 1) of one of them."""
    values = features[:, :, unit[0], unit[1]]
    return values if channel is None else values[:, channel : channel + 1]


def unit_sum(features: Tensor, unit: Unit, channel: int | None = None) -> Tensor:
    """Return F of eq. 1, the mean over channels at one position, summed over the images."""
    return unit_values(features, unit, channel).mean(1).sum()


def rectified_gradients(
    scalars: Sequence[Tensor], titles: Sequence[str], images: Tensor, rectify: Rectify
) -> list[Tensor]:
    """Return for each scalar G of eq. 2, rectified: its gradient's mean over colours, (N, H, W).

    Raises:
        ValueError: a scalar does not depend on the images.
    """
    maps = []
    for index, (scalar, title) in enumerate(zip(scalars, titles, strict=True)):
        # The graph is shared by the sources, so all but the last keep it.
        gradient = gradient_of(scalar, images, retain_graph=index < len(scalars) - 1)
        if gradient is None:
            raise ValueError(f"model: {title} does not depend on the images")
        maps.append(RECTIFY[rectify](gradient.mean(1)))
    return maps


def refuse_hidden(layer: str) -> None:
    """Raise where a layer runs with gradients switched off, though they are wanted."""
    if not torch.is_grad_enabled():
        raise ValueError(
            f"model: layer {layer!r} runs with gradients switched off, as inside of torch.no_grad() or of "
            "gradient checkpointing with use_reentrant=True; use_reentrant=False keeps them"
        )


def as_leaf(images: Tensor) -> Tensor:
    """Return the images as a tensor of our own that takes a gradient; the caller's keeps its own flag."""
    # An inference tensor cannot take one at all.
    return (images.clone() if images.is_inference() else images.detach()).requires_grad_(True)


@dataclass(frozen=True)
class GradientPlan:
    """What is run and watched to get the gradients of all sources from one forward pass.

    Attributes:
        model: What is run.
        sources: The sources, resolved.
        modules: The watched modules by name.
        runs: How often each of them runs in one forward pass.
        rectify: What is done to each image's gradient.
    """

    model: Callable[..., Any]
    sources: Sequence[ResolvedSource]
    modules: Mapping[str, nn.Module]
    runs: Mapping[str, int]
    rectify: Rectify

    def maps(self, batch: Batch) -> list[Tensor]:
        """Return for each source the rectified gradient of every image (eq. 2), (N, H, W)."""
        images = as_leaf(batch.images)
        scalars = self._scalars(batch._replace(images=images))
        titles = [source.title for source in self.sources]
        return rectified_gradients(scalars, titles, images, self.rectify)

    def _scalars(self, batch: Batch) -> list[Tensor]:
        """Run the model, no further than the last layer that is wanted, and return every source's scalar."""

        def read(name: str, value: Any) -> dict[int, Tensor]:
            if name:
                refuse_hidden(name)
            # Read at once: what runs next may work in place on the layer's output.
            return {
                index: source.scalar(value, batch)
                for index, source in enumerate(self.sources)
                if source.layer == name
            }

        ends_early = all(source.layer for source in self.sources)
        seen, output = observed(
            self.modules,
            read,
            # The model gets a copy: it may work in place on its input, which a leaf does not allow.
            lambda: self.model(batch.images.clone(), *batch.extra),
            stop_after=self.runs if ends_early else None,
        )
        scalars = {index: scalar for by_index in seen.values() for index, scalar in by_index.items()}
        if not ends_early:
            scalars |= read("", output)
        return [scalars[index] for index in range(len(self.sources))]
