"""Looking at a network in the middle of its training: numbers that are right, at a bounded cost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from erfattr import DeadPixelMap, corrected_imbalance, demo_model, sample_images, watch_pixels
from erfattr.metrics.sizes import centroid
from erfattr.training.monitor import PixelWatcher

IMAGES = sample_images(16, 64)


def test_numbers_are_those_of_the_maps() -> None:
    model = demo_model()
    found = watch_pixels(model, IMAGES).scalars()
    _, statistics = DeadPixelMap(model).attribute(IMAGES, return_statistics=True)
    index = corrected_imbalance(statistics, 1)
    assert found["L1"] == pytest.approx(index.value, rel=1e-4)  # float32, in batches of other sizes
    assert found["L1_error"] == pytest.approx(index.standard_error, rel=1e-3)
    watch = watch_pixels(model, IMAGES)
    y, x = centroid(watch.unit.statistics.mean)
    assert (found["centroid_y"], found["centroid_x"]) == pytest.approx((y, x), rel=1e-6)
    assert all(f"{name}_error" in found for name in ("L1", "phase_contrast", "centroid_y", "centroid_x"))
    assert watch.unit.fit is not None
    assert found["sigma_y"] == pytest.approx(watch.unit.fit.sigma_y)
    assert len(watch.figure().axes) >= 4


def test_network_comes_back_as_it_was(
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    model = demo_model().train()
    model.fc.eval()  # type: ignore[union-attr]
    before = snapshot(model)
    watch_pixels(model, IMAGES, target="mean")
    assert_same(before, snapshot(model))


class Clock:
    """Time that goes on by what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: float) -> None:
        self.now, self.costs = 0.0, costs
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr("erfattr.training.monitor.watch_pixels", self.watch)
        monkeypatch.setattr("erfattr.training.monitor.SensitivityMaps", lambda *_: self)

    def watch(self, *_: object, **__: object) -> str:
        self.now += self.costs
        return "map"

    def per_image(self, images: Tensor, max_examples: int) -> None:
        self.now += self.costs * max_examples / len(images)


def test_no_more_than_the_share_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, costs=8.0)
    said: list[str] = []
    watcher = PixelWatcher(IMAGES, share=0.1, say=said.append)
    found = []
    for epoch in range(40):
        clock.now += 10
        found.append(watcher.after_epoch(epoch, nn.Identity()))
        assert watcher.spent <= 0.1 * clock.now + 1e-9 or found[-1] is None
    # Every map takes 8 s, which 80 s must pay for: 400 s of training pay for 5, less 1 s that was tried.
    assert found.count("map") == 5
    assert len(said) == 35
    assert said[0] == (
        "no map after epoch 0: it would take some 8.0 s, and maps may take 10 % of the time; so far 10.0 s "
        "of training and 1.0 s of maps"
    )


def test_every_and_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, costs=8.0)
    watcher = PixelWatcher(IMAGES, every=3, share=1.0)
    found = [watcher.after_epoch(epoch, nn.Identity()) for epoch in range(7)]
    assert found == [None, None, "map", None, None, "map", None]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"images": [1]}, TypeError, "images: expected a tensor"),
        ({"images": IMAGES[:1]}, ValueError, "two or more, got shape"),
        ({"every": 0}, ValueError, "every: expected a positive integer"),
        ({"share": 0.0}, ValueError, r"share: expected a number in \(0, 1\]"),
    ],
)
def test_errors(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PixelWatcher(**{"images": IMAGES, **arguments})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module"):
        watch_pixels(torch.relu, IMAGES)  # type: ignore[arg-type]
