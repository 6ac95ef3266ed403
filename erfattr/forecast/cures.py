"""What each remedy would change, by forecast: contrast, imbalance, centre and cost."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from erfattr._checks import check_bool, check_choice
from erfattr.forecast.forecasting import Prepared, Unit, Weights, prepare
from erfattr.forecast.grid import contrast_of, period_of
from erfattr.metrics.imbalance import imbalance_index
from erfattr.remedies.average_shortcuts import average_shortcuts
from erfattr.remedies.blur import blur_downsampling
from erfattr.remedies.kernel_padding import PaddedConv2d, pad_kernels
from erfattr.remedies.model_changes import OTHER_FUNCTION, ModelChanges

_Change = Callable[..., "tuple[nn.Module, ModelChanges]"]


@dataclass(frozen=True)
class RemedyForecast:
    """What one remedy would make of a map.

    Attributes:
        remedy: Its name; ``"original"`` for the model as it is.
        layers: Names of the layers that it changes.
        contrast: Phase contrast of the forecast, at the period of the original.
        l1: L1 of eq. 4 of the forecast over its mean.
        center: Centre of mass of the forecast (y, x), in pixels.
        flops: Floating-point operations of convolutions and matrix products for one image.
        parameters: Of the changed model.
        same_outputs: Whether it gives the outputs of the original until it is trained.

    Example:
        >>> from erfattr import demo_model, forecast_remedies
        >>> found = {each.remedy: each for each in forecast_remedies(demo_model(), "layer4")}
        >>> found["kernel padding"].contrast < found["original"].contrast
        True
    """

    remedy: str
    layers: tuple[str, ...]
    contrast: float
    l1: float
    center: tuple[float, float]
    flops: int
    parameters: int
    same_outputs: bool

    @property
    def title(self) -> str:
        """The remedy, and the layer where it is a single one."""
        return f"{self.remedy}: {self.layers[0]}" if len(self.layers) == 1 else self.remedy


def _pools(model: nn.Module, *, skip: Collection[str] = (), return_changes: Literal[True] = True) -> Any:
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return pad_kernels(model, pool="widen", skip={*convolutions, *skip}, return_changes=return_changes)


REMEDIES: dict[str, _Change] = {
    "kernel padding": pad_kernels,
    "wide pools": _pools,
    "kernel padding and wide pools": partial(pad_kernels, pool="widen"),
    "BlurPool": blur_downsampling,
    "average shortcuts": average_shortcuts,
}
"""The remedies by name; each takes a model and ``skip``, and returns a changed copy and the changes."""

_SINGLE = tuple(name for name in REMEDIES if " and " not in name)


def forecast_remedies(
    model: nn.Module,
    layer: nn.Module | str | None = None,
    unit: Unit | Literal["center"] = "center",
    weights: Weights = "given",
    *,
    input_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    per_layer: bool = True,
) -> tuple[RemedyForecast, ...]:
    """Forecast what each remedy would make of a map, before anything is trained.

    Kernel padding adds zeros, and changes no map until it is trained. What is forecast is a network trained
    with such kernels from the start: all taps of a filter are equally strong on average, and it has the
    energy that it had. A few epochs from padded weights change a map much less.

    Args:
        model: As for `forecast_map`; only read.
        layer: See there.
        unit: See there.
        weights: See there.
        input_size: See there.
        in_channels: See there.
        per_layer: Try each remedy on each single layer too.

    Returns:
        The original first, then each remedy on all layers that it changes and, if wanted, on each alone.
        Remedies that change nothing, or refuse the model, are left out.

    Raises:
        TypeError: see `forecast_map`.
        ValueError: see there; the map has no period shorter than the image.

    Example:
        >>> model = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        >>> for found in forecast_remedies(model, "output", weights="expected", input_size=32, in_channels=1):
        ...     print(found.remedy, round(found.contrast, 2), found.same_outputs)
        original 0.24 True
        kernel padding 0.0 True
        kernel padding and wide pools 0.0 True
        BlurPool 0.07 False
    """
    check_choice("weights", weights, ("given", "expected"))
    check_bool("per_layer", per_layer)
    first = prepare(model, layer, unit, input_size, in_channels, None)
    period = period_of(first)
    # By its name: the copies have it too, and the last map of a copy may be another one.
    where = first.layer
    found = [_forecast("original", (), first, model, weights, period, True)]
    for name, change in REMEDIES.items():
        tries: list[tuple[str, tuple[str, ...]]] = [(name, ())]
        if per_layer and name in _SINGLE:
            tries += [(name, (only,)) for only in _changed(change, model)]
        seen = set()
        for title, only in tries:
            every = _changed(change, model)
            skip = [other for other in every if only and other not in only]
            if not every or (len(every) == 1 and only):
                continue
            changed, changes = change(model, skip=skip, return_changes=True)
            if changes.changed in seen:
                continue
            seen.add(changes.changed)
            if weights == "given":
                _spread(changed)
            after = prepare(changed, where, first.unit or "center", input_size, in_channels, None)
            same = all(entry.note != OTHER_FUNCTION for entry in changes.layers if entry.after is not None)
            found.append(_forecast(title, changes.changed, after, changed, weights, period, same))
    return tuple(found)


def _changed(change: _Change, model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that a remedy changes; none where it refuses the model."""
    try:
        return change(model, return_changes=True)[1].changed
    except ValueError:
        return ()


def _forecast(
    name: str,
    layers: tuple[str, ...],
    prepared: Prepared,
    model: nn.Module,
    weights: Weights,
    period: tuple[int, int],
    same: bool,
) -> RemedyForecast:
    forecast = prepared.map(weights)
    return RemedyForecast(
        name,
        layers,
        contrast_of(forecast, period),
        float(imbalance_index(forecast, 1, normalize="mean")),
        _center(forecast),
        prepared.tape.flops,
        sum(parameter.numel() for parameter in model.parameters()),
        same,
    )


def _center(forecast: Tensor) -> tuple[float, float]:
    total = forecast.sum()
    y, x = (
        float((forecast.sum(1 - axis) * torch.arange(forecast.shape[axis])).sum() / total) for axis in (0, 1)
    )
    return y, x


def _spread(model: nn.Module) -> None:
    """Let all taps of a padded filter be equally strong on average; the filter keeps its energy.

    A trained filter of odd length makes up for its lone middle tap: beside such taps a new one of average
    strength would tip the balance, which training would not leave so. Where a filter reads several channels
    every tap repeats an old one drawn at random, of all channels at once, as sums over channels count too.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if not isinstance(module, PaddedConv2d) or module.weight.is_meta:
            continue
        weight = module.weight.detach()
        rows, columns = (size - added for size, added in zip(weight.shape[2:], module.added, strict=True))
        old = weight[:, :, :rows, :columns].flatten(2)
        count = weight.shape[2] * weight.shape[3]
        if weight.shape[1] == 1:
            filled = old.square().mean(2, keepdim=True).sqrt().expand(-1, -1, count)
        else:
            drawn = torch.randint(old.shape[2], (len(weight), 1, count), generator=generator)
            filled = old.gather(2, drawn.to(weight.device).expand(-1, weight.shape[1], -1))
        # Of the energy that was drawn, or evened out, as much as there was.
        energy = (old.square().sum((1, 2)) / filled.square().sum((1, 2)).clamp_min(1e-30)).sqrt()
        with torch.no_grad():
            module.weight.copy_((filled * energy[:, None, None]).reshape(weight.shape))
