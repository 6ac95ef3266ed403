"""Several maps in one pass equal the maps one by one, from one forward pass a batch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from erfattr import ERF, DeadPixelMap, FeatureUnit, ModelOutput, SensitivityMaps
from erfattr.metrics.corrected_imbalance import corrected_imbalance


def test_equal_to_one_by_one(resnet: nn.Module, images: Tensor) -> None:
    sources = [
        ModelOutput(),
        FeatureUnit("layer3", (1, 2)),
        FeatureUnit("layer4"),
        FeatureUnit("layer3", (0, 0)),
        ModelOutput(7),
    ]
    results = SensitivityMaps(resnet, sources).attribute(images.split(2))
    expected = [
        DeadPixelMap(resnet).attribute(images.split(2)),
        ERF(resnet, "layer3", (1, 2)).attribute(images.split(2)),
        ERF(resnet, "layer4").attribute(images.split(2)),
        ERF(resnet, "layer3", (0, 0)).attribute(images.split(2)),
        DeadPixelMap(resnet).attribute(images.split(2), 7),
    ]
    for result, one in zip(results, expected, strict=True):
        torch.testing.assert_close(result.mean, one, rtol=1e-12, atol=0)
    described = [(r.source.layer, r.source.unit, r.source.target) for r in results if r.source]
    assert described == [
        ("output", None, "predicted"),
        ("layer3", (1, 2), None),
        ("layer4", (1, 1), None),
        ("layer3", (0, 0), None),
        ("output", None, 7),
    ]


def test_one_forward_pass_a_batch(resnet: nn.Module, images: Tensor) -> None:
    calls: list[int] = []
    resnet.conv1.register_forward_hook(lambda m, a, o: calls.append(len(o)))
    sources = [FeatureUnit("layer3"), FeatureUnit("layer4"), ModelOutput()]
    SensitivityMaps(resnet, sources).attribute(images.split(2))
    # One image that shows the sizes, the trace without data, then the batches.
    assert calls == [1, 1, 2, 2, 1]


def test_maps_of_every_image(resnet: nn.Module, images: Tensor) -> None:
    maps = SensitivityMaps(resnet, [FeatureUnit("layer2"), ModelOutput()])
    single = maps.per_image(images.split(2))
    for one, statistics in zip(single, maps.attribute(images), strict=True):
        assert one.shape == (5, 64, 64)
        torch.testing.assert_close(one.mean(0), statistics.mean, rtol=1e-12, atol=0)


def test_gradient_through_a_layer_used_by_a_later_source_is_kept(resnet: nn.Module, images: Tensor) -> None:
    twice = SensitivityMaps(resnet, [ModelOutput(), ModelOutput()]).attribute(images)
    assert torch.equal(twice[0].mean, twice[1].mean)


def test_progress_goes_to_standard_error(
    resnet: nn.Module,
    images: Tensor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("erfattr._progress._LINES_EVERY", 0.0)
    maps = SensitivityMaps(resnet, [FeatureUnit("layer1")])
    maps.attribute(images)
    assert capsys.readouterr() == ("", "")
    maps.attribute(images, show_progress=True, max_examples=4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "4 of 4 images" in captured.err


def test_errors(resnet: nn.Module) -> None:
    with pytest.raises(
        ValueError, match="sources: expected at least one FeatureUnit or ModelOutput, got none"
    ):
        SensitivityMaps(resnet, [])
    with pytest.raises(TypeError, match="sources: expected FeatureUnit or ModelOutput, got 'layer4'"):
        SensitivityMaps(resnet, ["layer4"])  # type: ignore[list-item]


def test_interrupted_run_leaves_the_model_as_it_was(resnet, images, snapshot, assert_same) -> None:  # type: ignore[no-untyped-def]
    def interrupted():  # type: ignore[no-untyped-def]
        yield images[:2]
        raise KeyboardInterrupt

    resnet.train()
    before = snapshot(resnet)
    with pytest.raises(KeyboardInterrupt):
        SensitivityMaps(resnet, [FeatureUnit("layer3")]).attribute(interrupted())
    assert_same(before, snapshot(resnet))


# --- tolerance: how many images are enough


class Noisy(nn.Module):
    """The gradient of image k is |normal(1, 1)| at every pixel, different from image to image."""

    def forward(self, images: Tensor) -> Tensor:
        return (images.square() / 2).sum((1, 2, 3))[:, None]


def noisy_images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (1 + torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64)).abs()


def test_tolerance_stops_when_the_map_is_known_well_enough() -> None:
    images = noisy_images(4000)
    maps = SensitivityMaps(Noisy(), [ModelOutput()])
    (result,) = maps.attribute(images.split(16), tolerance=0.03)
    error = float((result.standard_error / result.mean).median())
    assert error < 0.03
    # |normal(1, 1)| has mean 1.167 and variance 2 - 1.167^2 = 0.639: (0.685 / 0.03)^2 = 521 images.
    assert 480 <= result.n_images <= 640
    assert maps.attribute(images.split(16), max_examples=200, tolerance=0.03)[0].n_images == 200


def test_tolerance_of_an_index() -> None:
    checkerboard = torch.tensor([[1.0, 3.0], [3.0, 5.0]], dtype=torch.float64).repeat(4, 4)
    images = (checkerboard + noisy_images(2000) - 1).abs()
    maps = SensitivityMaps(Noisy(), [ModelOutput()])
    (coarse,) = maps.attribute(images.split(16), tolerance=0.05, tolerance_of="L1")
    (fine,) = maps.attribute(images.split(16), tolerance=0.01, tolerance_of="L1")
    assert coarse.n_images < fine.n_images < 2000
    index = corrected_imbalance(fine, order=1)
    assert index.standard_error / index.value < 0.01


def test_tolerance_errors(resnet: nn.Module, images: Tensor) -> None:
    maps = SensitivityMaps(resnet, [ModelOutput()])
    with pytest.raises(ValueError, match=r"tolerance: expected a number in \(0, 1\], got 2"):
        maps.attribute(images, tolerance=2)
    with pytest.raises(ValueError, match="tolerance_of: expected one of 'pixels', 'L1', 'L2', got 'L3'"):
        maps.attribute(images, tolerance=0.1, tolerance_of="L3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='tolerance: reduction="none" averages nothing'):
        ERF(resnet).attribute(images, reduction="none", tolerance=0.1)


# --- checkpoints: what was done is not done again


class Memory:
    """A checkpoint kept in memory, which can be made to stop the run after some saves."""

    def __init__(self, interval: int, stop_after: int | None = None) -> None:
        self.interval = interval
        self.stop_after = stop_after
        self.states: list[dict[str, object]] = []

    def load(self) -> dict[str, object] | None:
        return self.states[-1] if self.states else None

    def save(self, state: dict[str, object]) -> None:
        self.states.append(copy.deepcopy(state))
        if len(self.states) == self.stop_after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_resumed_run_ends_with_exactly_the_same_maps(stop_after: int) -> None:
    images = noisy_images(50)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Tanh(), nn.Conv2d(2, 2, 3, 2, 1), nn.Tanh()).double()
    sources = [FeatureUnit("0", (1, 1)), FeatureUnit("3", (0, 1))]
    maps = SensitivityMaps(model, sources, rectify="abs")
    expected = maps.attribute(images.split(4))
    memory = Memory(10, stop_after)
    with pytest.raises(KeyboardInterrupt):
        maps.attribute(images.split(4), checkpoint=memory)
    memory.stop_after = None
    seen: list[int] = []

    def batches():  # type: ignore[no-untyped-def]
        for batch in images.split(4):
            seen.append(len(batch))
            yield batch

    for result, one in zip(maps.attribute(batches(), checkpoint=memory), expected, strict=True):
        assert torch.equal(result.mean, one.mean)
        assert torch.equal(result.standard_error, one.standard_error)
        assert torch.equal(result.group_means, one.group_means)
        assert (result.n_images, result.source, result.computed) == (50, one.source, one.computed)


def test_state_after_the_last_image_is_enough() -> None:
    images = noisy_images(8)
    maps = SensitivityMaps(Noisy(), [ModelOutput()])
    memory = Memory(8)
    (expected,) = maps.attribute(images.split(4), checkpoint=memory)
    (result,) = maps.attribute(images.split(4), checkpoint=memory)
    assert torch.equal(result.mean, expected.mean)
    assert len(memory.states) == 1
    # Also where no image is left to show the difference.
    with pytest.raises(ValueError, match="expected the state of a run with rectify abs, got one with relu"):
        SensitivityMaps(Noisy(), [ModelOutput()], rectify="abs").attribute(images.split(4), checkpoint=memory)
    with pytest.raises(ValueError, match="expected the state of a run with sources"):
        SensitivityMaps(Noisy(), [ModelOutput(0)]).attribute(images.split(4), checkpoint=memory)


def test_state_of_another_run_is_refused() -> None:
    images = noisy_images(12)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh()).double()
    memory = Memory(4, 2)
    with pytest.raises(KeyboardInterrupt):
        SensitivityMaps(model, [FeatureUnit("0", (1, 1))]).attribute(images.split(4), checkpoint=memory)
    memory.stop_after = None
    for other in (
        SensitivityMaps(model, [FeatureUnit("0", (2, 1))]),
        SensitivityMaps(model, [FeatureUnit("1", (1, 1))]),
        SensitivityMaps(model, [FeatureUnit("0", (1, 1))], rectify="abs"),
    ):
        with pytest.raises(
            ValueError, match=r"checkpoint: expected the state of a run with (sources|rectify)"
        ):
            other.attribute(images.split(4), checkpoint=memory)
    # Images of another size show only when they come.
    with pytest.raises(ValueError, match="checkpoint: expected the state of a run of"):
        SensitivityMaps(model, [FeatureUnit("0", (1, 1))]).attribute(
            noisy_images(12)[..., :7].split(4), checkpoint=memory
        )
    with pytest.raises(ValueError, match="groups: expected the 16 of the saved state, got 8"):
        SensitivityMaps(model, [FeatureUnit("0", (1, 1))]).attribute(
            images.split(4), checkpoint=memory, groups=8
        )
