"""Several maps in one pass equal the maps one by one, from one forward pass a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from erfattr import ERF, DeadPixelMap, FeatureUnit, ModelOutput, SensitivityMaps


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
        ("output", None, None),
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
    resnet: nn.Module, images: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = SensitivityMaps(resnet, [FeatureUnit("layer1")])
    maps.attribute(images)
    assert capsys.readouterr() == ("", "")
    maps.attribute(images, show_progress=True, max_examples=4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "4/4" in captured.err


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
