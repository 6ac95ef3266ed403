"""Forecast the map of a layer's unit, or of the output, from architecture and weights, without images."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import erfattr.forecast._rules  # noqa: F401  (registers the rules)
from erfattr._checks import as_int, check_choice, describe
from erfattr._model import find_layer, refuse_compiled_layer
from erfattr.forecast._measures import measure
from erfattr.forecast._tape import Tape, record
from erfattr.forecast._walk import Seed, walk_back
from erfattr.receptive_field._passes import check_arguments, never_ran
from erfattr.receptive_field.field import common_period

Weights = Literal["given", "expected"]
Unit = tuple[int, int]


def forecast_map(
    model: nn.Module,
    layer: nn.Module | str | None = None,
    unit: Unit | Literal["center"] = "center",
    weights: Weights = "given",
    *,
    input_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    images: Tensor | None = None,
) -> Tensor:
    r"""Forecast a sensitivity map in one backward pass of second moments, without images.

    For a gradient g that an operator with weights w hands back, and terms that are not correlated,

    .. math::

        E[(\textstyle\sum_k w_k g_k)^2] = \sum_k w_k^2 \, E[g_k^2].

    So squared weights carry the second moments from the unit to the pixels: convolutions and linear layers
    by their squared kernels, batch normalisations by squared scales, activations by the mean of their squared
    slope over a normal distribution (a half for ReLU), maxima by one over the size of their window. The map
    is the square root of what arrives: where g is nearly normal, R of eq. 3 is 0.4 times that.

    It forecasts what the architecture imprints on the map: its grid, where it is centred and how wide it is.
    It does not know what the images imprint, nor that paths through given weights add up or cancel; a trained
    network is forecast less well than the mean of many untrained ones. Its scale means little.

    Args:
        model: Any module that takes a batch of images (N, C, H, W). It may lie on the meta device.
        layer: Module or dotted name; ``"output"``: the network's output, all of it, whose map is the
            dead-pixel map; ``None``: the last layer with a feature map of more than one position.
        unit: ``"center"``, which is (H // 2, W // 2), or the position (i, j) from 0; of the output it is not
            used.
        weights: ``"given"``: those of the model. ``"expected"``: of each layer the mean of its squared
            weights, so that only the architecture is left. Without values (meta device) weights count as
            drawn with variance 2 / fan in, and normalisations as those of a new model.
        input_size: (H, W) of the image, or one number for both.
        in_channels: C of the image.
        images: (N, C, H, W), a handful: slopes, gates and the scales of layer and group normalisations are
            then those that they show, and of a unit the mean of g is followed beside its variance, so that
            paths through given weights add up or cancel. It helps with untrained networks and did not with a
            trained one. ``None``: slopes as above, gates of a normal number, scales of 1.

    Returns:
        (H, W), float64, not negative, on the CPU.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: no such layer, it gives no feature map, or the unit lies outside of it; ``weights`` is
            none of the choices; an operator cannot be carried, as the softmax of attention: it is named with
            its layer; the model does not run on the meta device.

    Example:
        A 3x3 kernel with stride 2 reads pixels once, twice or four times: the 1-2-4 checkerboard.

        >>> model = nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> forecast_map(model, "output", input_size=8, in_channels=1).square()[1:5, 1:5].round()
        tensor([[4., 2., 4., 2.],
                [2., 1., 2., 1.],
                [4., 2., 4., 2.],
                [2., 1., 2., 1.]], dtype=torch.float64)

    References:
        B. J. Kim et al.: Dead Pixel Test Using Effective Receptive Field, eq. 1 to 3, which this forecasts.
    """
    check_choice("weights", weights, ("given", "expected"))
    return prepare(model, layer, unit, input_size, in_channels, images).map(weights)


@dataclass(frozen=True)
class Prepared:
    """A forward pass that has been written down, and what is to be forecast of it.

    Attributes:
        tape: The pass.
        layer: The layer's dotted name, or ``"output"``.
        unit: The position; ``None`` for the output.
        seed: Where the pass backward begins.
        period: Of the grid, rows and columns in pixels: the least common multiple of the strides as far as
            the layer; ``None`` where there is none shorter than the image.
        measured: Whether images were run.
    """

    tape: Tape
    layer: str
    unit: Unit | None
    seed: Seed
    period: tuple[int, int] | None
    measured: bool

    def map(self, weights: Weights = "given", even: Collection[str] = ()) -> Tensor:
        """Return the forecast, (H, W), float64; of layers named in ``even`` the own grid is smoothed away.

        Raises:
            ValueError: a step on the way has no rule.
        """
        # What the images show of a unit's gates makes paths through the same weights add up or cancel. Of the
        # output it is not known which class an image will have.
        paths = self.measured and weights == "given" and self.unit is not None and not even
        moments = walk_back(self.tape, self.seed, given=paths, expected=weights == "expected", even=even)
        return moments.rectified() * math.sqrt(2 * math.pi)

    @property
    def strided(self) -> tuple[str, ...]:
        """Names of the layers on the way that read the image in steps, in order."""
        names = []
        for step in self.tape.steps[: self.seed.steps]:
            stride = step.bound.get("stride")
            transposed = bool(step.bound.get("transposed", "transpose" in step.name))
            if stride is None or transposed or not ("conv" in step.name or "pool" in step.name):
                continue
            steps = (
                (stride,) if isinstance(stride, int) else tuple(stride) or tuple(step.bound["kernel_size"])
            )
            if max(steps) > 1:
                names.append(step.layer)
        return tuple(dict.fromkeys(names))


def prepare(
    model: nn.Module,
    layer: nn.Module | str | None,
    unit: Any,
    input_size: Any,
    in_channels: Any,
    images: Tensor | None,
) -> Prepared:
    """Check the arguments of `forecast_map`, and write down the pass.

    Raises:
        TypeError: see there.
        ValueError: see there.
    """
    unit = as_int(unit)
    pair = isinstance(unit, tuple) and len(unit) == 2 and all(type(index) is int for index in unit)
    if not (unit == "center" or pair):
        raise ValueError(f'unit: expected "center" or a pair of integers (i, j), got {describe(unit)}')
    if images is not None:
        if not isinstance(images, Tensor) or not images.is_floating_point():
            raise TypeError(f"images: expected a floating-point tensor (N, C, H, W), got {describe(images)}")
        if images.ndim != 4 or len(images) == 0:
            raise ValueError(
                f"images: expected a tensor (N, C, H, W) of at least one image, got {describe(images)}"
            )
        in_channels, input_size = int(images.shape[1]), tuple(images.shape[2:])
    size = check_arguments(model, input_size, in_channels)
    refuse_compiled_layer(model, "")
    name: str | None = None
    if layer is not None and layer != "output":
        name, _ = find_layer(model, layer)
        refuse_compiled_layer(model, name)
    tape = record(model, size, in_channels, images, measure)
    if layer == "output":
        return _of_output(model, tape, images is not None)
    if name is None:
        name = _last_map(model, tape)
    if name not in tape.layers:
        raise ValueError(never_ran(name, model))
    return _of_unit(tape, name, unit, images is not None)


def _last_map(model: nn.Module, tape: Tape) -> str:
    pooling = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    for name, finished in reversed(tape.layers.items()):
        layout = finished.layout
        is_map = layout is not None and layout.grid[0] * layout.grid[1] > 1
        if name and is_map and not isinstance(model.get_submodule(name), pooling):
            return name
    raise ValueError(
        f"layer: no module of the {type(model).__name__} gives a feature map of more than one position whose "
        "rows and columns are known; name a layer"
    )


def _of_unit(tape: Tape, name: str, unit: Any, measured: bool) -> Prepared:
    finished = tape.layers[name]
    layout, tensor = finished.layout, finished.tensor
    if layout is None or tensor is None:
        shape = "several tensors" if tensor is None else f"shape {tuple(tensor.shape)}"
        raise ValueError(
            f"layer: expected {name!r} to give a feature map, got {shape}: nothing shows which of its dims "
            "are rows and columns"
        )
    height, width = layout.grid
    i, j = (height // 2, width // 2) if unit == "center" else unit
    if not (0 <= i < height and 0 <= j < width):
        raise ValueError(
            f"unit: expected a position inside the {height} x {width} map of layer {name!r}, got {(i, j)}"
        )
    marks = torch.zeros(tensor.shape, dtype=torch.float64, requires_grad=True)
    channels = layout.to_spatial(marks)[:, :, i, j]
    (gradient,) = torch.autograd.grad(channels.mean(1).sum(), marks)
    seed = Seed(tensor, gradient, finished.steps)
    return Prepared(tape, name, (i, j), seed, _period(tape, finished.steps), measured)


def _of_output(model: nn.Module, tape: Tape, measured: bool) -> Prepared:
    output = tape.alive[-1]
    if isinstance(output, Mapping):
        output = next((output[key] for key in ("out", "logits") if key in output), output)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"layer: expected the {type(model).__name__} to give one tensor, or one under 'out' or "
            f"'logits', got a {type(output).__name__}; name a layer"
        )
    gradient = torch.full(output.shape, 1.0, dtype=torch.float64)
    steps = len(tape.steps)
    return Prepared(tape, "output", None, Seed(output, gradient, steps), _period(tape, steps), measured)


def _period(tape: Tape, steps: int) -> tuple[int, int] | None:
    layouts = [finished.layout for finished in tape.layers.values() if finished.steps <= steps]
    periods = []
    for axis in (0, 1):
        strides = [layout.steps[axis] for layout in layouts if layout is not None]
        length = tape.image.shape[2 + axis]
        whole = [abs(stride) for stride in strides if stride and abs(stride) < length]
        periods.append(common_period(whole, length))
    down, right = periods
    return None if down is None or right is None else (down, right)
