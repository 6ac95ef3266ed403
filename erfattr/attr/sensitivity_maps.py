"""Sensitivity maps of units and of the output, several in one pass; `ERF` and `DeadPixelMap` stand on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from threading import Event
from typing import Any, Protocol, get_args

import torch
from torch import Tensor

from erfattr._batches import (
    NOT_FINITE,
    Finite,
    arguments_of_each,
    as_arguments,
    count_images,
    numbered_batches,
    refuse_non_finite,
)
from erfattr._checks import (
    Rectify,
    ToleranceOf,
    check_choice,
    check_fraction,
    check_positive_int,
    describe,
)
from erfattr._model import refuse_batch_statistics, untouched
from erfattr._processes import Distributed, agree, sharing
from erfattr._progress import progress
from erfattr.attr._gradients import Batch
from erfattr.attr._precision import Precision
from erfattr.attr._run import Placement, Run, begin_run
from erfattr.attr.sources import Source
from erfattr.datasets.grouping import Group, Grouping
from erfattr.execution import Execution
from erfattr.metrics.dependence import DependentImagesWarning, dependence
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics

# Non-finite gradients are looked for after this many batches and at the end: looking waits for the device.
_CHECK_INTERVAL = 16
_GRADIENT = "model: the gradient of image {image} is not finite"


class Checkpoint(Protocol):
    """Where the state of a long run is kept: a file, usually (`StateFile`)."""

    interval: int
    """Save after this many images."""

    def load(self) -> dict[str, Any] | None:
        """Return the state saved last, or ``None`` where there is none."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state: numbers, texts, tensors, lists, tuples and dicts."""


