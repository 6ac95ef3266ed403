"""The NaN probe by itself: what it tells, and what it refuses."""

from __future__ import annotations

import pytest
from torch import nn

from erfattr.receptive_field.nan_probe import nan_probe
from tests.receptive_field.conftest import Functional, on_meta


def test_probe_tells_whole_image_holes_and_too_small_images() -> None:
    whole = nan_probe(Functional(lambda x: x - x.mean((2, 3), keepdim=True)), input_size=6)
    assert (whole.status, whole.size) == ("whole image", (6, 6))
    holes = nan_probe(nn.Conv2d(3, 1, 3, dilation=2), input_size=12)
    assert (holes.status, holes.size, holes.touched((2, 2))[0]) == ("upper bound", (5, 5), (2, 4, 6))
    large = nan_probe(nn.Conv2d(3, 1, 9, padding=4), input_size=7)
    assert large.status == "position-dependent"


def test_probe_of_a_model_that_gives_nan() -> None:
    with pytest.raises(ValueError, match="is NaN for an image without NaN"):
        nan_probe(Functional(lambda x: x * float("nan")), input_size=4)


def test_probe_of_a_model_without_data() -> None:
    with pytest.raises(ValueError, match="model: expected a model with data, got one on the meta device"):
        nan_probe(on_meta(lambda: nn.Conv2d(3, 1, 1)), input_size=4)


def test_probe_of_a_model_that_joins_images() -> None:
    with pytest.raises(ValueError, match="batch_size: 4 images gave 1 outputs at ''; use batch_size=1"):
        nan_probe(Functional(lambda x: x.sum(0, keepdim=True)), input_size=4, batch_size=4)
