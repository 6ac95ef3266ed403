"""How many channels the images of a model have, found out by trying."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from erfattr._model import attributes_kept, buffers_kept, device_and_dtype, untouched


class _Stopped(BaseException):
    """Ends a trial at its first convolution. Not an ``Exception``, which a model may catch."""


class _Trial(NamedTuple):
    """What became of a model on an image of so many channels.

    Attributes:
        channels: Of the image.
        fits: Whether its first convolution takes what it was given, or the model without one ran to its end.
        layer: Name of the convolution, if it came so far.
        wanted: How many channels the image should have had; ``None`` if that is not known.
    """

    channels: int
    fits: bool
    layer: str | None = None
    wanted: int | None = None

    @property
    def taken(self) -> int:
        """How many channels the model takes, where that is known."""
        return self.channels if self.wanted is None else self.wanted


def image_channels(model: nn.Module, size: tuple[int, int], channels: int | None = None) -> int:
    """Return how many channels the images of a model have.

    The model is run on an image of zeros as far as its first convolution, which says how many channels it
    takes; a model without convolutions is run to its end. So a model that makes more channels of its images
    before (space to depth, coordinates) is understood as well. Where it cannot be run at this size, the first
    convolution that it holds is asked, and three is the answer where that says nothing either.

    Args:
        model: Any module; it comes back as it was.
        size: (H, W) of the images.
        channels: The number that they are to have; ``None``: 3, 1 or 4, the first that the model takes, or
            else what its first convolution wants.

    Raises:
        ValueError: the model takes another number than ``channels``.

    Example:
        >>> image_channels(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)), (16, 24))
        1
    """
    tried = []
    for number in dict.fromkeys((channels or 3, 3, 1, 4)):
        trial = _trial(model, number, size)
        if trial.fits and number == (channels or number):
            return number
        tried.append(trial)
    known = [trial for trial in tried if trial.fits] + [trial for trial in tried if trial.wanted is not None]
    if channels is None:
        return known[0].taken if known else _registered(model)
    if not known:
        return channels  # what the model has to say about such images it says when it runs
    where = "" if known[0].layer is None else f"the first convolution {known[0].layer!r} of "
    raise ValueError(
        f"channels: expected {known[0].taken}, which {where}the {type(model).__name__} takes, got {channels}"
    )


def _trial(model: nn.Module, channels: int, size: tuple[int, int]) -> _Trial:
    seen: list[_Trial] = []
    names = {module: name for name, module in model.named_modules() if isinstance(module, _ConvNd)}

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, _ConvNd) and args and isinstance(args[0], torch.Tensor):
            given = args[0].shape[-1 - len(module.kernel_size)]
            times, rest = divmod(given, channels)
            known = times > 0 and rest == 0 and module.in_channels % times == 0
            wanted = module.in_channels // times if known else None
            fits = bool(given == module.in_channels)
            seen.append(_Trial(channels, fits, names[module], channels if fits else wanted))
            raise _Stopped

    device, dtype = device_and_dtype(model)
    handles = [module.register_forward_pre_hook(look) for module in names]
    try:
        with untouched(model), torch.no_grad(), attributes_kept(model), buffers_kept(model):
            model(torch.zeros(1, channels, *size, device=device, dtype=dtype))
    except _Stopped:
        return seen[0]
    except Exception:  # whatever a model raises on images that are not its own
        return _Trial(channels, False)
    finally:
        for handle in handles:
            handle.remove()
    return _Trial(channels, True)


def _registered(model: nn.Module) -> int:
    convolutions = (module for module in model.modules() if isinstance(module, _ConvNd))
    first = next(convolutions, None)
    # Of other numbers it is hardly the one that sees the image.
    return 3 if first is None or first.in_channels not in (1, 3, 4) else first.in_channels
