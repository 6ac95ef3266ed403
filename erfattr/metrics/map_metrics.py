"""Imbalance and phase contrast of maps in batches, as metrics of torchmetrics (extra ``train``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from erfattr._checks import as_map, check_choice
from erfattr.metrics.imbalance import imbalance_index, phase_contrast, phase_profile

_missing: ImportError | None = None
try:
    from torchmetrics import Metric
except ImportError as error:  # every public name can be looked up without the extras
    _missing, Metric = error, object  # type: ignore[assignment,misc]


class _MeanMap(Metric):
    """The mean of maps (N, H, W) over all batches and processes, in float64."""

    full_state_update = False

    def __init__(self, **settings: Any) -> None:
        if _missing is not None:
            raise ImportError(
                f"{type(self).__name__} needs torchmetrics, which is not installed ({_missing}): "
                "pip install 'erfattr[train]'"
            ) from _missing
        super().__init__(**settings)
        self.total: Tensor
        self.count: Tensor
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    @override
    def update(self, maps: Tensor) -> None:
        """Add maps (N, H, W), or one (H, W)."""
        values = as_map("maps", maps, batched=True).detach().to(self.total.device, torch.float64)
        values = values.reshape(-1, *values.shape[-2:])
        if self.total.ndim and self.total.shape != values.shape[1:]:
            raise ValueError(
                f"maps: expected {tuple(self.total.shape)} as before, got {tuple(values.shape[1:])}"
            )
        self.total = self.total + values.sum(0)
        self.count = self.count + len(values)

    def _mean(self) -> Tensor:
        if not self.count:
            raise ValueError("maps: expected at least one before compute, got none")
        return self.total / self.count


class ImbalanceIndex(_MeanMap):
    """`imbalance_index` of the mean of all maps, which logs like any other metric.

    It is the index as it is, with the sampling noise of its maps: `corrected_imbalance` is without.

    Args:
        order: 1 for eq. 4, 2 for eq. 5.
        normalize: ``"mean"``: of R / mean(R), which can be compared; ``"none"``: of the map as it is.
        **settings: Of ``torchmetrics.Metric``.

    Raises:
        ValueError: another ``order`` or ``normalize``.

    Example:
        >>> metric = ImbalanceIndex()
        >>> metric.update(torch.tensor([[[1.0, 3.0], [1.0, 3.0]]]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False

    def __init__(self, order: int = 1, normalize: str = "mean", **settings: Any) -> None:
        check_choice("order", order, (1, 2))
        check_choice("normalize", normalize, ("mean", "none"))
        super().__init__(**settings)
        self.order = order
        self.normalize = normalize

    @override
    def compute(self) -> Tensor:
        """Return the index of the mean map."""
        return imbalance_index(self._mean(), self.order, self.normalize)


class PhaseContrast(_MeanMap):
    """`phase_contrast` of the mean of all maps, which logs like any other metric.

    Args:
        period: Total stride of the network in pixels, or (vertical, horizontal).
        **settings: Of ``torchmetrics.Metric``.

    Example:
        >>> metric = PhaseContrast(period=2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 0.0]]).repeat(4, 4))
        >>> round(float(metric.compute()), 4)  # the root of 3
        1.7321
    """

    higher_is_better = False

    def __init__(self, period: int | tuple[int, int], **settings: Any) -> None:
        super().__init__(**settings)
        self.period = period

    @override
    def compute(self) -> Tensor:
        """Return the contrast of the mean map's phase profile."""
        contrast = phase_contrast(phase_profile(self._mean(), self.period))
        return torch.tensor(contrast, dtype=torch.float64, device=self.total.device)
