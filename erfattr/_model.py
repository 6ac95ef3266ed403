"""Run a model and leave it as it was: flags, hooks, random state, layer capture; the hash of its weights."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from erfattr._checks import describe, suggest


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put every submodule in evaluation mode, and each back in its own mode afterwards."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    flags = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Switch parameter gradients off (they are half of a backward pass), and each back as it was."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    flags = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_locks_lock = Lock()


def _lock_of(model: Any) -> AbstractContextManager[Any]:
    if not isinstance(model, nn.Module):
        return nullcontext()
    with _locks_lock:
        lock: AbstractContextManager[Any] = _locks.setdefault(model, RLock())
    return lock


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Run ``model`` in evaluation mode without parameter gradients; restore flags and the random state.

    Whatever the model draws from torch's random generators (CPU and its own CUDA devices) is given back. A
    second thread that wants the same model waits: it would find the flags of the first and leave those.
    """
    devices = {tensor.device for tensor in tensors_of(model) if tensor.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(_lock_of(model))
        stack.enter_context(torch.random.fork_rng(devices=[device.index or 0 for device in devices]))
        stack.enter_context(evaluating(model))
        stack.enter_context(frozen(model))
        yield


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undo what a forward pass assigns to modules, and puts into their dicts, lists and sets (caches)."""
    saved = []
    for module in model.modules():
        attributes = dict(vars(module))
        # Hooks come and go by themselves.
        filled = {
            key: copy.copy(value)
            for key, value in attributes.items()
            if type(value) in (dict, OrderedDict, list, set) and "_hooks" not in key
        }
        saved.append((module, attributes, filled))
    try:
        yield
    finally:
        for module, attributes, filled in saved:
            vars(module).clear()
            vars(module).update(attributes)
            for key, before in filled.items():
                container = attributes[key]
                container.clear()
                container.extend(before) if isinstance(container, list) else container.update(before)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Undo what a forward pass writes into buffers."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's CPU generator as seeded with ``seed``; its state comes back as it was."""
    # torch.manual_seed would also seed the accelerators, whose state would stay so.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def tensors_of(model: Any) -> Iterator[Tensor]:
    """Yield the parameters and buffers of a module; nothing for another callable."""
    if isinstance(model, nn.Module):
        yield from model.parameters()
        yield from model.buffers()


def device_and_dtype(model: Any) -> tuple[torch.device | None, torch.dtype | None]:
    """Return device and floating-point dtype of the model's first floating-point tensor, or two ``None``."""
    for tensor in tensors_of(model):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return None, None


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 over name, dtype, shape and bytes of every parameter and buffer, as 64 hex digits.

    Entries are taken in the order of their names, in row-major layout, so neither the order of construction
    nor the memory format nor the device matters. It says nothing about the code that uses the weights.

    Args:
        model: Any module.

    Returns:
        Lower-case hexadecimal digits.

    Example:
        >>> weights_hash(nn.ReLU()) == hashlib.sha256().hexdigest()
        True
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def refuse_batch_statistics(model: Any, images: int) -> None:
    """Refuse networks in which the images of a batch see each other."""
    if images == 1 or not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"model: layer {name!r} normalises with the statistics of the batch, so the images of a "
                f"batch are not independent; expected batches of one image, got {images}"
            )


def find_layer(model: nn.Module, layer: nn.Module | str) -> tuple[str, nn.Module]:
    """Return dotted name and module of ``layer``, given as either.

    Raises:
        TypeError: ``layer`` is neither a module nor a string.
        ValueError: the model has no such layer; the nearest names are suggested.
    """
    names = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if isinstance(layer, nn.Module):
        for name, module in names.items():
            if module is layer:
                return name, module
        if layer is model:
            return "", model
        raise ValueError(
            f"layer: expected a submodule of the {type(model).__name__}, "
            f"got a {type(layer).__name__} that is not in it"
        )
    if not isinstance(layer, str):
        raise TypeError(f"layer: expected a module or its dotted name, got {describe(layer)}")
    # torch.compile wraps a model, and its layers get the wrapper's name before their own.
    wrapped = f"{_WRAPPER}{layer}"
    if layer not in names and wrapped in names:
        return wrapped, names[wrapped]
    if layer not in names:
        nearest = suggest(layer, [name.removeprefix(_WRAPPER) for name in names])
        raise ValueError(f"layer: the {type(model).__name__} has no layer {layer!r}{nearest}")
    return layer, names[layer]


_WRAPPER = "_orig_mod."


