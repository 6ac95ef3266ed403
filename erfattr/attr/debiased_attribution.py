"""Attributions without the network's own grid: `debias` for maps, `DebiasedAttribution` for methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args, overload

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor, nn

from erfattr._checks import Mode, as_map, check_choice, check_fraction, describe
from erfattr.attr.calibration import (
    Calibration,
    calibrate,
    check_interpolate_mode,
    check_method,
    refuse_other_method,
    refuse_other_settings,
    to_size,
)
from erfattr.attr.targets import OutputTarget
from erfattr.metrics.relief import Period, Relief, read_relief
from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields


@overload
def debias(
    attributions: npt.NDArray[Any],
    sensitivity_map: Any,
    mode: Mode = ...,
    *,
    period: Period | None = ...,
    epsilon: float = ...,
    preserve_total: bool = ...,
) -> npt.NDArray[Any]: ...


@overload
def debias(
    attributions: Tensor | Sequence[Any],
    sensitivity_map: Any,
    mode: Mode = ...,
    *,
    period: Period | None = ...,
    epsilon: float = ...,
    preserve_total: bool = ...,
) -> Tensor: ...


def debias(
    attributions: Any,
    sensitivity_map: Any,
    mode: Mode = "phase",
    *,
    period: Period | None = None,
    epsilon: float = 0.1,
    preserve_total: bool = False,
) -> Any:
    r"""Divide attributions by what the network's own sensitivity contributes to them.

    .. math:: A'_{xy} = A_{xy} / \max(\rho_{xy}, \epsilon)

    with the `relief` :math:`\rho` of the map, the same for all channels and images. Signs stay. The quotient
    is no longer complete: attributions that added up to a difference of outputs do not any more.

    It does not make an attribution more faithful to the network: a weak pixel does move the output less. It
    says what the attribution would be if all pixels were read alike.

    Args:
        attributions: (..., H, W), of any sign: a tensor, or a NumPy array such as other toolkits give.
        sensitivity_map: Map R, shape (H, W), not negative; or its `MapStatistics`, whose noise is then held
            back; or a `Calibration`, which knows its period too.
        mode: ``"phase"``, ``"local"`` or ``"global"``; see `relief`.
        period: Total stride of the network in pixels, or (vertical, horizontal); not used by ``"global"``.
            ``None``: that of the calibration.
        epsilon: Smallest divisor, in (0, 1]: no attribution grows by more than 1 / epsilon.
        preserve_total: Scale the result so that the sum of the absolute values stays: that of an image
            (C, H, W) for four axes and more, that of a map (H, W) otherwise.

    Returns:
        Tensor of the attributions' shape, dtype and device; of a NumPy array one like it.

    Raises:
        TypeError: ``attributions``, ``sensitivity_map``, ``period`` or ``epsilon`` is not numeric.
        ValueError: ``attributions`` has fewer than two axes or is not finite; ``epsilon`` is outside (0, 1];
            what `relief` refuses.

    Example:
        >>> R = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(8, 8)
        >>> debias(-R, R, period=2)[:2, :2]
        tensor([[-2.2500, -2.2500],
                [-2.2500, -2.2500]])

    References:
        Kim et al., *Dead Pixel Test Using Effective Receptive Field*, section 5.
    """
    values = as_map("attributions", attributions, batched=True)
    check_fraction("epsilon", epsilon)
    if period is None and isinstance(sensitivity_map, Calibration):
        period = sensitivity_map.period
    divisor = read_relief(_measured(sensitivity_map), mode, period).at((values.shape[-2], values.shape[-1]))
    result = _divided(values, divisor, epsilon, preserve_total)
    return result.numpy() if isinstance(attributions, np.ndarray) else result


_NOT_GIVEN: Any = object()


class DebiasedAttribution(Attribution):  # type: ignore[misc]
    r"""Any Captum attribution of images, with the network's own grid divided out.

    Wraps a method as Captum's ``NoiseTunnel`` does: ``attribute`` passes its arguments on and applies
    `debias` to what comes back. It can be wrapped in turn, and handed to ``infidelity`` and
    ``sensitivity_max``.

    The best map is the method's own: `calibrate` makes it. A `DeadPixelMap` serves plain gradients.

    Args:
        method: A Captum attribution that returns maps of the input's size, or, with ``interpolate_mode``, of
            a layer's.
        sensitivity_map: Map (H, W), `MapStatistics` or `Calibration`. For several inputs a tuple with one
            entry each, ``None`` for an input whose attributions pass through; a single one serves all inputs.
        mode: ``"phase"``, ``"local"`` or ``"global"``; see `relief`.
        period: Total stride in pixels, or (vertical, horizontal); by default read from the model when it is
            first needed.
        epsilon: Smallest divisor, in (0, 1]: no attribution grows by more than 1 / epsilon.
        preserve_total: Keep each image's sum of absolute attributions.
        interpolate_mode: How the attributions of a layer are brought to the input's size, as
            ``LayerAttribution.interpolate`` does it: ``"nearest"``, ``"bilinear"``, ...; their channels stay.

    Raises:
        TypeError: ``method`` is no Captum attribution, or an argument is of the wrong type.
        ValueError: an unknown ``mode`` or ``interpolate_mode``; a map that `relief` refuses; a `Calibration`
            of another model or method.

    Example:
        >>> from captum.attr import Saliency
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False), nn.Flatten())
        >>> _ = nn.init.ones_(model[0].weight)
        >>> scored = nn.Sequential(model, nn.Linear(64, 1, bias=False))
        >>> _ = nn.init.ones_(scored[1].weight)
        >>> Saliency(scored).attribute(torch.zeros(1, 1, 15, 15, requires_grad=True))[0, 0, 4:6, 4:6]
        tensor([[1., 2.],
                [2., 4.]])
        >>> debiased = DebiasedAttribution.calibrate(
        ...     Saliency(scored), torch.zeros(8, 1, 15, 15), target=0, period=2
        ... )
        >>> debiased.attribute(torch.zeros(1, 1, 15, 15, requires_grad=True))[0, 0, 4:6, 4:6]
        tensor([[2.2500, 2.2500],
                [2.2500, 2.2500]])

    References:
        Kim et al., *Dead Pixel Test Using Effective Receptive Field*, section 5.
    """

    def __init__(
        self,
        method: Attribution,
        sensitivity_map: Any,
        mode: Mode = "phase",
        *,
        period: Period | None = None,
        epsilon: float = 0.1,
        preserve_total: bool = False,
        interpolate_mode: str | None = None,
    ) -> None:
        check_method(method)
        check_choice("mode", mode, get_args(Mode))
        check_fraction("epsilon", epsilon)
        check_interpolate_mode(interpolate_mode)
        Attribution.__init__(self, method.forward_func)
        # Under NoiseTunnel's name, so that wrappers of wrappers are described alike.
        self.attribution_method = method
        self.sensitivity_map = sensitivity_map
        self.mode = mode
        self.period = period
        self.epsilon = epsilon
        self.preserve_total = preserve_total
        self.interpolate_mode = interpolate_mode
        self._maps = sensitivity_map if isinstance(sensitivity_map, tuple) else (sensitivity_map,)
        for sensitivity in self._maps:
            if isinstance(sensitivity, Calibration):
                refuse_other_method(sensitivity, method)
        self._reliefs: dict[int, Relief] = {}
        if period is not None or mode == "global":
            self._reliefs = {
                index: read_relief(_measured(sensitivity), mode, period)
                for index, sensitivity in enumerate(self._maps)
                if sensitivity is not None
            }

    @classmethod
    def calibrate(
        cls,
        method: Attribution,
        inputs: Any,
        *,
        target: OutputTarget = "predicted",
        max_examples: int | None = None,
        show_progress: bool = False,
        mode: Mode = "phase",
        period: Period | None = None,
        epsilon: float = 0.1,
        preserve_total: bool = False,
        interpolate_mode: str | None = None,
        **settings: Any,
    ) -> DebiasedAttribution:
        """Measure the method's own expected map over images, and return the method debiased by it.

        The bias of Integrated Gradients is not that of a plain gradient. The `Calibration` is the result's
        ``sensitivity_map``; `save_calibration` keeps it.

        Args:
            method: A Captum attribution on a ``torch.nn.Module``.
            inputs: An iterable of batches (a ``DataLoader``), or one batch.
            target: Which output is explained; see `erfattr.attr.calibration.calibrate`.
            max_examples: Stop after this many images.
            show_progress: Show a progress bar on standard error.
            mode: As for the class, like all that follow but ``settings``.
            period: Total stride in pixels.
            epsilon: Smallest divisor.
            preserve_total: Keep each image's sum of absolute attributions.
            interpolate_mode: How a layer's attributions are brought to the input's size.
            **settings: Further arguments of the method's ``attribute``, such as ``n_steps=16``. ``attribute``
                must be called with the same.

        Returns:
            The debiased method.

        Raises:
            TypeError: what the class or `erfattr.attr.calibration.calibrate` refuses.
            ValueError: likewise.
        """
        calibration = calibrate(
            method,
            inputs,
            target=target,
            interpolate_mode=interpolate_mode,
            max_examples=max_examples,
            show_progress=show_progress,
            **settings,
        )
        return cls(
            method,
            calibration,
            mode,
            period=period,
            epsilon=epsilon,
            preserve_total=preserve_total,
            interpolate_mode=interpolate_mode,
        )

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the wrapped method multiplies by its inputs."""
        return bool(self.attribution_method.multiplies_by_inputs)

    def has_convergence_delta(self) -> bool:
        """Return whether the wrapped method has a convergence delta."""
        return bool(self.attribution_method.has_convergence_delta())

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Any, target: Any = _NOT_GIVEN, **arguments: Any) -> Any:
        """Compute the wrapped method's attributions and debias them.

        Args:
            inputs: Images (N, C, H, W), or a tuple of them and of inputs that pass through.
            target: Which output is explained, as the wrapped method takes it; left out, it is not passed on.
            **arguments: Further arguments of the wrapped method's ``attribute``, by name:
                ``additional_forward_args``, ``baselines``, ...

        Returns:
            What the wrapped method returns, a tensor or a tuple, debiased. With
            ``return_convergence_delta=True`` also its delta, as it came: that of the attributions *before*
            they were debiased, which says how exact they were. The debiased ones are not complete.

        Raises:
            TypeError: an argument that the wrapped method does not take.
            ValueError: inputs that are no images or of another size than the map; not one map an input;
                settings other than those of the calibration; no period that can be read from the model;
                attributions of another size than the images.
        """
        if target is not _NOT_GIVEN:
            arguments["target"] = target
        images = _as_tuple(inputs)
        for sensitivity in self._maps:
            if isinstance(sensitivity, Calibration):
                refuse_other_settings(sensitivity, arguments)
        divisors = self._divisors(images)
        with _flags_kept(images):
            found = self.attribution_method.attribute(inputs, **arguments)
        delta: tuple[Any, ...] = ()
        if arguments.get("return_convergence_delta") and self.has_convergence_delta():
            found, *rest = found
            delta = tuple(rest)
        maps = _as_tuple(found)
        if len(maps) != len(divisors):
            raise ValueError(f"method: expected {len(divisors)} attributions, one an input, got {len(maps)}")
        debiased = tuple(
            attributions
            if divisor is None
            else _divided(
                to_size(attributions, (divisor.shape[0], divisor.shape[1]), self.interpolate_mode),
                divisor,
                self.epsilon,
                self.preserve_total,
            )
            for attributions, divisor in zip(maps, divisors, strict=True)
        )
        result = debiased if isinstance(found, tuple) else debiased[0]
        return (result, *delta) if delta else result

    def _divisors(self, images: tuple[Any, ...]) -> list[Tensor | None]:
        """Return the relief at the size of each input, ``None`` where it passes through."""
        shared = not isinstance(self.sensitivity_map, tuple)
        if not shared and len(images) != len(self._maps):
            raise ValueError(
                f"inputs: expected {len(self._maps)}, one for each map of sensitivity_map, got {len(images)}"
            )
        divisors: list[Tensor | None] = []
        for position, image in enumerate(images):
            index = 0 if shared else position
            if self._maps[index] is None:
                divisors.append(None)
                continue
            if not isinstance(image, Tensor) or image.ndim != 4:
                raise ValueError(
                    f"inputs: expected images (N, C, H, W), got {describe(image)} at position {position}; "
                    "sensitivity_map=(map, None) lets the attributions of a second input pass through"
                )
            if index not in self._reliefs:
                self._reliefs[index] = read_relief(
                    _measured(self._maps[index]), self.mode, self._period_for(image)
                )
            divisors.append(self._reliefs[index].at((image.shape[2], image.shape[3])))
        return divisors

    def _period_for(self, image: Tensor) -> Period:
        """Return the period that was given, or else the model's total stride."""
        if self.period is not None:
            return self.period
        stride = None
        if isinstance(self.forward_func, nn.Module):
            fields = receptive_fields(
                self.forward_func,
                (image.shape[2], image.shape[3]),
                in_channels=image.shape[1],
                probe=False,
            )
            stride = total_stride(fields)
        if stride is None:
            raise ValueError(
                f'period: mode="{self.mode}" needs the total stride of the network in pixels, and it could '
                "not be read from the model; give period="
            )
        return stride


def _as_tuple(tensors: Any) -> tuple[Any, ...]:
    """Return one tensor as Captum's methods see it: as a tuple of one."""
    return tensors if isinstance(tensors, tuple) else (tensors,)


@contextmanager
def _flags_kept(inputs: tuple[Any, ...]) -> Iterator[None]:
    """Leave ``requires_grad`` of the inputs as it was: after an error Captum does not."""
    without = [image for image in inputs if isinstance(image, Tensor) and not image.requires_grad]
    try:
        yield
    finally:
        for image in without:
            image.requires_grad_(False)


def _measured(sensitivity_map: Any) -> Any:
    """Return the statistics of a calibration, anything else as it came."""
    return sensitivity_map.statistics if isinstance(sensitivity_map, Calibration) else sensitivity_map


def _divided(values: Tensor, divisor: Tensor, epsilon: float, preserve_total: bool) -> Tensor:
    gain = divisor.clamp_min(epsilon).reciprocal().to(values)
    result = values * gain
    if not preserve_total:
        return result
    axes = (-3, -2, -1) if values.ndim >= 4 else (-2, -1)
    before, after = (tensor.abs().sum(axes, keepdim=True) for tensor in (values, result))
    return result * torch.where(after > 0, before / after, 1.0)
