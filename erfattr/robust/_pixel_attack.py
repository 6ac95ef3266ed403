"""What all pixel attacks share: settings and their checks, and the loop from generation to generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias

import torch
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor

from erfattr._batches import as_arguments
from erfattr._checks import as_numbers, check_int, check_positive_int, describe
from erfattr._model import device_and_dtype, refuse_batch_statistics, untouched
from erfattr._progress import progress
from erfattr.execution import Execution
from erfattr.robust.pixel_search import PixelSearch
from erfattr.robust.pixel_space import PixelSpace
from erfattr.robust.pixel_trials import Trials

Bound: TypeAlias = float | Sequence[float] | Tensor

# Images may lie outside the bounds by this share of their range: the rounding of a normalisation.
_ROUNDING = 1e-6


@dataclass(eq=False, repr=False)
class PixelAttack(Perturbation):  # type: ignore[misc]
    """What the attacks share: checks, the loop over generations, and the report.

    A subclass adds its settings as keyword-only fields and says in ``_search`` how it searches.

    The fields are the arguments of every attack; `OnePixelAttack` says what they are.
    """

    forward_func: Callable[..., Any]
    # Of `StrongPixelAttack` only, where it is the second argument: a field keeps its place in subclasses.
    sensitivity_map: Any = field(init=False)
    lower_bound: Bound
    upper_bound: Bound
    _: KW_ONLY
    pixels: int = 1
    mask: Any = None
    levels: int | None = None
    max_batch_size: int = 64
    check_every: int = 32
    seed: int = 0
    execution: Execution | None = None

    def __post_init__(self) -> None:
        if not callable(self.forward_func):
            raise TypeError(
                "forward_func: expected a torch.nn.Module or another callable, got "
                f"{describe(self.forward_func)}"
            )
        lower, upper = _bound("lower_bound", self.lower_bound), _bound("upper_bound", self.upper_bound)
        if len({len(lower), len(upper)} - {1}) > 1:
            raise ValueError(
                f"upper_bound: expected {len(lower)} channels as lower_bound has, got {len(upper)}"
            )
        if not bool((lower < upper).all()):
            raise ValueError(
                f"upper_bound: expected values above lower_bound {lower.tolist()}, got {upper.tolist()}"
            )
        self.lower_bound, self.upper_bound = lower, upper
        check_positive_int("pixels", self.pixels)
        check_positive_int("max_batch_size", self.max_batch_size)
        check_positive_int("check_every", self.check_every)
        if self.levels is not None:
            check_positive_int("levels", self.levels)
            if self.levels < 2:
                raise ValueError(
                    f"levels: expected at least 2 values of a channel or None, got {self.levels}"
                )
        check_int("seed", self.seed)
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed: expected an integer from 0 to 2**31 - 1, got {self.seed}")
        if self.execution is not None and not isinstance(self.execution, Execution):
            raise TypeError(f"execution: expected an Execution or None, got {describe(self.execution)}")
        self.mask = None if self.mask is None else _mask(self.mask)

    @log_usage()  # type: ignore[untyped-decorator]
    def perturb(
        self,
        inputs: Tensor,
        target: Any,
        additional_forward_args: Any = None,
        targeted: bool = False,
        *,
        pixels: int | None = None,
        return_report: bool = False,
        show_progress: bool = False,
    ) -> Any:
        """Change few pixels of each image so that its class changes, or becomes ``target`` if ``targeted``.

        Args:
            inputs: Images (N, C, H, W), floating-point, inside the bounds.
            target: Class of each image, the true one or, if ``targeted``, the wanted one: an integer for all,
                or N integers.
            additional_forward_args: Further arguments of the model, as Captum takes them: a tensor has one
                entry for each image, everything else is the same for all.
            targeted: Whether ``target`` is to be reached instead of left.
            pixels: How many pixels to change; by default the constructor's number.
            return_report: Also return a `PixelAttackReport`.
            show_progress: Show images done and successes so far on standard error.

        Returns:
            Images shaped as given, on their device and in their dtype; all other pixels are bit-identical.
            With ``return_report`` a pair: images, report.

        Raises:
            TypeError: ``inputs`` is no floating-point tensor, or ``target`` no integers.
            ValueError: ``inputs`` is not (N, C, H, W), is empty, not finite or outside the bounds; the
                bounds, the mask or the map are of another size; fewer pixels may be changed than are to be;
                ``target`` is not one integer for each image or no class of the model; the outputs are not
                (N, classes), or not finite; the model normalises with the statistics of the batch.
        """
        count = self.pixels if pixels is None else pixels
        check_positive_int("pixels", count)
        _check_images(inputs)
        device, dtype = device_and_dtype(self.forward_func)
        images = inputs.detach().to(device or inputs.device, dtype or inputs.dtype)
        lower, upper = self._bounds(images)
        targets = _targets(target, len(images))
        arguments = _arguments(additional_forward_args, len(images))
        allowed, weights = self._allowed((images.shape[2], images.shape[3]))
        if int(allowed.sum()) < count:
            raise ValueError(
                f"pixels: expected at most the {int(allowed.sum())} pixels that may be changed, got {count}"
            )
        refuse_batch_statistics(self.forward_func, self.max_batch_size)
        bar = progress(len(images), show=show_progress)
        with bar, untouched(self.forward_func), torch.no_grad():
            trials = Trials(
                self.forward_func,
                images,
                targets,
                targeted,
                arguments,
                pixels=count,
                max_batch_size=self.max_batch_size,
                check_every=self.check_every,
                execution=self.execution or Execution(),
                bar=bar,
            )
            space = PixelSpace(images, lower, upper, allowed, weights, count, self.levels, self.seed)
            search = self._search(space, trials)
            for _ in range(search.generations):
                running = trials.running()
                if len(running) == 0:
                    break
                search.observe(running, trials.play(running, search.propose(running)))
            bar.update(len(trials.running()))  # these have withstood
        adversarial = trials.changed(inputs)
        return (adversarial, trials.report()) if return_report else adversarial

    def _search(self, space: PixelSpace, trials: Trials, /) -> PixelSearch:
        raise NotImplementedError

    def _allowed(self, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Return the pixels that may be changed, bool (H, W), and the weights they are drawn with."""
        if self.mask is None:
            return torch.ones(size, dtype=torch.bool), None
        if tuple(self.mask.shape) != size:
            raise ValueError(f"mask: expected the images' {size}, got {tuple(self.mask.shape)}")
        return self.mask, None

    def _bounds(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounds of each channel in the images' dtype, after checking the images against them."""
        channels = images.shape[1]
        bounds = []
        for name, numbers in (("lower_bound", self.lower_bound), ("upper_bound", self.upper_bound)):
            bound = _bound(name, numbers)
            if len(bound) not in (1, channels):
                raise ValueError(
                    f"{name}: expected one value or {channels}, one for each channel, got {len(bound)}"
                )
            bounds.append(bound.expand(channels).to(images.device, images.dtype))
        lower, upper = bounds
        slack = _ROUNDING * (upper - lower)
        lowest, highest = images.amin((0, 2, 3)), images.amax((0, 2, 3))
        outside = ((lowest < lower - slack) | (highest > upper + slack)).nonzero()
        if len(outside):
            channel = int(outside[0])
            raise ValueError(
                f"inputs: expected {lower[channel]:g} to {upper[channel]:g} in channel {channel}, got "
                f"{lowest[channel]:g} to {highest[channel]:g}"
            )
        return lower, upper


def _bound(name: str, value: Bound) -> Tensor:
    """Return a bound as float64, (1,) or (C,)."""
    numbers = [value] if isinstance(value, (int, float)) else value
    return torch.tensor(as_numbers(name, numbers), dtype=torch.float64)


def _mask(value: Any) -> Tensor:
    mask = torch.as_tensor(value)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected booleans of shape (H, W), got {describe(value)}")
    if mask.ndim != 2:
        raise ValueError(f"mask: expected booleans of shape (H, W), got shape {tuple(mask.shape)}")
    if not bool(mask.any()):
        raise ValueError("mask: expected at least one pixel that may be changed, got none")
    return mask.detach().cpu()


def _check_images(inputs: Any) -> None:
    expected = "inputs: expected floating-point images of shape (N, C, H, W)"
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"{expected}, got {describe(inputs)}")
    if inputs.ndim != 4 or inputs.numel() == 0:
        raise ValueError(f"{expected}, got shape {tuple(inputs.shape)}")
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("inputs: expected finite images, got NaN or infinity")


def _targets(target: Any, count: int) -> Tensor:
    expected = f"target: expected an integer or {count} integers, one for each image"
    try:
        targets = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{expected}, got {describe(target)}") from error
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"{expected}, got {describe(target)}")
    if targets.ndim > 1 or (targets.ndim == 1 and len(targets) not in (1, count)):
        raise ValueError(f"{expected}, got {describe(target)}")
    if int(targets.min()) < 0:
        raise ValueError(f"target: expected classes from 0, got {int(targets.min())}")
    return targets.long().cpu().expand(count)


def _arguments(additional_forward_args: Any, count: int) -> tuple[Any, ...]:
    arguments = as_arguments(additional_forward_args)
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.ndim and len(argument) != count:
            raise ValueError(
                f"additional_forward_args: expected tensors of {count} entries, one for each image, got "
                f"{describe(argument)}"
            )
    return arguments
