"""What ERF and DeadPixelMap share: one statement of `attribute` and of its options."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erfattr import ERF, DeadPixelMap, MapStatistics
from erfattr.attr.map_attribution import MapAttribution


def test_attribute_is_stated_once() -> None:
    assert ERF.attribute is DeadPixelMap.attribute is MapAttribution.attribute
    names = list(inspect.signature(ERF.attribute).parameters)
    # As every GradientAttribution of Captum's.
    assert names[:4] == ["self", "inputs", "target", "additional_forward_args"]


@pytest.mark.parametrize("kind", [ERF, DeadPixelMap])
def test_options_reach_the_maps(kind: Any, resnet: nn.Module, images: Tensor) -> None:
    attribution = kind(resnet, rectify="abs")
    single = attribution.attribute(images, reduction="none", max_examples=4)
    result, statistics = attribution.attribute(images, max_examples=4, return_statistics=True, groups=4)
    assert isinstance(statistics, MapStatistics)
    assert statistics.n_images == 4
    assert statistics.source is not None
    assert statistics.source.rectify == "abs"
    torch.testing.assert_close(statistics.group_means, single.double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(result, single.mean(0), rtol=1e-12, atol=0)
    assert attribution.attribute(images, tolerance=1.0, groups=2).shape == (64, 64)


@pytest.mark.parametrize("kind", [ERF, DeadPixelMap])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "sum"}, "reduction: expected one of 'mean', 'none', got 'sum'"),
        ({"reduction": "none", "return_statistics": True}, 'return_statistics: reduction="none" averages'),
        ({"reduction": "none", "tolerance": 0.5}, 'tolerance: reduction="none" averages nothing'),
        ({"tolerance_of": "L3"}, "tolerance_of: expected one of"),
        ({"max_examples": 0}, "max_examples: expected a positive integer, got 0"),
    ],
)
def test_options_that_do_not_serve(
    kind: Any, resnet: nn.Module, images: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(resnet).attribute(images, **options)
