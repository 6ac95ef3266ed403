"""A model's answers to images with few pixels changed, in full batches, and what came of each image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from erfattr._checks import describe
from erfattr._model import gradient_of
from erfattr.execution import Execution, prepared
from erfattr.receptive_field.trace import trace_layers
from erfattr.robust.pixel_space import Candidates


@dataclass(frozen=True)
class PixelAttackReport:
    """What came of each image of a batch of N; k is the number of pixels that were to be changed.

    An image that had reached the goal before the attack (misclassified already, or of the target class if
    targeted) is not attacked, comes back unchanged and is no success. One that the attack failed on comes
    back with the best change that was found.

    Attributes:
        success: Whether the attack reached its goal, bool (N,).
        already_adversarial: Whether the image had reached it as it was, bool (N,).
        queries: Samples that the model was run on, int64 (N,): the image itself, every candidate, and each
            success a second time where the candidates run on a faster copy of the model.
        positions: (y, x) of the changed pixels, int64 (N, k, 2); -1 for images that were not attacked.
        colors: Their new values, (N, k, C), in the unit of the images; NaN for images that were not attacked.
        probability_before: Probability (softmax) of the target class before, float64 (N,).
        probability_after: The same of the image that came back.
        predicted_before: Class with the largest output before, int64 (N,).
        predicted_after: The same of the image that came back.

    Example:
        >>> from erfattr import RandomPixelAttack, demo_model, sample_images
        >>> model, images = demo_model(), sample_images(2, size=32)
        >>> attack = RandomPixelAttack(model, -3.0, 3.0, max_candidates=5)
        >>> _, report = attack.perturb(images, target=model(images).argmax(1), return_report=True)
        >>> report.success.shape, report.positions.shape
        (torch.Size([2]), torch.Size([2, 1, 2]))
    """

    success: Tensor
    already_adversarial: Tensor
    queries: Tensor
    positions: Tensor
    colors: Tensor
    probability_before: Tensor
    probability_after: Tensor
    predicted_before: Tensor
    predicted_after: Tensor

    @property
    def success_rate(self) -> float:
        """Successes over attacked images; NaN where none was attacked."""
        attacked = int((~self.already_adversarial).sum())
        return int(self.success.sum()) / attacked if attacked else float("nan")


class Answers(NamedTuple):
    """What the model says of some images, on the CPU.

    Attributes:
        value: Output of the target less the largest other one, or the other way round if targeted: the goal
            lies below zero; float64.
        predicted: Class with the largest output, int64.
        probability: Probability (softmax) of the target, float64.
    """

    value: Tensor
    predicted: Tensor
    probability: Tensor

    def at(self, index: Any) -> Answers:
        """Return those of an index."""
        return Answers(self.value[index], self.predicted[index], self.probability[index])

    def put(self, index: Any, answers: Answers) -> None:
        """Write ``answers`` where ``index`` says."""
        for column, given in zip(self, answers, strict=True):
            column[index] = given


class Trials:
    """Runs candidates on a model, drops every image that is done, and counts what was run.

    A module is run as its folded, channels-last copy. What succeeds there is run once more on the module
    itself and counts only if it succeeds there too: close to the border between two classes the rounding
    of the copy could decide.

    Args:
        forward: The caller's model.
        images: (N, C, H, W), as the model takes them.
        targets: (N,) class to leave, or to reach if ``targeted``.
        targeted: Which of the two.
        arguments: Further arguments of the model; tensors go with the images.
        pixels: How many each candidate changes.
        max_batch_size: Rows of a forward pass.
        check_every: Candidates of one image between two looks at whether it is done.
        execution: How a module is run.
        bar: Told of images that are done, with the successes so far.

    Attributes:
        finished: Images that are not tried any more; with the others below (N, ...) on the CPU.
        success: Images with a candidate that reached the goal.
        already_adversarial: Images that had reached it as they were.
        queries: Samples of each image that the model was run on.
        pixels: Row-major index of the pixels of the best candidate, -1 where none was tried.
        colors: Their colours, NaN where none was tried.
        before: The model's answers to the images as they were.
        after: Those to the best candidate; where there is none class and probability of ``before``, and a
            value that every candidate is better than.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        images: Tensor,
        targets: Tensor,
        targeted: bool,
        arguments: tuple[Any, ...],
        *,
        pixels: int,
        max_batch_size: int,
        check_every: int,
        execution: Execution,
        bar: tqdm[Any],
    ) -> None:
        self._forward = self._quick = forward
        layout = torch.contiguous_format
        if isinstance(forward, nn.Module):
            size = images.shape[2], images.shape[3]
            # Further arguments may decide what the model does, and the trace does not have them.
            foldable = any(type(module) is nn.BatchNorm2d for module in forward.modules()) and not arguments
            traced = execution.fold and foldable
            folds = trace_layers(forward, {}, size, images.shape[1]).folds if traced else ()
            self._quick, treatment = prepared(forward, execution, folds=folds)
            if "channels last" in treatment:
                layout = torch.channels_last
        self._images = images.contiguous(memory_format=layout)
        # Rows of the batch are written here one after the other: indexing copies of whole images costs more
        # than a tenth of a small network's forward pass.
        self._rows = torch.empty(
            (max_batch_size, *images.shape[1:]), dtype=images.dtype, device=images.device
        ).contiguous(memory_format=layout)
        self._targets = targets.to(images.device)
        self._targeted = targeted
        self._arguments = arguments
        self._check_every = check_every
        count = len(images)
        self.finished = torch.zeros(count, dtype=torch.bool)
        self.success = torch.zeros(count, dtype=torch.bool)
        self.queries = torch.zeros(count, dtype=torch.int64)
        self.pixels = torch.full((count, pixels), -1)
        self.colors = torch.full((count, pixels, images.shape[1]), torch.nan, dtype=images.dtype)
        self._bar = bar
        indices = torch.arange(count)
        self.before = self._answers(self._forward, indices, None, check=True)
        self.after = Answers(
            torch.full_like(self.before.value, torch.inf),
            self.before.predicted.clone(),
            self.before.probability.clone(),
        )
        self.already_adversarial = self._reached(indices, self.before)
        self._finish(indices[self.already_adversarial])

    def running(self) -> Tensor:
        """Return the indices of the images that are not finished."""
        return (~self.finished).nonzero()[:, 0]

    def play(self, images: Tensor, candidates: Candidates) -> Tensor:
        """Try the candidates of these images; return how good each was, (images, candidates).

        That is the value of `Answers`. It is infinite for those not tried since their image was finished.
        """
        shape = candidates.pixels.shape[:2]
        values = torch.full(shape, torch.inf, dtype=torch.float64)
        for start in range(0, shape[1], self._check_every):
            rows = (~self.finished[images]).nonzero()[:, 0]
            if len(rows) == 0:
                break
            part = slice(start, min(start + self._check_every, shape[1]))
            pixels, colors = candidates.pixels[rows, part], candidates.colors[rows, part]
            owners = images[rows].repeat_interleave(pixels.shape[1])
            change = (pixels.flatten(0, 1), colors.flatten(0, 1))
            answers = self._answers(self._quick, owners, change)
            values[rows, part] = answers.value.view(pixels.shape[:2])
            best = values[rows, part].argmin(1)
            row = torch.arange(len(rows))
            best_answers = answers.at(row * pixels.shape[1] + best)
            self._keep(images[rows], pixels[row, best], colors[row, best], best_answers)
        return values

    def slopes(self, images: Tensor) -> Tensor:
        """Return the gradient of the value with respect to these images; zero for the others."""
        gradient = torch.zeros_like(self._images)
        for part in torch.split(images, len(self._rows)):
            batch = self._images[part].detach().requires_grad_(True)
            with torch.enable_grad():
                outputs = self._forward(batch, *self._arguments_of(part))
                value = self._values(outputs, self._targets[part]).sum()
                slope = gradient_of(value, batch)
                if slope is None:
                    raise ValueError("model: its outputs do not depend on the images")
                gradient[part] = slope
            self.queries[part] += 1
        return gradient

    def changed(self, inputs: Tensor) -> Tensor:
        """Return a copy of the caller's images with the best candidate of each put in."""
        changed = inputs.detach().clone()
        tried = (self.pixels[:, 0] >= 0).nonzero()
        pixels = self.pixels[tried[:, 0]]
        width = inputs.shape[-1]
        colors = self.colors[tried[:, 0]].to(inputs.device, inputs.dtype)
        changed[tried, :, pixels // width, pixels % width] = colors
        return changed

    def report(self) -> PixelAttackReport:
        """Return what came of each image."""
        width = self._images.shape[-1]
        positions = torch.stack([self.pixels // width, self.pixels % width], -1)
        return PixelAttackReport(
            success=self.success,
            already_adversarial=self.already_adversarial,
            queries=self.queries,
            positions=torch.where((self.pixels >= 0)[..., None], positions, -1),
            colors=self.colors,
            probability_before=self.before.probability,
            probability_after=self.after.probability,
            predicted_before=self.before.predicted,
            predicted_after=self.after.predicted,
        )

    def _keep(self, images: Tensor, pixels: Tensor, colors: Tensor, answers: Answers) -> None:
        """Keep the candidate of each image if it is its best so far; a success finishes the image."""
        successes = self._reached(images, answers)
        if bool(successes.any()) and self._quick is not self._forward:
            change = (pixels[successes], colors[successes])
            answers.put(successes, self._answers(self._forward, images[successes], change))
            successes = self._reached(images, answers)
        improvements = successes | (answers.value < self.after.value[images])
        improved = images[improvements]
        self.pixels[improved], self.colors[improved] = pixels[improvements], colors[improvements]
        self.after.put(improved, answers.at(improvements))
        self.success[images[successes]] = True
        self._finish(images[successes])

    def _finish(self, images: Tensor) -> None:
        self.finished[images] = True
        self._bar.set_postfix_str(f"{int(self.success.sum())} succeeded", refresh=False)
        self._bar.update(len(images))

    def _answers(
        self,
        forward: Callable[..., Any],
        owners: Tensor,
        change: tuple[Tensor, Tensor] | None,
        *,
        check: bool = False,
    ) -> Answers:
        """Return the model's answers to some images, each a row of a batch.

        Args:
            forward: What to run.
            owners: Index of the image of each row, ascending.
            change: Pixels (rows, k) and colours (rows, k, C) to put in; ``None``: the images as they are.
            check: Whether the outputs are looked at for what no attack can work with.
        """
        # Of each row the three answers, so that a batch is copied from its device once.
        table = torch.empty(len(owners), 3, dtype=torch.float64)
        batches = math.ceil(len(owners) / len(self._rows))
        size = math.ceil(len(owners) / batches)
        width = self._images.shape[-1]
        for start in range(0, len(owners), size):
            part = slice(start, start + size)
            batch_owners = owners[part]
            rows = self._rows[: len(batch_owners)]
            first = 0
            images, counts = torch.unique_consecutive(batch_owners, return_counts=True)
            for image, count in zip(images.tolist(), counts.tolist(), strict=True):
                rows[first : first + count] = self._images[image]
                first += count
            if change is not None:
                pixels, colors = (tensor[part].to(rows.device) for tensor in change)
                index = torch.arange(len(batch_owners), device=rows.device)[:, None]
                rows[index, :, pixels // width, pixels % width] = colors
            outputs = forward(rows, *self._arguments_of(batch_owners))
            if check:
                _check_outputs(outputs, self._targets[batch_owners])
            outputs = outputs.double()
            targets = self._targets[batch_owners.to(rows.device)]
            probability = outputs.softmax(1).gather(1, targets[:, None])[:, 0]
            value = self._values(outputs, targets)
            table[part] = torch.stack([value, outputs.argmax(1).double(), probability], 1).cpu()
        self.queries += owners.bincount(minlength=len(self.queries))
        return Answers(table[:, 0], table[:, 1].long(), table[:, 2])

    def _reached(self, images: Tensor, answers: Answers) -> Tensor:
        return (answers.predicted == self._targets.cpu()[images]) == self._targeted

    def _values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        target = outputs.gather(1, targets[:, None])[:, 0]
        largest_other = outputs.scatter(1, targets[:, None], -torch.inf).amax(1)
        return largest_other - target if self._targeted else target - largest_other

    def _arguments_of(self, images: Tensor) -> tuple[Any, ...]:
        return tuple(
            argument[images.to(argument.device)]
            if isinstance(argument, Tensor) and argument.ndim
            else argument
            for argument in self._arguments
        )


def _check_outputs(outputs: Any, targets: Tensor) -> None:
    rows = len(targets)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != rows or outputs.shape[1] < 2:
        raise ValueError(
            f"forward_func: expected outputs of shape ({rows}, classes), got {describe(outputs)}"
        )
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("forward_func: expected finite outputs, got NaN or infinity")
    if int(targets.max()) >= outputs.shape[1]:
        raise ValueError(
            f"target: expected classes from 0 to {outputs.shape[1] - 1}, got {int(targets.max())}"
        )
