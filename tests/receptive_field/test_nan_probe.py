"""The NaN probe by itself: what it tells, and what it refuses."""

from __future__ import annotations

import pytest
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from erfattr.receptive_field import trace
from erfattr.receptive_field.nan_probe import nan_probe
from erfattr.receptive_field.trace import receptive_fields, theoretical_receptive_field
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


# --- what a probe with NaN cannot know


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(3, 18, 3, padding=1)
        self.deformed = DeformConv2d(3, 4, 3, padding=1)

    def forward(self, value: Tensor) -> Tensor:
        return self.deformed(value, self.offsets(value))


def test_positions_that_depend_on_values_are_refused_and_other_layers_kept() -> None:
    with pytest.raises(ValueError, match="of 'the output' cannot be known: where torchvision::deform_conv2d"):
        nan_probe(Deformable(), input_size=12)
    with pytest.raises(ValueError, match="cannot be known: where torchvision::deform_conv2d reads"):
        theoretical_receptive_field(Deformable(), input_size=12)
    fields = receptive_fields(Deformable(), 12)
    assert {name: field.size for name, field in fields.items()} == {"offsets": (3, 3)}


def test_positions_of_an_unpooling_are_refused() -> None:
    def unpooled(value: Tensor) -> Tensor:
        pooled, where = nn.functional.max_pool2d(value, 2, return_indices=True)
        return nn.functional.max_unpool2d(pooled, where, 2)

    with pytest.raises(ValueError, match="cannot be known: where aten::max_unpool2d reads"):
        nan_probe(Functional(unpooled), input_size=8)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 7, padding=3)

    def forward(self, value: Tensor) -> Tensor:
        return self.narrow(value) if value.mean() > 0 else self.wide(value)


def test_way_that_depends_on_values_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be known: which layers run depends on the values"):
        theoretical_receptive_field(Branching(), input_size=16)
    assert receptive_fields(Branching(), 16) == {}


def test_index_computed_from_features_is_refused_and_layers_before_it_are_kept() -> None:
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.table = nn.Embedding(4, 2)

        def forward(self, value: Tensor) -> Tensor:
            value = self.conv(value)
            return self.table((value.mean((2, 3)).sigmoid() * 3).long()).mean(1)

    with pytest.raises(ValueError, match="cannot be known: the model stops at NaN"):
        nan_probe(Looked(), input_size=8)
    assert nan_probe(Looked(), "conv", input_size=8).size == (3, 3)


def test_probe_that_would_take_long_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known without it is given."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Sorted(), nn.Conv2d(4, 4, 1))
    assert list(receptive_fields(model, 8)) == ["0", "1", "2", ""]
    monkeypatch.setattr(trace, "_PROBED_FOR", 0.0)
    assert list(receptive_fields(model, 8)) == ["0"]
    with pytest.raises(ValueError, match=r"to measure it would take about \d+ seconds; nan_probe does it"):
        theoretical_receptive_field(model, "2", 8)
    assert nan_probe(model, "2", 8).output_size == (8, 8)


class Sorted(nn.Module):
    """Takes values by an index that only the values give, which no trace without data can follow."""

    def forward(self, value: Tensor) -> Tensor:
        return value + value[:, value.flatten(2).mean(2)[0].argsort()] * 0
