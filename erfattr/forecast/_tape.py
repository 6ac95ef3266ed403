"""Write down the operators of one forward pass, in order, with the tensors that they read and wrote.

Without images the pass runs on the meta device, where operators compute shapes only. With images it runs for
real, once for each, and of every operator is noted what its rule asks for (`Step.measured`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry
from typing_extensions import override

from erfattr._model import attributes_kept, buffers_kept, device_and_dtype, untouched, watchable
from erfattr.receptive_field._passes import only_tensor
from erfattr.receptive_field._place_tracking import PlaceTracker
from erfattr.receptive_field._places import of_images
from erfattr.receptive_field._signatures import signature_of, storage_of, tensors_in
from erfattr.receptive_field._tracing import Tracing
from erfattr.receptive_field.layout import Layout, layout_of

Measure = Callable[["Step"], "Tensor | None"]


@dataclass(eq=False)
class Step:
    """One operator of the pass.

    Attributes:
        func: The operator.
        name: Its name without namespace, overload and the underscore of the in-place form.
        bound: Its arguments by name, defaults filled in.
        read: The tensors that it read and that depend on the image, each once.
        wrote: The tensors that it gave or wrote to.
        layer: The innermost module that ran it, by its dotted name.
        channels: The dim of its first operand that runs along channels; ``None``: not known.
        makers: The steps that gave the first and the second operand; ``None``: the image, or a constant.
        measured: What images showed of it, for its rule to use.
    """

    func: Any
    name: str
    bound: Mapping[str, Any]
    read: tuple[Tensor, ...]
    wrote: tuple[Tensor, ...]
    layer: str
    channels: int | None = None
    makers: tuple[Step | None, Step | None] = (None, None)
    measured: Tensor | None = None


@dataclass(frozen=True)
class Finished:
    """What a layer gave.

    Attributes:
        tensor: Its output; ``None`` where that is not one tensor.
        layout: Where its rows and columns lie; ``None`` where it is no map.
        steps: How many operators had run.
    """

    tensor: Tensor | None
    layout: Layout | None
    steps: int


@dataclass(eq=False)
class Tape:
    """One forward pass.

    Attributes:
        image: The tensor that the model was given.
        steps: The operators that worked on what depends on it, in order.
        layers: The last output of each layer by its dotted name, in the order they finished; ``""`` is the
            model itself.
        flops: Floating-point operations of convolutions and matrix products, two for each multiply-add.
        alive: Keeps all tensors, and with them the numbers that their memory goes by.
    """

    image: Tensor
    steps: list[Step] = field(default_factory=list)
    layers: dict[str, Finished] = field(default_factory=dict)
    flops: int = 0
    alive: list[Any] = field(default_factory=list)


class _Recording(Tracing):
    """Runs operators as `Tracing` does, or for real, and writes a tape."""

    def __init__(self, tape: Tape, measure: Measure | None) -> None:
        super().__init__()
        self.tape = tape
        self.places = PlaceTracker()
        self.running: list[str] = []
        self._measure = measure
        self._depends = {storage_of(tape.image)}
        self._makers: dict[int, Step] = {}
        self.places[tape.image] = of_images(tape.image.shape)

    @override
    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._last = func
        signature = signature_of(func)
        tensors = list(tensors_in((*args, *kwargs.values())))
        written = signature.written(args, kwargs)
        read = [tensor for tensor in tensors if storage_of(tensor) in self._depends]
        bound = signature.bind(args, kwargs)
        measured = None
        if self._measure is None:
            result = self._run(signature, args, kwargs, tensors, written, bool(read))
        else:
            if read:  # before it runs: it may work in place
                measured = self._measure(self._step(func, signature.name, bound, read, ()))
            result = func(*args, **kwargs)
        if signature.name == "detach" and read:
            # What is cut off has no gradient: another memory, which does not depend on the image.
            result = torch.empty_like(result) if self._measure is None else result.clone()
            self.tape.alive.append(result)
            return result
        outputs = written or list(tensors_in((result,)))
        self._count(func, args, kwargs, result)
        self.tape.alive.append((tensors, result))
        if not read:
            return result
        self.places.after(func, signature.name, bound, tensors, outputs, written)
        if signature.name == "as_strided" and written:
            return result  # other strides for a map of one position: nothing is written
        given = {storage_of(tensor) for tensor in tensors}
        if not written and all(storage_of(output) in given for output in outputs):
            return result  # a view
        if "out" in bound:
            read = [tensor for tensor in read if all(tensor is not one for one in written)]
        step = self._step(func, signature.name, bound, read, outputs)
        step.measured = measured
        self._depends.update(storage_of(output) for output in outputs)
        self._makers.update((storage_of(output), step) for output in outputs)
        self.tape.steps.append(step)
        return result

    def _step(
        self, func: Any, name: str, bound: Mapping[str, Any], read: Sequence[Tensor], wrote: Sequence[Tensor]
    ) -> Step:
        sources = tuple({id(tensor): tensor for tensor in read}.values())
        layer = self.running[-1] if self.running else ""
        layout = self._layout(sources[0]) if sources else None
        first, second = (
            self._makers.get(storage_of(bound[side])) if isinstance(bound.get(side), Tensor) else None
            for side in ("self", "other")
        )
        channels = None if layout is None else layout.order[1]
        return Step(func, name, bound, sources, tuple(wrote), layer, channels, (first, second))

    def _layout(self, tensor: Tensor) -> Layout | None:
        places = self.places[tensor]
        return None if places is None else layout_of(places, tensor.shape)

    def _count(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.tape.flops += int(count(*args, **kwargs, out_val=result))

    def finished(self, name: str, output: Any) -> None:
        tensor = only_tensor(output)
        layout = None if tensor is None else self._layout(tensor)
        self.tape.layers.pop(name, None)
        self.tape.layers[name] = Finished(tensor, layout, len(self.tape.steps))


def record(
    model: nn.Module, size: tuple[int, int], in_channels: int, images: Tensor | None, measure: Measure
) -> Tape:
    """Return the tape of a model.

    Args:
        model: Any module that takes a batch of images (N, C, H, W).
        size: (H, W) of the image.
        in_channels: C of the image.
        images: (N, C, H, W), run one by one; ``None``: the model runs on the meta device.
        measure: What to note of a step where there are images; the mean over them is kept.

    Raises:
        ValueError: the model does not run on the meta device, or runs otherwise for another image.
    """
    if images is None:
        dtype = device_and_dtype(model)[1]
        image = torch.empty(1, in_channels, *size, device="meta", dtype=dtype)
        return _one_pass(model, image, None)
    device, dtype = device_and_dtype(model)
    first: Tape | None = None
    for image in torch.split(images, 1):
        tape = _one_pass(model, image.detach().to(device, dtype).clone(), measure)
        if first is None:
            first = tape
            continue
        if [step.func for step in tape.steps] != [step.func for step in first.steps]:
            raise ValueError("images: the model runs other operators for another image; leave images out")
        for step, other in zip(first.steps, tape.steps, strict=True):
            if step.measured is not None and other.measured is not None:
                step.measured += other.measured
    if first is None:
        raise ValueError("images: expected at least one image, got none")
    for step in first.steps:
        if step.measured is not None:
            step.measured /= len(images)
    return first


def _one_pass(model: nn.Module, image: Tensor, measure: Measure | None) -> Tape:
    recording = _Recording(Tape(image), measure)
    modules = watchable(model)
    with ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(attributes_kept(model))
        if measure is not None:
            stack.enter_context(buffers_kept(model))
        stack.enter_context(_told(modules, recording))
        try:
            with recording:
                recording.tape.alive.append(model(image))
        except Exception as error:
            where = (
                f" in layer {recording.running[-1]!r}" if recording.running and recording.running[-1] else ""
            )
            raise ValueError(
                f"model: the forward pass of the {type(model).__name__} stopped at {recording.last}{where} "
                f"({type(error).__name__}: {error})"
            ) from error
    return recording.tape


@contextmanager
def _told(modules: Mapping[str, nn.Module], recording: _Recording) -> Iterator[None]:
    """Tell a recording which layer runs, and what each gave."""
    with ExitStack() as stack:
        for name, module in modules.items():
            begun = module.register_forward_pre_hook(lambda *_, name=name: recording.running.append(name))

            def ended(_module: nn.Module, _args: Any, output: Any, name: str = name) -> None:
                while recording.running and recording.running.pop() != name:
                    pass  # a module that raised, and whose error the model has caught
                recording.finished(name, output)

            stack.callback(begun.remove)
            stack.callback(module.register_forward_hook(ended).remove)
        yield
