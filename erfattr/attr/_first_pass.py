"""The first forward pass of a run: which layers the sources read, how often they run, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from erfattr._checks import Rectify
from erfattr._model import hooked, observed, other_dimensions, watchable
from erfattr.attr._gradients import (
    Batch,
    GradientPlan,
    ResolvedSource,
    as_leaf,
    rectified_gradients,
    refuse_hidden,
)
from erfattr.attr._map_watch import MapWatch
from erfattr.attr.layouts import is_constant_mean, map_layers
from erfattr.attr.sources import FirstLook, Source
from erfattr.receptive_field.layout import Layout


@dataclass(frozen=True)
class Layers:
    """What a pass shows of a model's structure, whatever its weights.

    Attributes:
        names: The layer that each source reads; ``""``: the network's own output.
        layouts: Of each of them how its output is a feature map, where that was asked.
        runs: How often each of them but the output runs in one pass.
        begun: The modules that have begun to run when the last wanted layer ends.
    """

    names: tuple[str, ...]
    layouts: tuple[Layout | None, ...]
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
        output: What the layer gave.
        tensor: The map in it.
        version: How often that had been written to.
        begun: How many modules had begun to run.
        read: Whether the sources have read it.
    """

    name: str
    output: Any
    tensor: Tensor
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
        given: Tensor,
        tracking: bool,
        known: Layers | None,
    ) -> None:
        self._batch, self._rectify = batch, rectify
        self._readers: dict[str | None, list[tuple[int, Source]]] = {}
        for index, source in enumerate(sources):
            name = source.layer_in(model)
            self._readers.setdefault(last_map if name is None else name, []).append((index, source))
        self.modules = watchable(model) if isinstance(model, nn.Module) else {}
        self._map_layers = map_layers(model) if None in self._readers and isinstance(model, nn.Module) else {}
        # A module that the model has under two names is watched under the one that was asked for.
        for name in self._readers:
            if name and name not in self.modules and isinstance(model, nn.Module):
                self.modules[name] = model.get_submodule(name)
        self.watch: MapWatch | None = None
        self._known = known
        wants_layout = known is None and any(source.wants_layout for source in sources)
        if isinstance(model, nn.Module) and wants_layout:
            self.watch = MapWatch(model, given, tracking=tracking)
        self._wants_gradients = torch.is_grad_enabled()
        self.runs: dict[str, int] = {}
        self.found: dict[int, tuple[ResolvedSource, Tensor]] = {}
        self.begun: list[str] = []
        self.wanted = 0
        self.refusal: Exception | None = None
        self._maps: list[str] = []
        self._last: _LastMap | None = None
        self._lost: tuple[str, tuple[int, ...]] | None = None
        self._unfit: ValueError | None = None

    def note(self, name: str, output: Any) -> None:
        self.runs[name] = self.runs.get(name, 0) + 1
        try:
            if name and name in self._readers:
                self.read(name, output, self._readers[name])
            if name in self._map_layers and self.watch is not None:
                self._note_map(name, output, self.watch)
        except Exception as error:
            self.refusal = error  # ours, not the model's
            raise

    def _note_map(self, name: str, output: Any, watch: MapWatch) -> None:
        found = watch.map_of(name, output)
        if found is None:
            # Of a layer that runs several times (the head of a detector, on every level) the last run counts.
            self._maps = [each for each in self._maps if each != name]
            if not watch.in_attention(name) and (shape := watch.unknown_map(output)) is not None:
                self._lost = (name, shape)
            return
        # Which one is the last is known only in the end, and what runs next may work in place on it. Of the
        # few outermost layers, where it usually is, each is read at once.
        read = "." not in name
        tensor, _ = found
        self._last = _LastMap(name, output, tensor, tensor._version, len(self.begun), read)
        self._lost = None
        self._maps.append(name)
        if read:
            self._read_at_once(name, output)

    def _read_at_once(self, name: str, output: Any) -> None:
        try:
            self.read(name, output, self._readers[None])
            self._unfit = None
        except ValueError as error:
            self._unfit = error

    def read_last_map(self) -> str | None:
        """Read the last feature map; return its name instead where that has to be done while it runs."""
        if self._last is None or self.watch is None:
            return None
        if self._lost is not None:
            name, shape = self._lost
            raise ValueError(
                f"layer: expected a name, since {name!r}, behind the last known feature map "
                f"{self._last.name!r}, gives shape {shape}, and {_UNKNOWN}; name the layer, and where it is "
                "not (N, C, H, W) bring its output to that with to_spatial= (--to-spatial)"
            )
        # What was inside attention is known only when the attention has run.
        name = next((name for name in reversed(self._maps) if not self.watch.in_attention(name)), "")
        if name != self._last.name:
            return name or None
        if self._last.read:
            if self._unfit is not None:
                raise self._unfit
        elif self._last.tensor._version != self._last.version:
            return self._last.name
        else:
            self.read(self._last.name, self._last.output, self._readers[None], self._last.begun)
        return None

    def read(
        self, name: str, output: Any, readers: Sequence[tuple[int, Source]], begun: int | None = None
    ) -> None:
        images = self._batch.images
        size = (images.shape[2], images.shape[3])
        if name and self._wants_gradients and begun is None:
            refuse_hidden(name)

        def find(index: int, tensor: Tensor) -> Layout | str:
            if self._known is not None:
                return self._known.layouts[index] or _UNKNOWN
            return _UNKNOWN if self.watch is None else self.watch.find(name, tensor)

        for index, source in readers:
            look = FirstLook(name, output, len(images), self._rectify, size, partial(find, index))
            resolved = source.resolve(look)
            self.found[index] = (resolved, resolved.scalar(output, self._batch))
        self.wanted = max(self.wanted, len(self.begun) if begun is None else begun)

    def read_output(self, output: Any) -> None:
        if "" in self._readers:
            self.read("", output, self._readers[""])

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, module in self.modules.items():
                handle = module.register_forward_pre_hook(lambda *_, name=name: self.begun.append(name))
                stack.callback(handle.remove)
                if isinstance(module, nn.Conv3d):
                    stack.callback(module.register_forward_pre_hook(self._refuse_unbatched).remove)
            named = {name: module for name, module in self.modules.items() if name}
            if self.watch is not None:
                stack.enter_context(self.watch.watching(self.modules))
            stack.enter_context(hooked(named, self.note))
            yield

    def _refuse_unbatched(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """Raise where a batch of images would be taken for one volume."""
        if given and isinstance(given[0], Tensor) and given[0].ndim == 4:
            self.refusal = ValueError(other_dimensions(module))
            raise self.refusal

    def refuse_missing(self, model: Callable[..., Any]) -> None:
        never = [name for name in self._readers if name and name not in self.runs]
        if never:
            raise ValueError(f"layer: {', '.join(map(repr, never))} never ran in the model's forward pass")
        if any(index not in self.found for index, _ in self._readers.get(None, [])):
            raise ValueError(
                f"layer: no module of the {type(model).__name__} gives a feature map of more than one "
                "position whose rows and columns are known; name a layer, and bring its output to "
                "(N, C, H, W) with to_spatial="
            )


_UNKNOWN = "nothing shows which of its dims are rows and columns"


def first_pass(
    model: Callable[..., Any],
    sources: Sequence[Source],
    rectify: Rectify,
    batch: Batch,
    last_map: str | None = None,
    *,
    tracking: bool = True,
    known: Layers | None = None,
) -> FirstPass:
    """Run the whole model on a batch and resolve every source with what is seen.

    Args:
        model: The network.
        sources: What to map.
        rectify: What is done to each image's gradient.
        batch: The images.
        last_map: The last spatial feature map before global pooling, where it is known.
        tracking: Whether rows and columns are followed. A model that does not run so is run without.
        known: What a pass over other images showed, which then is not looked for again; with ``last_map``,
            if a source has left the layer to be found.

    Raises:
        ValueError: a layer never ran, or its output does not serve.
    """
    images = as_leaf(batch.images)
    # The model gets a copy: it may work in place on its input, which a leaf does not allow.
    given = images.clone()
    reader = _Reader(model, sources, rectify, batch._replace(images=images), last_map, given, tracking, known)
    try:
        with reader.watching():
            output = model(given, *batch.extra)
    except Exception as error:
        if reader.watch is None or not tracking or reader.refusal is error:
            raise
        return first_pass(model, sources, rectify, batch, last_map, tracking=False)
    reader.read_output(output)
    again = reader.read_last_map()
    if again is not None:
        # It can only be read the moment it has run, now that it is known which one it is.
        return first_pass(model, sources, rectify, batch, again, tracking=tracking)
    reader.refuse_missing(model)
    found = [reader.found[index] for index in range(len(sources))]
    resolved = [source for source, _ in found]
    modules = {source.layer: reader.modules[source.layer] for source in resolved if source.layer}
    runs = {name: reader.runs[name] for name in modules}
    begun = tuple(dict.fromkeys(reader.begun[: reader.wanted]))
    layouts = tuple(source.layout for source in resolved)
    layers = Layers(tuple(source.layer for source in resolved), layouts, runs, begun)
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
        size = (images.shape[2], images.shape[3])

        def look(layout: Layout | None) -> FirstLook:
            return FirstLook(name, output, len(images), rectify, size, lambda _: layout or _UNKNOWN)

        return {
            index: source.resolve(look(layers.layouts[index]))
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
    given = images.clone()
    watch = MapWatch(model, given)
    varying: list[str] = []
    before: list[str] = []

    def note(name: str, output: Any) -> None:
        if name == layer:
            before[:] = varying
        else:
            found = watch.map_of(name, output)
            if name in varying:
                varying.remove(name)
            if found is not None and not is_constant_mean(found[1].to_spatial(found[0])):
                varying.append(name)

    watched = {**layers, layer: model.get_submodule(layer)}
    with torch.no_grad(), watch.watching(watchable(model)), hooked(watched, note):
        model(given, *extra)
    return next((name for name in reversed(before) if not watch.in_attention(name)), None)
