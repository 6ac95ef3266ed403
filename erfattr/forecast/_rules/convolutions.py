"""Convolutions of all kinds: moments go back through the squared kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from erfattr.forecast._rules.evening import evened
from erfattr.forecast._rules.registry import Flow, rule
from erfattr.forecast._tape import Step


@rule(
    *("convolution", "_convolution", "convolution_overrideable", "cudnn_convolution", "mkldnn_convolution"),
    *(
        "cudnn_convolution_transpose",
        "miopen_convolution",
        "miopen_depthwise_convolution",
        "_slow_conv2d_forward",
    ),
    *("slow_conv_transpose2d", "_conv_depthwise2d", "conv_depthwise3d", "slow_conv_dilated2d"),
)
def convolved(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """E[(sum of w g)^2] is the sum of w^2 E[g^2] where the terms are not correlated."""
    bound, grad = step.bound, moments[0]
    image, weight = bound.get("input", bound.get("self")), bound["weight"]
    if len(step.read) != 1 or step.read[0] is not image or grad is None:
        return "its weights depend on the image"
    transposed = bool(bound.get("transposed", "transpose" in step.name))
    groups = int(bound.get("groups", 1)) if "depthwise" not in step.name else int(image.shape[1])
    if weight.ndim != image.ndim:
        return "its input has no batch"
    axes = weight.ndim - 2
    settings = _Settings(
        _per_axis(bound.get("stride", 1), axes),
        _per_axis(bound.get("padding", 0), axes),
        _per_axis(bound.get("dilation", 1), axes),
        transposed,
        _per_axis(bound.get("output_padding", 0), axes),
        groups,
    )
    taps = weight[0, 0].numel()
    fan_in = taps * (weight.shape[0] // groups if transposed else weight.shape[1])
    steps = settings.stride
    strided = not transposed and max(steps) > 1 and step.layer in flow.even
    if flow.is_image(image) and groups == 1 and not transposed and not flow.expected and not weight.is_meta:
        # The map is of the gradient's mean over colours, and over these the sum is exact.
        summed = flow.raised(weight.detach().double().sum(1, keepdim=True))
        back = settings.back(grad, (image.shape[0], 1, *image.shape[2:]), summed)
        flow.give_grey(_evened(back, steps, strided).sum((0, 1)))
        return None
    squared = flow.weights(weight, fan_in)
    uniform = squared.stride() == (0,) * squared.ndim
    back = (
        settings.back_uniform(grad, image.shape, squared)
        if uniform
        else settings.back(grad, image.shape, squared)
    )
    flow.give(image, _evened(back, steps, strided))
    return None


def _evened(back: Tensor, steps: tuple[int, ...], strided: bool) -> Tensor:
    return evened(back, steps) if strided and back.ndim == 4 else back


class _Settings:
    """Geometry of a convolution, as ``aten::convolution`` takes it."""

    def __init__(
        self,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        transposed: bool,
        output_padding: tuple[int, ...],
        groups: int,
    ) -> None:
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.transposed, self.output_padding, self.groups = transposed, output_padding, groups

    def back(self, grad: Tensor, shape: Any, squared: Tensor, groups: int | None = None) -> Tensor:
        """Return the adjoint for an input of ``shape``."""
        image = grad.new_zeros(shape)
        found = torch.ops.aten.convolution_backward(
            grad.contiguous(),
            image,
            squared.contiguous(),
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups if groups is None else groups,
            [True, False, False],
        )
        back: Tensor = found[0]
        return back

    def back_uniform(self, grad: Tensor, shape: Any, squared: Tensor) -> Tensor:
        """The same where all squared weights are one number: channels of a group are summed first."""
        batch, channels = shape[:2]
        summed = grad.reshape(batch * self.groups, grad.shape[1] // self.groups, *grad.shape[2:]).sum(
            1, keepdim=True
        )
        back = self.back(summed, (batch * self.groups, 1, *shape[2:]), squared[:1, :1], 1)
        back = back.reshape(batch, self.groups, 1, *shape[2:])
        back = back.expand(-1, -1, channels // self.groups, *back.shape[3:])
        return back.reshape(shape)


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(int(part) for part in value)
    return values * axes if len(values) == 1 else values