def watchable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules by name that take hooks: all but what was traced or scripted (torch.jit)."""
    return {
        name: module
        for name, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)
    }


def refuse_compiled_layer(model: nn.Module, layer: str) -> None:
    """Raise where a layer lies inside a traced or scripted module: its parts run where no hook sees them."""
    parts = layer.split(".") if layer else []
    for count in range(len(parts) + 1):
        name = ".".join(parts[:count])
        if isinstance(model.get_submodule(name) if name else model, torch.jit.ScriptModule):
            what = f"layer {name!r}" if name else "the model"
            raise ValueError(
                f"layer: expected a layer of a plain module, but {what} was traced or scripted (torch.jit), "
                "and what runs inside cannot be watched; take the module that it was made from"
            )


def other_dimensions(model: Any) -> str | None:
    """Return in words that a network is made for signals or volumes; ``None`` if nothing says so."""
    if not isinstance(model, nn.Module):
        return None
    kinds = [len(module.kernel_size) for module in model.modules() if isinstance(module, _ConvNd)]
    if not kinds or 2 in kinds:
        return None
    what = "signals, with Conv1d" if kinds[0] == 1 else "volumes, with Conv3d"
    return (
        f"model: expected a network of images (N, C, H, W), got one of {what}; signals and volumes are not "
        "supported yet"
    )


def gradient_of(value: Tensor, images: Tensor, *, retain_graph: bool = False) -> Tensor | None:
    """Return the gradient of a sum over images with respect to them; ``None`` if it does not depend on them.

    Raises:
        ValueError: the model checkpoints its gradients in the way that gives images none.
    """
    if not value.requires_grad:
        return None
    if len(images) == 1:
        _mend_batch_norms(value)
    try:
        (gradient,) = torch.autograd.grad(value, images, retain_graph=retain_graph, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" in str(error):
            raise ValueError(_REENTRANT) from error
        raise
    return gradient


_REENTRANT = (
    "model: expected gradient checkpointing with use_reentrant=False, got some with use_reentrant=True, "
    "which has no gradient with respect to images"
)


def _mend_batch_norms(value: Tensor) -> None:
    """Give batch normalisations gradients in an order that they understand.

    The backward pass of PyTorch's batch normalisation (2.14, on a CPU, in evaluation) reads the gradient of
    one image in the wrong order where its strides are neither those of (N, C, H, W) nor of channels last, as
    behind tokens that were a map before: the stride of the only image is then no hint.
    """
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "BatchNorm" in node.name():
            node.register_prehook(lambda gradients: tuple(map(_in_order, gradients)))
        waiting += [following for following, _ in node.next_functions]


def _in_order(gradient: Tensor | None) -> Tensor | None:
    if gradient is None or gradient.ndim != 4 or gradient.is_contiguous():
        return gradient
    _, channels, height, width = gradient.shape
    channels_last = (height * width * channels, 1, width * channels, channels)
    return gradient if gradient.stride() == channels_last else gradient.contiguous()


class _Stopped(BaseException):
    """Ends a forward pass once everything wanted has been seen.

    Not an ``Exception``: a model that catches those must not swallow it.
    """


@contextmanager
def hooked(modules: Mapping[str, nn.Module], hook: Callable[[str, Any], None]) -> Iterator[None]:
    """Call ``hook(name, output)`` whenever one of ``modules`` has run; remove the hooks afterwards."""
    handles = []
    try:
        for name, module in modules.items():
            handles.append(
                module.register_forward_hook(lambda _module, _args, output, name=name: hook(name, output))
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def observed(
    modules: Mapping[str, nn.Module],
    observe: Callable[[str, Any], Any],
    run: Callable[[], Any],
    *,
    stop_after: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], Any]:
    """Call ``run()`` and return ``observe(name, output)`` of each module's last call, and what ``run`` gave.

    The observation is made the moment the module has run, so that a later in-place operation on its output
    (``ReLU(inplace=True)`` behind a batch normalisation) does not change what is seen.

    Args:
        modules: The modules to observe, by a name of the caller's choice.
        observe: Called with name and output; its result is kept.
        run: Calls the model.
        stop_after: How often each module runs in one forward pass. With it the pass ends as soon as the
            last of them has run, and the second result is ``None``.

    Raises:
        ValueError: a module never ran.
    """
    seen: dict[str, Any] = {}
    counts = dict.fromkeys(modules, 0)

    def record(name: str, output: Any) -> None:
        seen[name] = observe(name, output)
        counts[name] += 1
        if stop_after is not None and all(counts[key] >= stop_after[key] for key in modules):
            raise _Stopped

    result = None
    with hooked(modules, record), suppress(_Stopped):
        result = run()
    never = [name for name in modules if name not in seen]
    if never:
        raise ValueError(f"layer: {', '.join(map(repr, never))} never ran in the model's forward pass")
    return seen, result
