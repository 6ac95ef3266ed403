"""Watches a forward pass for feature maps: layouts of layers' outputs, and what lies inside attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from erfattr.attr.declared_layouts import declared_layout, layout_by_contract
from erfattr.attr.selection import only_obvious
from erfattr.receptive_field._place_tracking import PlaceTracker, PlaceTracking
from erfattr.receptive_field._places import Places, of_images
from erfattr.receptive_field.layout import Layout, has_places, layout_of, why_no_layout


class MapWatch:
    """What a pass shows of the layouts of a model's layers.

    Args:
        model: The network.
        images: What it is given; places are counted from here.
        tracking: Whether places are followed; without, only what the network declares is known.
    """

    def __init__(self, model: nn.Module, images: Tensor, *, tracking: bool = True) -> None:
        self.tracking = tracking
        self._model = model
        self._count = len(images)
        self._size = (images.shape[2], images.shape[3])
        self._tracker = PlaceTracker(self._attended)
        if tracking:
            self._tracker[images] = of_images(images.shape)
        self._running: list[str] = []
        self._attending: set[str] = set()
        # By the places, which are kept alive, and the shape: many layers hand on what they got.
        self._layouts: dict[tuple[int, tuple[int, ...]], tuple[Places, Layout | None]] = {}

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Follow what runs inside, and which of ``modules`` runs inside which."""
        with ExitStack() as stack:
            for name, module in modules.items():
                handles = (
                    module.register_forward_pre_hook(lambda *_, name=name: self._running.append(name)),
                    module.register_forward_hook(lambda *_: self._ended()),
                )
                for handle in handles:
                    stack.callback(handle.remove)
            if self.tracking:
                stack.enter_context(PlaceTracking(self._tracker))
            yield

    def _ended(self) -> None:
        self._running.pop()

    def _attended(self) -> None:
        if self._running and self._running[-1]:
            self._attending.add(self._running[-1])

    def in_attention(self, name: str) -> bool:
        """Whether a layer is a part of a module that has multiplied features by features."""
        parts = name.split(".")
        return any(".".join(parts[:count]) in self._attending for count in range(1, len(parts)))

    def find(self, name: str, tensor: Tensor) -> Layout | str:
        """Return the layout of what a layer gave, or in words why none is known."""
        places = self._tracker[tensor]
        shape = tuple(tensor.shape)
        if places is not None:
            key = (id(places), shape)
            if key not in self._layouts:
                self._layouts[key] = places, layout_of(places, shape)
            layout = self._layouts[key][1]
            if layout is not None:
                return layout
        # Where no rows and no columns are known, nothing speaks against what the network says.
        if not has_places(places):
            contract = layout_by_contract(self._model.get_submodule(name), shape)
            declared = contract or declared_layout(self._model, name, shape, self._size)
            if declared is not None:
                return declared
        why = why_no_layout(places, shape)
        failures = self._tracker.failures
        return f"{why} (lost at {failures[0]})" if failures else why

    def map_of(self, name: str, output: Any) -> tuple[Tensor, Layout] | None:
        """Return the feature map that a layer gave and its layout; ``None`` if it is none for sure."""
        tensor = only_obvious(output)
        if tensor is None or tensor.ndim not in (3, 4) or self.in_attention(name):
            return None
        layout = self.find(name, tensor)
        if isinstance(layout, str) or layout.grid[0] * layout.grid[1] < 2:
            return None
        # What every layer of its kind gives, of boxes or of regions too, is no proof for this one.
        return None if layout.by_contract else (tensor, layout)

    def unknown_map(self, output: Any) -> tuple[int, ...] | None:
        """Return the shape of an output that may be a feature map, of the same images, of unknown layout."""
        tensor = only_obvious(output)
        if tensor is None or tensor.ndim < 3 or len(tensor) != self._count:
            return None
        places = self._tracker[tensor]
        constant = places is None and self.tracking
        several = sum(length > 1 for length in tensor.shape[1:]) > 1
        return tuple(tensor.shape) if several and not constant and not has_places(places) else None
