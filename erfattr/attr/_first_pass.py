"""The first forward pass of a run: which layers the sources read, how often they run, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from erfattr._checks import Rectify
from erfattr._model import hooked, observed
from erfattr.attr._gradients import Batch, GradientPlan, ResolvedSource, as_leaf, rectified_gradients
from erfattr.attr.layouts import is_constant_mean, is_feature_map, map_layers
from erfattr.attr.sources import FirstLook, Source


@dataclass(frozen=True)
class Layers:
    """What a pass shows of a model's structure, whatever its weights.

    Attributes:
        names: The layer that each source reads; ``""``: the network's own output.
        runs: How often each of them but the output runs in one pass.
        begun: The modules that have begun to run when the last wanted layer ends.
    """

    names: tuple[str, ...]
    runs: Mapping[str, int]
    begun: tuple[str, ...]


@dataclass(frozen=True)
class FirstPass:
    """What one pass over some images showed.

    Attributes:
        plan: The sources resolved, and what has to be watched for them.
        layers: What another pass will show again.
        scalars: Each source's scalar for these images.
        images: The leaf that the scalars depend on.
    """

    plan: GradientPlan
    layers: Layers
    scalars: tuple[Tensor, ...]
    images: Tensor

    def maps(self) -> list[Tensor]:
        """Return for each source the rectified gradient of every image; once, since it frees the graph."""
        titles = [source.title for source in self.plan.sources]
        return rectified_gradients(self.scalars, titles, self.images, self.plan.rectify)


class _LastMap(NamedTuple):
    """The last feature map so far.

    Attributes:
        name: Its layer.
        output: The map.
        version: How often it had been written to.
        begun: How many modules had begun to run.
        read: Whether the sources have read it.
    """

    name: str
    output: Tensor
    version: int
    begun: int
    read: bool


class _Reader:
    """Resolves the sources, and reads their scalars, the moment a layer has run."""

    def __init__(
        self,
        model: Callable[..., Any],
        sources: Sequence[Source],
        rectify: Rectify,
        batch: Batch,
        last_map: str | None,
    ) -> None:
        self._batch, self._rectify = batch, rectify
        self._readers: dict[str | None, list[tuple[int, Source]]] = {}
        for index, source in enumerate(sources):
            name = source.layer_in(model)
            self._readers.setdefault(last_map if name is None else name, []).append((index, source))
        self.modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
        self._map_layers = map_layers(model) if None in self._readers and isinstance(model, nn.Module) else {}
        # A module that the model has under two names is watched under the one that was asked for.
        for name in self._readers:
            if name and name not in self.modules and isinstance(model, nn.Module):
                self.modules[name] = model.get_submodule(name)
        self.runs: dict[str, int] = {}
        self.found: dict[int, tuple[ResolvedSource, Tensor]] = {}
        self.begun: list[str] = []
        self.wanted = 0
        self._last: _LastMap | None = None
        self._unfit: ValueError | None = None

    def note(self, name: str, output: Any) -> None:
        self.runs[name] = self.runs.get(name, 0) + 1
        if name and name in self._readers:
            self.read(name, output, self._readers[name])
        if name in self._map_layers and is_feature_map(output):
            # Which one is the last is known only in the end, and what runs next may work in place on it. Of
            # the few outermost layers, where it usually is, each is read at once.
            read = "." not in name
            self._last = _LastMap(name, output, output._version, len(self.begun), read)
            if read:
                self._read_at_once(name, output)

    def _read_at_once(self, name: str, output: Tensor) -> None:
        try:
            self.read(name, output, self._readers[None])
            self._unfit = None
        except ValueError as error:
            self._unfit = error

    def read_last_map(self) -> str | None:
        """Read the last feature map; return its name instead where it has been written to since."""
        if self._last is not None and self._last.read:
            if self._unfit is not None:
                raise self._unfit
        elif self._last is not None:
            if self._last.output._version != self._last.version:
                return self._last.name
            self.read(self._last.name, self._last.output, self._readers[None], self._last.begun)
        return None

    def read(
        self, name: str, output: Any, readers: Sequence[tuple[int, Source]], begun: int | None = None
    ) -> None:
        images = self._batch.images
        look = FirstLook(name, output, len(images), self._rectify, (images.shape[2], images.shape[3]))
        for index, source in readers:
            resolved = source.resolve(look)
            self.found[index] = (resolved, resolved.scalar(output, self._batch))
        self.wanted = max(self.wanted, len(self.begun) if begun is None else begun)

    def read_output(self, output: Any) -> None:
        if "" in self._readers:
            self.read("", output, self._readers[""])

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []
        try:
            for name, module in self.modules.items():
                handles.append(
                    module.register_forward_pre_hook(lambda *_, name=name: self.begun.append(name))
                )
            with hooked({name: module for name, module in self.modules.items() if name}, self.note):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def refuse_missing(self, model: Callable[..., Any]) -> None:
        never = [name for name in self._readers if name and name not in self.runs]
        if never:
            raise ValueError(f"layer: {', '.join(map(repr, never))} never ran in the model's forward pass")
        if any(index not in self.found for index, _ in self._readers.get(None, [])):
            raise ValueError(
                f"layer: no module of the {type(model).__name__} gives an output of shape (N, C, H, W) with "
                "more than one position; name a layer, and bring its output to that shape with to_spatial="
            )


def first_pass(
    model: Callable[..., Any],
    sources: Sequence[Source],
    rectify: Rectify,
    batch: Batch,
    last_map: str | None = None,
) -> FirstPass:
    """Run the whole model on a batch and resolve every source with what is seen.

    Args:
        model: The network.
        sources: What to map.
        rectify: What is done to each image's gradient.
        batch: The images.
        last_map: The last spatial feature map before global pooling, where it is known.

    Raises:
        ValueError: a layer never ran, or its output does not serve.
    """
    images = as_leaf(batch.images)
    reader = _Reader(model, sources, rectify, batch._replace(images=images), last_map)
    with reader.watching():
        output = model(images.clone(), *batch.extra)
    reader.read_output(output)
    written_to = reader.read_last_map()
    if written_to is not None:
        # It can only be read the moment it has run, now that it is known which one it is.
        return first_pass(model, sources, rectify, batch, written_to)
    reader.refuse_missing(model)
    found = [reader.found[index] for index in range(len(sources))]
    resolved = [source for source, _ in found]
    modules = {source.layer: reader.modules[source.layer] for source in resolved if source.layer}
    runs = {name: reader.runs[name] for name in modules}
    begun = tuple(dict.fromkeys(reader.begun[: reader.wanted]))
    layers = Layers(tuple(source.layer for source in resolved), runs, begun)
    plan = GradientPlan(model, resolved, modules, runs, rectify)
    return FirstPass(plan, layers, tuple(scalar for _, scalar in found), images)


def resolved_again(
    model: nn.Module, sources: Sequence[Source], rectify: Rectify, batch: Batch, layers: Layers
) -> GradientPlan:
    """Resolve the sources as `first_pass` does, with what it has shown: the pass ends at the last layer.

    Raises:
        ValueError: a layer did not run, or its output does not serve.
    """
    modules = {name: model.get_submodule(name) for name in layers.runs}
    images = batch.images

    def resolve(name: str, output: Any) -> dict[int, ResolvedSource]:
        look = FirstLook(name, output, len(images), rectify, (images.shape[2], images.shape[3]))
        return {
            index: source.resolve(look)
            for index, (source, layer) in enumerate(zip(sources, layers.names, strict=True))
            if layer == name
        }

    ends_early = all(layers.names)
    seen, output = observed(
        modules,
        resolve,
        lambda: model(images.clone(), *batch.extra),
        stop_after=layers.runs if ends_early else None,
    )
    resolved = {index: source for by_index in seen.values() for index, source in by_index.items()}
    if not ends_early:
        resolved |= resolve("", output)
    return GradientPlan(model, [resolved[i] for i in range(len(sources))], modules, layers.runs, rectify)


def varying_layer(model: nn.Module, layer: str, images: Tensor, extra: tuple[Any, ...]) -> str | None:
    """Return the last layer before ``layer`` whose feature map has a channel mean that is not constant."""
    layers = map_layers(model)
    varying: list[str] = []
    before: str | None = None

    def note(name: str, output: Any) -> None:
        nonlocal before
        if name == layer:
            before = varying[-1] if varying else None
        elif not name.startswith(f"{layer}.") and is_feature_map(output) and not is_constant_mean(output):
            varying.append(name)

    with torch.no_grad(), hooked({**layers, layer: model.get_submodule(layer)}, note):
        model(images.clone(), *extra)
    return before
