"""What is run on the images, prepared on the first of them, and how images go in and maps come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erfattr._model import device_and_dtype
from erfattr.attr._crop import Cone, find_cone
from erfattr.attr.sources import FeatureUnit, GradientPlan, ModelOutput, make_plan
from erfattr.execution import Execution, prepared
from erfattr.metrics.statistics import MapSource, MapStatistics, StreamingStatistics
from erfattr.receptive_field.field import ReceptiveField
from erfattr.receptive_field.trace import receptive_fields


@dataclass(frozen=True)
class Placement:
    """What the maps are of, and where in the image they lie.

    Attributes:
        described: Each source.
        image_shape: (C, H, W) of the images.
        cone: The part of the images that is run; ``None``: the whole.
        done: What was done to compute faster, in words.
    """

    described: tuple[MapSource, ...]
    image_shape: tuple[int, int, int]
    cone: Cone | None
    done: tuple[str, ...]

    @property
    def map_size(self) -> tuple[int, int]:
        """(H, W) of the maps as they are computed."""
        return self.image_shape[1:] if self.cone is None else self.cone.size

    def placed(self, maps: Tensor) -> Tensor:
        """Return computed maps (..., H, W) as maps of the whole image; outside the cone nothing is seen."""
        if self.cone is None:
            return maps
        (top, bottom), (left, right) = self.cone.rows, self.cone.columns
        _, height, width = self.image_shape
        return F.pad(maps, (left, width - right, top, height - bottom))

    def results(self, streams: Sequence[StreamingStatistics]) -> list[MapStatistics]:
        """Return the statistics of computed maps, as maps of the whole image."""
        results = []
        for stream, source in zip(streams, self.described, strict=True):
            one = stream.result(source)
            results.append(
                replace(
                    one,
                    mean=self.placed(one.mean),
                    standard_error=self.placed(one.standard_error),
                    group_means=self.placed(one.group_means),
                    computed=self.done,
                )
            )
        return results

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, texts, tuples and dicts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Placement:
        """Return the placement that `as_dict` described."""
        cone = saved["cone"]
        return cls(
            tuple(MapSource(**source) for source in saved["described"]),
            saved["image_shape"],
            None if cone is None else Cone(**cone),
            saved["done"],
        )


@dataclass(frozen=True)
class Run:
    """What is run on the images.

    Attributes:
        plan: The sources, resolved on the model that is run.
        placement: What its maps are of, and where in the image they lie.
        device: Where images are put.
        dtype: What they are converted to.
        channels_last: Whether they are laid out so.
    """

    plan: GradientPlan
    placement: Placement
    device: torch.device | None
    dtype: torch.dtype | None
    channels_last: bool

    def maps(
        self, images: Tensor, labels: Tensor | None, extra: tuple[Any, ...], first_index: int
    ) -> list[Tensor]:
        """Return for each source the rectified gradient of every image, (N, H, W)."""
        return self.plan.maps(self.taken(images), labels, extra, first_index)

    def taken(self, images: Tensor) -> Tensor:
        """Return the part of the images that is run, where and as the model wants it."""
        cone = self.placement.cone
        if cone is not None:
            images = images[:, :, cone.rows[0] : cone.rows[1], cone.columns[0] : cone.columns[1]]
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        # Pinned memory is copied while the device works on the batch before.
        if self.device is not None and self.device.type == "cuda" and not images.is_cuda:
            images = images.pin_memory()
        return images.to(device=self.device, dtype=self.dtype, non_blocking=True, memory_format=layout)


def begin_run(
    model: Callable[..., Any],
    sources: Sequence[FeatureUnit | ModelOutput],
    rectify: str,
    execution: Execution,
    image: Tensor,
    extra: tuple[Any, ...],
) -> Run:
    """Resolve the sources on one image (1, C, H, W), and prepare what is run."""
    original = model
    device, dtype = device_and_dtype(model)
    image = image.detach().to(device=device, dtype=dtype)
    plan = make_plan(model, sources, rectify, image, extra)
    fields: dict[str, ReceptiveField] = {}
    if isinstance(model, nn.Module) and plan.units and not extra:
        # A map does not wait for a probe: a layer that cannot be traced has no known centre and no crop.
        size = (image.shape[2], image.shape[3])
        fields = receptive_fields(model, size, in_channels=image.shape[1], probe=False)
    described = tuple(plan.describe(fields))
    done: tuple[str, ...] = ()
    if isinstance(model, nn.Module):
        model, done = prepared(model, execution, keep=set(plan.modules))
        _, dtype = device_and_dtype(model)
        modules = {name: model.get_submodule(name) for name in plan.modules}
        plan = replace(plan, model=model, modules=modules)
    placement = Placement(described, plan.image_shape, None, done)
    run = Run(plan, placement, device, dtype, "channels last" in done)
    units = [source for source in sources if isinstance(source, FeatureUnit) and not source.to_spatial]
    if not (execution.crop and fields and len(units) == len(sources) and isinstance(original, nn.Module)):
        return run
    return _cropped(run, original, fields, image) or run


def _cropped(run: Run, model: nn.Module, fields: Mapping[str, ReceptiveField], image: Tensor) -> Run | None:
    """Return the same run on the part of the image that the units see; ``None`` where there is none."""
    whole = run.plan
    wanted = [(whole.layers[index], whole.units[index]) for index in range(len(whole.sources))]
    cone = find_cone(model, wanted, fields, whole.image_shape[0])
    if cone is None:
        return None
    height, width = cone.size
    words = (*run.placement.done, f"cropped to {height} x {width} pixels")
    cropped = replace(run, placement=replace(run.placement, cone=cone, done=words))
    sources = [
        FeatureUnit(whole.modules[layer], unit) for (layer, _), unit in zip(wanted, cone.units, strict=True)
    ]
    plan = make_plan(whole.model, sources, whole.rectify, cropped.taken(image), ())
    # The trace proves which pixels are read, not what is done with a position (an embedding, say).
    for index, features in whole.features.items():
        tolerance = torch.finfo(plan.features[index].dtype).eps ** 0.5 * float(features.abs().max())
        if float((features - plan.features[index]).abs().max()) > tolerance:
            return None
    return replace(cropped, plan=plan)


def refuse_non_finite(pending: list[tuple[int, Tensor]]) -> None:
    """Raise for the first image with a non-finite gradient; forget the images looked at."""
    bad = [
        first_index + int(torch.nonzero(~finite)[0])
        for first_index, finite in pending
        if not bool(finite.all())
    ]
    pending.clear()
    if bad:
        raise ValueError(f"model: the gradient of image {min(bad)} is not finite")
