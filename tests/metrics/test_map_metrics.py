"""The metrics of torchmetrics equal their functional twins, however the maps are cut into batches."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchmetrics")
from torchmetrics import MetricCollection

from erfattr import ImbalanceIndex, PhaseContrast, imbalance_index, phase_contrast, phase_profile

MAPS = torch.rand(10, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("parts", [1, 3, 10])
def test_equal_to_the_functional_twins(parts: int) -> None:
    metrics = MetricCollection(
        {"l1": ImbalanceIndex(), "l2": ImbalanceIndex(2, "none"), "contrast": PhaseContrast(4)},
        compute_groups=False,
    )
    for part in MAPS.tensor_split(parts):
        metrics.update(part)
    found = metrics.compute()
    mean = MAPS.mean(0)
    expected = {
        "l1": imbalance_index(mean, 1, "mean"),
        "l2": imbalance_index(mean, 2, "none"),
        "contrast": phase_contrast(phase_profile(mean, 4)),
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-12)


def test_processes_add_up_and_reset() -> None:
    halves = [ImbalanceIndex(), ImbalanceIndex()]
    for metric, part in zip(halves, MAPS.split(5), strict=True):
        metric.update(part)
    # What torch.distributed does to the states of metrics whose reduction is a sum.
    halves[0].total = halves[0].total + halves[1].total
    halves[0].count = halves[0].count + halves[1].count
    assert float(halves[0].compute()) == pytest.approx(float(imbalance_index(MAPS.mean(0), 1, "mean")))
    halves[0].reset()
    halves[0].update(MAPS[0, :8, :8])
    assert float(halves[0].compute()) == pytest.approx(float(imbalance_index(MAPS[0, :8, :8], 1, "mean")))


def test_errors() -> None:
    with pytest.raises(ValueError, match="order: expected one of 1, 2"):
        ImbalanceIndex(3)
    metric = PhaseContrast(4)
    metric.update(MAPS)
    with pytest.raises(ValueError, match=r"maps: expected \(16, 12\) as before, got \(8, 8\)"):
        metric.update(torch.rand(2, 8, 8))
    with pytest.raises(ValueError, match="expected at least one"):
        ImbalanceIndex().compute()