class SensitivityMaps:
    r"""Maps of several units and outputs from one forward pass a batch.

    For every image and every source s (a unit's channel mean F of eq. 1, or an output) the map is
    :math:`\mathrm{rectify}(\frac{1}{C} \sum_z \partial s / \partial I_{xyz})` (eq. 2), and the result its
    mean over images (eq. 3). The gradient of a sum over a batch is, image by image, the gradient of each
    image, so any batch size gives what batch size 1 gives, to rounding. In float32 another order of summation
    flips some ReLU decisions inside the network, which moves a map of few images by up to a percent of its
    maximum; prove equalities in float64.

    The model runs in evaluation mode and in its own dtype, on its own device, and comes back as it was.

    Args:
        model: The network. `FeatureUnit` needs a ``torch.nn.Module``; `ModelOutput` takes any callable.
        sources: What to map.
        rectify: What is done to each image's gradient before averaging: ``"relu"`` (eq. 3), ``"abs"`` or
            ``"none"``.
        execution: How the model is run; see `Execution`.

    Raises:
        TypeError: ``model`` is not callable, ``sources`` holds something else than the two kinds, or
            ``execution`` is not an `Execution`.
        ValueError: unknown ``rectify``, no source, or a layer that the model does not have.

    Example:
        >>> from torch import nn
        >>> from erfattr import ModelOutput
        >>> model = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 2.0)
        >>> maps = SensitivityMaps(model, [ModelOutput((0, 1, 1))])
        >>> maps.attribute(torch.zeros(4, 1, 3, 4))[0].mean
        tensor([[2., 2., 2., 0.],
                [2., 2., 2., 0.],
                [2., 2., 2., 0.]], dtype=torch.float64)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        sources: Sequence[Source],
        rectify: Rectify = "relu",
        execution: Execution | None = None,
    ) -> None:
        if not callable(model):
            raise TypeError(f"model: expected a torch.nn.Module or another callable, got {describe(model)}")
        check_choice("rectify", rectify, get_args(Rectify))
        self.model = model
        self.sources = list(sources)
        self.rectify = rectify
        self.execution = Execution() if execution is None else execution
        if not isinstance(self.execution, Execution):
            raise TypeError(f"execution: expected an Execution or None, got {describe(execution)}")
        if not self.sources:
            raise ValueError("sources: expected at least one FeatureUnit or ModelOutput, got none")
        for source in self.sources:
            if not isinstance(source, Source):
                raise TypeError(f"sources: expected FeatureUnit or ModelOutput, got {describe(source)}")
            source.check(model)

    def attribute(
        self,
        inputs: Any,
        additional_forward_args: Any = None,
        *,
        max_examples: int | None = None,
        tolerance: float | None = None,
        tolerance_of: ToleranceOf = "pixels",
        show_progress: bool = False,
        groups: int = 16,
        group: Group = None,
        checkpoint: Checkpoint | None = None,
        locate: bool = True,
        distributed: Distributed = "auto",
    ) -> list[MapStatistics]:
        """Average the maps over images.

        Inside an initialised ``torch.distributed`` group every process is given the same ``inputs``, runs its
        share of the batches, and returns the statistics of all; a process that fails ends the run of all.
        Where one process alone calls it, it ends with an error after a minute; ``distributed=False`` lets it
        work alone.

        Args:
            inputs: Images: an iterable of batches (a ``DataLoader``), or one batch. A batch is a tensor
                (N, C, H, W) of floating-point values, a tuple or list that begins with one (labels second),
                or a dict that holds one. All images share one size.
            additional_forward_args: Further arguments of the model, a tuple if there are several; of one
                batch a tensor with one entry for each image belongs to the images, all else is the same for
                every batch.
            max_examples: Stop after this many images.
            tolerance: Stop as soon as the relative standard error is below this, in (0, 1], for every source;
                the statistics say how many images that took. Several processes stop together.
            tolerance_of: Of what: ``"pixels"``: median over pixels of standard error / mean; ``"L1"`` or
                ``"L2"``: the noise-corrected imbalance index of the map divided by its mean, its
                ``sampling_error``.
            show_progress: Show a progress bar on standard error.
            groups: Number of interleaved groups kept for jackknife standard errors.
            group: What belongs together, where images depend on each other (frames of a video, tiles of one
                slide, changed copies): a label for each image, or a function from a file's path to one. All
                images of a label are put into one group.
            checkpoint: Where the state is saved every so many images, and found when the run is started
                again with the same arguments; it then goes on, and ends with exactly the same maps.
            locate: Find the pixels that the units are centred on, also where the model is traced for nothing
                else.
            distributed: ``"auto"``: share the work with all processes of the ``torch.distributed`` group, if
                there is one; ``False``: work alone, whatever the others do.

        Returns:
            For each source its `MapStatistics`, float64, on the CPU. Unit: output per input value. With
            ``"relu"`` and ``"abs"`` nothing is negative.

        Raises:
            TypeError: integer images, or batches or outputs of an unknown kind.
            ValueError: no image; NaN in an image; images of different sizes; a layer that never ran or whose
                output is not (N, C, H, W); a unit outside the map; a non-finite gradient, whose image is
                named; a map that is zero everywhere; a ``tolerance`` outside (0, 1]; a saved state of
                another run.
            ProcessError: (a ``RuntimeError``) another process failed, or did not join.
        """
        if max_examples is not None:
            check_positive_int("max_examples", max_examples)
        if tolerance is not None:
            check_fraction("tolerance", tolerance)
        check_choice("tolerance_of", tolerance_of, get_args(ToleranceOf))
        check_choice("distributed", distributed, (False, "auto"))
        rank, world = sharing(distributed)
        grouping = None if group is None else Grouping(group, inputs, groups)
        streams = [
            StreamingStatistics(
                groups if grouping is None else grouping.groups, assigned=grouping is not None
            )
            for _ in self.sources
        ]
        precision = Precision(tolerance, tolerance_of, streams, world)
        settings = self._settings()
        if grouping is not None:
            settings["group"] = grouping.fingerprint
        placement: Placement | None = None
        start = 0
        failure: Exception | None = None
        try:
            saved = None if checkpoint is None else checkpoint.load()
            if saved is not None:
                _check_same_run(saved["settings"], settings)
                placement = Placement.from_dict(saved["placement"])
                start = saved["next_index"]
                for stream, state in zip(streams, saved["streams"], strict=True):
                    stream.load_state_dict(state)
            with self._undisturbed():
                unsaved = 0
                enough = Event()
                for first_index, run, maps in self._batches_of_maps(
                    inputs,
                    additional_forward_args,
                    max_examples,
                    show_progress and rank == 0,
                    locate=locate,
                    start=start,
                    share=(rank, world),
                    stop=enough.is_set,
                ):
                    if placement not in (None, run.placement):
                        raise ValueError(
                            f"checkpoint: expected the state of a run of {run.placement}, got {placement}"
                        )
                    placement = run.placement
                    members = None if grouping is None else grouping.of_batch(first_index, len(maps[0]))
                    for stream, batch_maps in zip(streams, maps, strict=True):
                        stream.update(batch_maps, first_index, members)
                    unsaved += len(maps[0])
                    if checkpoint is not None and unsaved >= checkpoint.interval:
                        state = _state(settings, placement, first_index + len(maps[0]), streams)
                        checkpoint.save(state)
                        unsaved = 0
                    if precision.is_enough(placement):
                        enough.set()
        except Exception as error:
            # The other processes must hear of it before they wait for this one.
            if world == 1:
                raise
            failure = error
        try:
            precision.wait(placement, failure)
        except Exception as error:
            failure = error
        if world > 1:
            placement = agree(placement, failure)
            for stream in streams:
                stream.reduce(None if placement is None else placement.map_size)
        if placement is None:
            raise ValueError("inputs: expected at least one image, got none")
        results = placement.results(streams)
        for result in results:
            if not bool(result.mean.any()):
                name = result.source.layer if result.source else "output"
                raise ValueError(
                    f"inputs: the map of {name!r} is zero everywhere, so none of these images excites it "
                    f'(rectify="{self.rectify}")'
                )
        if grouping is None:
            _warn_of_dependence(results[0])
        return results

    def per_image(
        self,
        inputs: Any,
        additional_forward_args: Any = None,
        *,
        max_examples: int | None = None,
        show_progress: bool = False,
    ) -> list[Tensor]:
        """Return the maps of every image instead of their mean.

        Arguments and errors are those of ``attribute``, except for a map that is zero everywhere: one image
        may well have one. Several processes share nothing here.

        Returns:
            For each source (N, H, W) in the model's dtype, on the CPU.
        """
        if max_examples is not None:
            check_positive_int("max_examples", max_examples)
        collected: list[list[Tensor]] = [[] for _ in self.sources]
        with self._undisturbed():
            for _, run, maps in self._batches_of_maps(
                inputs, additional_forward_args, max_examples, show_progress
            ):
                for parts, batch_maps in zip(collected, maps, strict=True):
                    parts.append(run.placement.on_image(batch_maps.cpu()))
        if not collected[0]:
            raise ValueError("inputs: expected at least one image, got none")
        return [torch.cat(parts) for parts in collected]

    def _settings(self) -> dict[str, Any]:
        """Return what a saved state must have been computed with, as plain numbers, texts and tuples."""
        sources = [source.identity(self.model) for source in self.sources]
        return {"sources": sources, "rectify": self.rectify, "execution": asdict(self.execution)}

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        with torch.inference_mode(False), torch.enable_grad(), untouched(self.model):
            yield

    def _batches_of_maps(
        self,
        inputs: Any,
        additional_forward_args: Any,
        max_examples: int | None,
        show_progress: bool,
        *,
        locate: bool = False,
        start: int = 0,
        share: tuple[int, int] = (0, 1),
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Run, list[Tensor]]]:
        """Yield number of the first image, how it was run, and the maps of each batch."""
        arguments = arguments_of_each(inputs, as_arguments(additional_forward_args))
        wants_labels = any(source.wants_labels for source in self.sources)
        run: Run | None = None
        pending: list[Finite] = []
        total = count_images(inputs, max_examples)
        with progress(total, show=show_progress, start=start) as bar:
            for first_index, images, labels in numbered_batches(
                inputs, wants_labels, max_examples=max_examples, start=start, share=share
            ):
                refuse_batch_statistics(self.model, len(images))
                batch = Batch(images, labels, arguments(first_index, len(images)), first_index)
                if run is None:
                    run, maps = begin_run(
                        self.model,
                        self.sources,
                        self.rectify,
                        self.execution,
                        batch,
                        total=total,
                        locate=locate,
                    )
                else:
                    maps = run.maps(batch)
                if images.is_cuda:  # a ReLU's gradient hides their NaN
                    pending.append(Finite.of(first_index, images, NOT_FINITE))
                pending += [Finite.of(first_index, batch_maps, _GRADIENT) for batch_maps in maps]
                if not maps[0].is_cuda or len(pending) >= _CHECK_INTERVAL * len(self.sources):
                    refuse_non_finite(pending)
                yield first_index, run, maps
                bar.update(len(images) * share[1])
                if stop():
                    break
        refuse_non_finite(pending)


def _check_same_run(saved: dict[str, Any], mine: dict[str, Any]) -> None:
    for name in {**mine, **saved}:
        if saved.get(name) != mine.get(name):
            raise ValueError(
                f"checkpoint: expected the state of a run with {name} {mine.get(name)}, got one with "
                f"{saved.get(name)}"
            )


def _warn_of_dependence(statistics: MapStatistics) -> None:
    found = dependence(statistics)
    if found is not None and found.warning:
        warnings.warn(found.warning, DependentImagesWarning, stacklevel=3)


def _state(
    settings: dict[str, Any], placement: Placement, next_index: int, streams: Sequence[StreamingStatistics]
) -> dict[str, Any]:
    return {
        "settings": settings,
        "placement": placement.as_dict(),
        "next_index": next_index,
        "streams": [stream.state_dict() for stream in streams],
    }
