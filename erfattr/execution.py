"""How a model is run: on a private copy that does the same with less work, on crops, in which precision."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from erfattr._checks import Precision, check_choice, describe
from erfattr.remedies.average_shortcuts import AveragedConv2d
from erfattr.remedies.blur import BlurredConv2d
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
        fold: Fold batch normalisations into the convolutions before them, on a private copy, where the
            traced operators prove that nothing else reads the convolution.
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
    model: nn.Module,
    execution: Execution,
    keep: Collection[str] = (),
    *,
    folds: Iterable[tuple[str, str]] = (),
    begun: Collection[str] | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return what to run in place of ``model``, and what was done to it, in words.

    Args:
        model: Any module; only read. It is itself returned where nothing is to be done, or where it cannot
            be copied.
        execution: What to do.
        keep: Names of layers whose output is wanted as it is: a convolution among them is not folded into.
        folds: Names of convolutions and of the batch normalisations that alone read them, from a trace
            (`erfattr.receptive_field.trace.Trace.folds`).
        begun: Names of the modules that run; the others are not copied. ``None``: all may run.
    """
    dtype = None if execution.precision is None else _DTYPES[execution.precision]
    scripted = isinstance(model, torch.jit.ScriptModule)  # its parts cannot be reached
    if not (execution.fold or execution.channels_last or execution.compile or dtype) or scripted:
        return model, ()
    if dtype is not None or execution.compile:
        begun = None
    try:
        duplicate = _copied(model, begun)
    except Exception as error:  # whatever a module's own __deepcopy__ or __getstate__ raises
        if dtype is not None:
            raise ValueError(f"precision: expected a model that can be copied, but {error}") from error
        return model, (f"as it is, since it cannot be copied: {error}",)
    done = []
    modules = dict(duplicate.named_modules(remove_duplicate=False))
    own = modules if begun is None else {name: modules[name] for name in begun}
    for module in own.values():
        module.training = False
    if execution.fold:
        folded = _fold(duplicate, [pair for pair in folds if pair[0] not in keep and set(pair) <= set(own)])
        if folded:
            done.append(f"{folded} batch normalisations folded")
    if dtype is not None:
        duplicate.to(dtype)
        done.append(str(execution.precision))
    if execution.channels_last:
        convolutions = [name for name, module in own.items() if type(module) is nn.Conv2d]
        # Folding has put other modules under these names.
        for module in map(duplicate.get_submodule, own):
            for parameter in module.parameters(recurse=False):
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if convolutions:
            done.append("channels last")
    if execution.compile:
        duplicate.compile()
        done.append("compiled")
    return duplicate, tuple(done)


def rounds_to_tf32(device: torch.device | None, dtype: torch.dtype | None) -> bool:
    """Whether PyTorch is set to round the factors of float32 convolutions to 10 bits, as it does on CUDA."""
    if device is None or device.type != "cuda" or dtype is not torch.float32:
        return False
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    if convolutions is None:  # before PyTorch 2.9
        return bool(torch.backends.cudnn.allow_tf32)
    return bool(convolutions.fp32_precision == "tf32")


def _copied(model: nn.Module, begun: Collection[str] | None) -> nn.Module:
    """Return a copy of a module that shares the weights' memory, so that it costs next to nothing.

    Its parameters take no gradient. Buffers are copied: a forward pass may write to them. Modules that do not
    run are the caller's own.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        if type(parameter) is nn.Parameter:
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    if begun is not None:
        running = {id(model.get_submodule(name)) for name in begun}
        memo |= {id(module): module for module in model.modules() if id(module) not in running}
    duplicate: nn.Module = copy.deepcopy(model, memo)
    return duplicate


def _fold(model: nn.Module, pairs: Iterable[tuple[str, str]]) -> int:
    """Fold batch normalisations into the convolutions before them, in place, where the modules allow it."""
    folded = 0
    for first, second in pairs:
        convolution: Any = model.get_submodule(first)
        normalisation = model.get_submodule(second)
        if type(convolution) not in _CONVOLUTIONS or type(normalisation) is not nn.BatchNorm2d:
            continue
        # What a hook or a patched forward does beside the operators would be lost.
        if any(_is_changed(module) for module in (convolution, normalisation)):
            continue
        if normalisation.running_var is None:
            continue
        _replace(model, first, fuse_conv_bn_eval(convolution, normalisation))
        _replace(model, second, nn.Identity())
        folded += 1
    return folded


def _is_changed(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
