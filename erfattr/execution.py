"""How a model is run: on a private copy that does the same with less work, on crops, in which precision."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import get_args

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from erfattr._checks import Precision, check_choice, describe
from erfattr._model import evaluating
from erfattr.remedies.downsampling import AveragedConv2d, BlurredConv2d
from erfattr.remedies.kernel_padding import PaddedConv2d, PaddedConv2dSame

# Linear in weight and bias, channel by channel: what a batch normalisation does can go into them.
_CONVOLUTIONS = (nn.Conv2d, PaddedConv2d, PaddedConv2dSame, BlurredConv2d, AveragedConv2d)
_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Execution:
    """How to run a model for its maps. All but the last two give the same maps to rounding.

    What was done is recorded with the result (`MapStatistics.computed`). ``Execution.plain()`` runs the
    caller's model as it is, on whole images.

    Attributes:
        fold: Fold batch normalisations into the convolutions before them, on a private copy, where a symbolic
            trace proves that nothing else reads the convolution.
        channels_last: Lay the copy's weights and the images out channels last.
        crop: Run units whose theoretical receptive field is smaller than the image on the part of the image
            that holds it, aligned with the strides. Only where the traced operators prove it to be the same,
            and the unit's features on the first image agree.
        compile: Compile the copy with ``torch.compile``.
        precision: ``None``: the model's own dtype; ``"float32"``, ``"float64"`` or ``"bfloat16"``. Maps in
            bfloat16 are others: of few images by tens of percent of their maximum at single pixels.

    Raises:
        TypeError: a switch is not a boolean.
        ValueError: unknown ``precision``.

    Example:
        >>> Execution(precision="bfloat16").crop, Execution.plain().crop
        (True, False)
    """

    fold: bool = True
    channels_last: bool = True
    crop: bool = True
    compile: bool = False
    precision: Precision | None = None

    def __post_init__(self) -> None:
        for name in ("fold", "channels_last", "crop", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {describe(getattr(self, name))}")
        check_choice("precision", self.precision, (None, *get_args(Precision)))

    @classmethod
    def plain(cls) -> Execution:
        """Run the caller's model as it is, on whole images."""
        return cls(fold=False, channels_last=False, crop=False)


def prepared(
    model: nn.Module, execution: Execution, keep: Collection[str]
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return what to run in place of ``model``, and what was done to it, in words.

    Args:
        model: Any module; only read. It is itself returned where nothing is to be done, or where it cannot be
            copied.
        execution: What to do.
        keep: Names of layers whose output is wanted as it is: a convolution among them is not folded into.
    """
    dtype = None if execution.precision is None else _DTYPES[execution.precision]
    if not (execution.fold or execution.channels_last or execution.compile or dtype):
        return model, ()
    try:
        duplicate = copy.deepcopy(model)
    except Exception as error:  # whatever a module's own __deepcopy__ or __getstate__ raises
        if dtype is not None:
            raise ValueError(f"precision: expected a model that can be copied, but {error}") from error
        return model, (f"as it is, since it cannot be copied: {error}",)
    done = []
    duplicate.eval()
    if execution.fold:
        folded = _fold(duplicate, keep)
        if folded:
            done.append(f"{folded} batch normalisations folded")
    if dtype is not None:
        duplicate.to(dtype)
        done.append(str(execution.precision))
    if execution.channels_last and any(type(module) is nn.Conv2d for module in duplicate.modules()):
        duplicate.to(memory_format=torch.channels_last)
        done.append("channels last")
    if execution.compile:
        duplicate.compile()
        done.append("compiled")
    return duplicate, tuple(done)


class _Tracer(fx.Tracer):
    """Keeps the package's own convolutions whole, as it keeps PyTorch's."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) in _CONVOLUTIONS or super().is_leaf_module(module, name)


def _fold(model: nn.Module, keep: Collection[str]) -> int:
    """Fold in place every batch normalisation that provably is the only reader of a convolution."""
    try:
        with evaluating(model):
            graph = _Tracer().trace(model)
    except Exception:  # tracing runs the model's own code on proxies: anything may be raised
        return 0
    modules = dict(model.named_modules(remove_duplicate=False))
    owners = Counter(id(module) for name, module in modules.items())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    read = {node.target for node in graph.nodes if node.op == "get_attr"}
    folded = 0
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        first, second = str(source.target), str(node.target)
        convolution, normalisation = modules[first], modules[second]
        if type(convolution) not in _CONVOLUTIONS or type(normalisation) is not nn.BatchNorm2d:
            continue
        alone = len(source.users) == 1 and calls[first] == calls[second] == 1
        shared = owners[id(convolution)] > 1 or owners[id(normalisation)] > 1
        hooked = any(
            hooks
            for module in (convolution, normalisation)
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
        )
        touched = any(name.startswith((f"{first}.", f"{second}.")) for name in read)
        if not alone or shared or hooked or touched or first in keep or normalisation.running_var is None:
            continue
        _replace(model, first, fuse_conv_bn_eval(convolution, normalisation))
        _replace(model, second, nn.Identity())
        folded += 1
    return folded


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
