"""Streaming map statistics: mean, standard error, group means; fixed memory whatever the number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from erfattr._checks import check_positive_int, describe, is_int
from erfattr._files import plain
from erfattr._processes import summed
from erfattr._showing import Shown


@dataclass(frozen=True)
class MapSource:
    """What a map is the sensitivity of.

    Attributes:
        layer: Dotted name of the layer, or ``"output"`` for the network's output.
        unit: Position (i, j) in the layer's feature map, from 0; ``None`` for the output.
        feature_size: (H, W) of that feature map; ``None`` for the output.
        center: Pixel (y, x) on which the unit is centred by the strides and paddings before it; ``None``
            for the output, and where the receptive field could not be traced.
        target: Which output was explained: ``"predicted"``, ``"label"``, a class index or ``"mean"`` (of all
            outputs); ``None`` for a unit.
        rectify: What was done to each image's gradient: ``"relu"``, ``"abs"`` or ``"none"``.
        input_size: (H, W) of the images.
        layout: Where rows, columns and channels of the layer's output lie and how that is known, in words;
            of an output of several tensors also which one was taken.

    Example:
        >>> from erfattr import ERF, demo_model, sample_images
        >>> erf = ERF(demo_model(), "layer3")
        >>> _, statistics = erf.attribute(sample_images(2, size=64), return_statistics=True)
        >>> statistics.source.layer, statistics.source.unit, statistics.source.center
        ('layer3', (2, 2), (32.0, 32.0))
    """

    layer: str
    unit: tuple[int, int] | None
    feature_size: tuple[int, int] | None
    center: tuple[float, float] | None
    target: int | tuple[int, ...] | str | None
    rectify: str
    input_size: tuple[int, int]
    layout: str = ""


@dataclass(frozen=True, repr=False)
class MapStatistics(Shown):
    """A map averaged over images, and how well the average is known.

    Attributes:
        mean: (H, W), float64: the map R of eq. 3.
        standard_error: (H, W), float64: standard deviation over images, divided by the square root of their
            number; infinite for one image.
        n_images: Number of images averaged.
        group_means: (G, H, W), float64: means over interleaved groups (image k belongs to group k mod G);
            only groups that have an image.
        group_sizes: Number of images of each group.
        source: What the map is the sensitivity of; ``None`` where the maps came from elsewhere.
        computed: What was done to compute faster (see `Execution`), in words; empty for the model as it is.

    Example:
        >>> from erfattr import ERF, demo_model, sample_images
        >>> erf = ERF(demo_model(), "layer3")
        >>> R, statistics = erf.attribute(sample_images(4, size=64), return_statistics=True)
        >>> bool((R == statistics.mean).all()), statistics.n_images, statistics.group_means.shape
        (True, 4, torch.Size([4, 64, 64]))
    """

    mean: Tensor
    standard_error: Tensor
    n_images: int
    group_means: Tensor
    group_sizes: tuple[int, ...]
    source: MapSource | None = None
    computed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_positive_int("n_images", self.n_images)
        for name, dims in (("mean", 2), ("standard_error", 2), ("group_means", 3)):
            _check_maps(name, getattr(self, name), dims)
            if getattr(self, name).shape[-2:] != self.mean.shape:
                raise ValueError(f"{name}: expected the size of mean, got {describe(getattr(self, name))}")
        sizes = self.group_sizes
        fit = isinstance(sizes, tuple) and all(is_int(size) and size > 0 for size in sizes)
        if not fit or len(sizes) != len(self.group_means) or sum(sizes) != self.n_images:
            raise ValueError(
                f"group_sizes: expected {len(self.group_means)} positive integers, {self.n_images} in all, "
                f"got {describe(sizes)}"
            )
        if self.source is not None and not isinstance(self.source, MapSource):
            raise TypeError(f"source: expected a MapSource or None, got {describe(self.source)}")

    def _in_words(self) -> str:
        height, width = self.mean.shape
        of = ""
        if self.source is not None:
            unit = "" if self.source.unit is None else f" unit {self.source.unit}"
            of = f"{self.source.layer}{unit}, "
        return f"{of}{height} x {width} pixels, {self.n_images} images"

    def to_dict(self, *, pixels: bool = False) -> dict[str, Any]:
        """Return numbers, texts, lists and dicts, which JSON can hold; what is not finite is ``None``.

        Args:
            pixels: Also the map and its standard error, as lists of rows: megabytes. The means of the groups
                are left out either way.
        """
        found: dict[str, Any] = plain(
            {
                "source": self.source,
                "shape": tuple(self.mean.shape),
                "n_images": self.n_images,
                "group_sizes": self.group_sizes,
                "map_mean": self.mean.mean(),
                "map_max": self.mean.max(),
                "computed": self.computed,
                **({"mean": self.mean, "standard_error": self.standard_error} if pixels else {}),
            }
        )
        return found

    def __getattr__(self, name: str) -> Any:
        # Only what is missing comes here. SensitivityMaps gives statistics where ERF gives a tensor.
        kind = type(self).__name__
        if hasattr(Tensor, name) and not name.startswith("__"):
            raise AttributeError(
                f"{kind} has no {name!r}: the map itself is its mean, statistics.mean.{name}"
            )
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")


class StreamingStatistics:
    """Accumulates per-image maps in float64, in memory that does not grow with their number.

    Sums are kept for each of ``groups`` interleaved groups. On the CPU they are added image by image in
    order, so the result does not depend on how the images were batched; on a GPU batch by batch, which
    changes the last bits of float64.

    Args:
        groups: Number of groups, at least 2. The relative precision of a jackknife standard error is about
            1 / sqrt(2 (G - 1)); memory is G + 1 maps of float64.
        assigned: Every `update` names the groups of its images, because images depend on each other. The
            standard error of a pixel is then that of the group means, not that of single images.

    Raises:
        TypeError: ``groups`` is not an integer.
        ValueError: ``groups`` is below 2, maps are of another shape than the first ones, or a result is asked
            for before any image came.

    Example:
        >>> statistics = StreamingStatistics(groups=2)
        >>> statistics.update(torch.tensor([[[1.0]], [[2.0]], [[6.0]]]))
        >>> result = statistics.result()
        >>> result.mean.item(), result.group_means.flatten().tolist(), result.group_sizes
        (3.0, [3.5, 2.0], (2, 1))
    """

    def __init__(self, groups: int = 16, *, assigned: bool = False) -> None:
        check_positive_int("groups", groups)
        if groups < 2:
            raise ValueError(f"groups: expected at least 2, got {groups}")
        self.groups = groups
        self.assigned = assigned
        self.n_images = 0
        self._counts = [0] * groups
        self._sums: Tensor | None = None
        self._squares: Tensor | None = None

    def update(
        self, maps: Tensor, first_index: int | None = None, members: Sequence[int] | None = None
    ) -> None:
        """Add the maps of consecutive images.

        Args:
            maps: (N, H, W), one map per image; left as they are.
            first_index: Number of the first image in the whole sequence, which decides the groups; by
                default the number of images seen so far.
            members: The group of each image, where groups are assigned.
        """
        maps = maps.detach()
        if maps.device.type == "mps":  # has no float64
            maps = maps.cpu()
        maps = maps.double()
        if self._sums is not None and self._squares is not None and self._sums.device != maps.device:
            # A state that was loaded lies on the CPU.
            self._sums, self._squares = self._sums.to(maps.device), self._squares.to(maps.device)
        if self._sums is None or self._squares is None:
            self._sums = maps.new_zeros((self.groups, *maps.shape[1:]))
            self._squares = maps.new_zeros(maps.shape[1:])
        if maps.shape[1:] != self._squares.shape:
            raise ValueError(
                f"maps: expected maps of shape {tuple(self._squares.shape)}, got {tuple(maps.shape[1:])}"
            )
        start = self.n_images if first_index is None else first_index
        if members is not None:
            self._sums.index_add_(0, torch.tensor(members, device=maps.device), maps)
            self._squares += maps.square().sum(0)
        elif maps.is_cuda:
            self._add_at_once(maps, start)
        else:
            self._add_in_order(maps, start)
        for index in range(start, start + len(maps)) if members is None else members:
            self._counts[index % self.groups] += 1
        self.n_images += len(maps)

    def _add_in_order(self, maps: Tensor, start: int) -> None:
        """Add image by image, so that the last bit does not depend on the batches either."""
        assert self._sums is not None
        assert self._squares is not None
        # At most one image of each group at a time: every group is summed in the order of its images.
        for offset in range(0, len(maps), self.groups):
            part = maps[offset : offset + self.groups]
            first = (start + offset) % self.groups
            before = min(len(part), self.groups - first)
            self._sums[first : first + before] += part[:before]
            self._sums[: len(part) - before] += part[before:]
        for image_map in maps:
            self._squares.addcmul_(image_map, image_map)

    def _add_at_once(self, maps: Tensor, start: int) -> None:
        """Add a batch with a few kernels: on a GPU one for each image takes longer than small maps do."""
        assert self._sums is not None
        assert self._squares is not None
        before = start % self.groups
        after = -(before + len(maps)) % self.groups
        padded = F.pad(maps, (0, 0, 0, 0, before, after))
        self._sums += padded.view(-1, self.groups, *maps.shape[1:]).sum(0)
        self._squares += maps.square().sum(0)

    def state_dict(self) -> dict[str, Any]:
        """Return everything accumulated so far, as tensors on the CPU, numbers and lists."""
        return {
            "groups": self.groups,
            "counts": list(self._counts),
            "sums": None if self._sums is None else self._sums.cpu().clone(),
            "squares": None if self._squares is None else self._squares.cpu().clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            TypeError: it is no such state.
            ValueError: it is none, or has another number of groups. What was accumulated is kept.
        """
        if not isinstance(state, Mapping) or not {"groups", "counts", "sums", "squares"} <= state.keys():
            raise TypeError(f"state: expected what state_dict returned, got {describe(state)}")
        groups = state["groups"]
        if not is_int(groups):
            raise TypeError(f"state: expected a number of groups, got {describe(groups)}")
        if groups != self.groups:
            raise ValueError(f"groups: expected the {groups} of the saved state, got {self.groups}")
        counts, sums, squares = state["counts"], state["sums"], state["squares"]
        if not (isinstance(counts, list) and all(is_int(count) and count >= 0 for count in counts)):
            raise TypeError(f"state: expected counts as a list of numbers of images, got {describe(counts)}")
        if len(counts) != self.groups:
            raise ValueError(f"state: expected {self.groups} counts, got {len(counts)}")
        if sums is not None or squares is not None or any(counts):
            _check_maps("state: sums", sums, 3)
            _check_maps("state: squares", squares, 2)
            if sums.shape != (self.groups, *squares.shape):
                raise ValueError(
                    f"state: expected sums of {self.groups} maps like squares, got {describe(sums)} "
                    f"and {describe(squares)}"
                )
        self._counts, self.n_images = list(counts), sum(counts)
        self._sums, self._squares = (None if each is None else each.clone() for each in (sums, squares))

    def reduce(self, map_size: tuple[int, int] | None) -> None:
        """Add up what all processes of the ``torch.distributed`` group have accumulated, in each of them.

        Args:
            map_size: (H, W), for a process that has seen no image; ``None`` where none has.
        """
        if map_size is None:
            return
        if self._sums is None or self._squares is None:
            self._sums = torch.zeros(self.groups, *map_size, dtype=torch.float64)
            self._squares = torch.zeros(map_size, dtype=torch.float64)
        self._sums, self._squares = summed(self._sums), summed(self._squares)
        self._counts = summed(torch.tensor(self._counts)).tolist()
        self.n_images = sum(self._counts)

    def result(self, source: MapSource | None = None) -> MapStatistics:
        """Return mean, standard error and group means on the CPU."""
        if self._sums is None or self._squares is None or self.n_images == 0:
            raise ValueError("statistics: expected at least one image, got none")
        n = self.n_images
        sums, squares = self._sums.cpu(), self._squares.cpu()
        mean = sums.sum(0) / n
        if n > 1:
            variance = (squares - n * mean * mean).clamp_min(0) / (n - 1)
            standard_error = (variance / n).sqrt()
        else:
            standard_error = torch.full_like(mean, torch.inf)
        kept = [group for group, count in enumerate(self._counts) if count]
        sizes = tuple(self._counts[group] for group in kept)
        group_means = sums[kept] / torch.tensor(sizes, dtype=torch.float64)[:, None, None]
        if self.assigned:
            standard_error = _error_of_groups(group_means, mean, sizes)
        return MapStatistics(mean, standard_error, n, group_means, sizes, source)


def _check_maps(name: str, value: Any, dims: int) -> None:
    """Raise TypeError unless ``value`` holds floating-point maps in so many dimensions."""
    if not isinstance(value, Tensor) or value.ndim != dims or not value.is_floating_point():
        shape = "(H, W)" if dims == 2 else "(G, H, W)"
        raise TypeError(f"{name}: expected a floating-point tensor {shape}, got {describe(value)}")


def _error_of_groups(group_means: Tensor, mean: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the standard error of a mean over groups that depend on nothing but their own images."""
    groups = len(sizes)
    if groups < 2:
        return torch.full_like(mean, torch.inf)
    shares = torch.tensor(sizes, dtype=torch.float64)[:, None, None] / sum(sizes)
    return ((shares * (group_means - mean)).square().sum(0) * groups / (groups - 1)).sqrt()
