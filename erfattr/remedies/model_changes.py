"""A changed copy of a model, layer by layer, and the record of what was changed, what was left and why."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from erfattr._checks import check_module, describe, suggest

Model = TypeVar("Model", bound=nn.Module)

# Note of a change that no zeros make harmless.
OTHER_FUNCTION = "another function than before"

_KINDS = (
    (nn.modules.conv._ConvTransposeNd, "transposed convolution"),
    (nn.modules.conv._ConvNd, "convolution"),
    (nn.modules.pooling._MaxPoolNd, "max pool"),
    (nn.modules.pooling._AvgPoolNd, "average pool"),
)
_POOL_AXES = {1: (nn.MaxPool1d, nn.AvgPool1d), 3: (nn.MaxPool3d, nn.AvgPool3d)}


@dataclass(frozen=True)
class LayerChange:
    """What became of one layer.

    Attributes:
        layer: Dotted name.
        before: What it was, in words.
        after: What it is in the copy; ``None`` where it was left as it was.
        note: Why it was left, or what the change does to the outputs.

    Example:
        >>> from torch import nn
        >>> from erfattr import pad_kernels
        >>> _, changes = pad_kernels(nn.Conv2d(3, 8, 7, stride=2, padding=3), return_changes=True)
        >>> changes.layers[0].before, changes.layers[0].after
        ('7x7 convolution, stride 2', '8x8 convolution, stride 2')
    """

    layer: str
    before: str
    after: str | None
    note: str


@dataclass(frozen=True)
class ModelChanges:
    """What became of the layers of a model that make a map smaller, in the model's order.

    Attributes:
        layers: One entry for each of them; a layer that stands in several places goes by its first name.

    Example:
        >>> from erfattr import demo_model, pad_kernels
        >>> _, changes = pad_kernels(demo_model(), return_changes=True)
        >>> [change.layer for change in changes.layers][:3]
        ['conv1', 'maxpool', 'layer2.0.conv1']
    """

    layers: tuple[LayerChange, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the layers that are others in the copy."""
        return tuple(layer.layer for layer in self.layers if layer.after is not None)

    @property
    def left(self) -> tuple[str, ...]:
        """Names of the layers that were left as they were."""
        return tuple(layer.layer for layer in self.layers if layer.after is None)

    def describe(self) -> str:
        """Say what was changed and what was left, a line a layer."""
        if not self.layers:
            return "no layer makes a map smaller: nothing to change"
        width = max(len(layer.layer) for layer in self.layers)
        return "\n".join(
            f"{layer.layer:{width}}  {layer.before} -> {layer.after}: {layer.note}"
            if layer.after is not None
            else f"{layer.layer:{width}}  {layer.before}, left: {layer.note}"
            for layer in self.layers
        )


class RefusedError(ValueError):
    """Raised by a plan for a layer that it can neither change nor, in good faith, leave."""


@dataclass(frozen=True)
class Plan:
    """What is to become of one layer.

    Attributes:
        after: What it will be, in words; ``None`` to leave it.
        note: See :class:`LayerChange`.
        edit: Changes the layer of the copy in place.
    """

    note: str
    after: str | None = None
    edit: Callable[[Any], None] | None = None


def check_model(model: Any, skip: Any) -> None:
    """Raise unless ``model`` consists of Python modules and ``skip`` names some of them."""
    check_module("model", model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(
            "model: expected Python modules, got a scripted one; change it before torch.jit.script"
        )
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise TypeError(f"skip: expected a collection of layer names, got {describe(skip)}")
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    for name in skip:
        if name not in names:
            raise ValueError(
                f"skip: the {type(model).__name__} has no layer {name!r}{suggest(str(name), names)}"
            )


def layers_named(model: nn.Module, names: Collection[str]) -> set[int]:
    """Return the ids of the modules with these names, whichever of its names a module is called by."""
    return {id(module) for name, module in model.named_modules(remove_duplicate=False) if name in names}


def check_convolution(module: nn.Conv2d, *kinds: type[nn.Conv2d]) -> None:
    """Raise unless the layer is exactly of one of ``kinds``, with a weight that is its own parameter."""
    if nn.utils.parametrize.is_parametrized(module) or "weight" not in module._parameters:
        raise RefusedError(
            "its weight is computed from others (weight or spectral norm, pruning); remove that, change the"
            " model, and apply it again"
        )
    if isinstance(module.weight, nn.parameter.UninitializedParameter):
        raise RefusedError("it has no weights yet; run the model once")
    if type(module) not in kinds or "forward" in vars(module):
        raise RefusedError(f"a {type(module).__name__}, a convolution of its own kind, cannot be changed")


def changed_copy(
    model: Model, plan: Callable[[nn.Module], Plan], skip: Collection[str]
) -> tuple[Model, ModelChanges]:
    """Return a deep copy of ``model`` with layers changed in place, and the record of it.

    Args:
        model: Only read.
        plan: Says what is to become of a layer; asked about every convolution and pool with a stride above 1.
        skip: Dotted names of layers to leave.

    Raises:
        ValueError: ``plan`` refused layers, which are all named; the model cannot be copied.
    """
    skipped = layers_named(model, skip)
    plans: dict[str, Plan] = {}
    refused = []
    for name, module in model.named_modules():
        if not _downsamples(module):
            continue
        try:
            plans[name] = Plan("named in skip") if id(module) in skipped else plan(module)
        except RefusedError as error:
            refused.append(f"{name or type(model).__name__!r}: {error}")
    if refused:
        raise ValueError("model: " + "; ".join(refused) + ". Layers named in skip are left as they are")
    duplicate = _copied(model)
    layers = dict(duplicate.named_modules())
    changes = []
    for name, planned in plans.items():
        changes.append(LayerChange(name, words(layers[name]), planned.after, planned.note))
        if planned.edit is not None:
            planned.edit(layers[name])
    return duplicate, ModelChanges(tuple(changes))


def pair(value: Any) -> tuple[int, int]:
    """Return a size that PyTorch takes as one number or two as (rows, columns)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def words(module: Any, kernel: Any = None, stride: Any = None) -> str:
    """Name kind, kernel and stride of a convolution or pool, with another kernel or stride if wanted."""
    kind = next(word for kind, word in _KINDS if isinstance(module, kind))
    size = _per_axis(module, kernel or module.kernel_size)
    steps = _per_axis(module, stride or module.stride)
    if len(set(steps)) == 1:
        steps = steps[:1]
    return f"{'x'.join(map(str, size))} {kind}, stride {'x'.join(map(str, steps))}"


def _per_axis(module: nn.Module, value: Any) -> tuple[int, ...]:
    """Return a size with one number for each axis; pools may hold one for all."""
    if not isinstance(value, int):
        return tuple(value)
    axes = next((axes for axes, kinds in _POOL_AXES.items() if isinstance(module, kinds)), 2)
    return (value,) * axes


def _downsamples(module: nn.Module) -> bool:
    known = isinstance(module, tuple(kind for kind, _ in _KINDS))
    return known and max(_per_axis(module, module.stride)) > 1


def _copied(model: Model) -> Model:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever a module's own __deepcopy__ or __getstate__ raises
        raise ValueError(f"model: expected a model that can be copied, but {error}") from error
