"""Traces as far as some layers: the same fields as of the whole pass, and nothing run behind the last."""

from __future__ import annotations

import pytest
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from erfattr.receptive_field.trace import receptive_fields, trace_layers
from tests.receptive_field.conftest import Functional, on_meta

LAYERS = ["layer3.0.conv1", "layer2", "layer2.1.relu", "layer1"]


@pytest.mark.parametrize("stop", [False, True])
def test_the_same_fields_as_from_the_whole_pass(stop: bool) -> None:
    model = on_meta(zoo.resnet18)
    every = receptive_fields(model, (97, 64))
    runs = {"layer3.0.conv1": 1, "layer2": 1, "layer2.1.relu": 2, "layer1": 1}
    layers = {name: model.get_submodule(name) for name in LAYERS}
    trace = trace_layers(model, layers, (97, 64), 3, stop_after=runs if stop else None)
    assert trace.fields == {name: every[name] for name in LAYERS}
    assert list(trace.fields) == ["layer1", "layer2.1.relu", "layer2", "layer3.0.conv1"]
    assert trace.problems == {}
    assert trace.strides == ((2, 2), (4, 4), (8, 8), (16, 16))


def test_the_pass_ends_with_the_last_run_of_the_last_layer() -> None:
    ran: list[str] = []
    shared, last = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    for name, module in (("shared", shared), ("last", last)):
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model = nn.Sequential(shared, shared, last)
    trace = trace_layers(model, {"a": shared}, (12, 12), 3, stop_after={"a": 2})
    assert (trace.fields["a"].size, ran) == ((5, 5), ["shared", "shared"])
    ran.clear()
    assert trace_layers(model, {"a": shared}, (12, 12), 3).fields["a"].size == (5, 5)
    assert ran == ["shared", "shared", "last"]


def test_a_layer_takes_its_place_in_the_order_with_its_last_run() -> None:
    shared, middle = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    trace = trace_layers(nn.Sequential(shared, middle, shared), {"a": shared, "b": middle}, (12, 12), 3)
    assert [(name, field.size) for name, field in trace.fields.items()] == [("b", (5, 5)), ("a", (7, 7))]


def test_strides_are_those_up_to_the_last_layer_whether_or_not_the_pass_goes_on() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, stride=(2, 1)),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(3, 3, 3, stride=3),
        nn.MaxPool2d(2),
    )
    for stop_after in (None, {"2": 1}):
        trace = trace_layers(model, {"2": model[2]}, (48, 48), 3, stop_after=stop_after)
        # Between, a row is half a column's step: not whole, so no grid to keep to.
        assert trace.strides == ((2, 1),)
        assert trace.fields["2"].stride == (3, 1.5)
        assert trace.fields["2"].period is None


def test_a_layer_that_cannot_be_followed_loses_no_other() -> None:
    def forward(x: Tensor, first: nn.Module, second: nn.Module, unused: nn.Module) -> Tensor:
        y = first(x)
        return second(y) if float(y.sum()) > 0 else y

    parts = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    for model in (Functional(forward, *parts), on_meta(lambda: Functional(forward, *parts))):
        layers = {f"parts.{index}": part for index, part in enumerate(model.parts)}
        trace = trace_layers(model, layers, (8, 8), 3)
        assert list(trace.fields) == ["parts.0"]
        assert list(trace.problems) == ["parts.1", "parts.2"]
        assert (
            "not reached: the pass without data stopped at aten._local_scalar_dense"
            in trace.problems["parts.1"]
        )


def test_what_has_no_map_is_said_and_nothing_is_probed() -> None:
    runs: list[int] = []

    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            runs.append(1)
            return x.flatten(1)[:, None, ::2]

    model = Functional(
        lambda x, a, b, c, d: b(a(x)).sum() + c(a.weight).sum(),
        nn.Conv2d(3, 3, 1),
        Tokens(),
        nn.ReLU(),
        nn.ReLU(),
    )
    layers = {f"parts.{index}": part for index, part in enumerate(model.parts)}
    trace = trace_layers(model, layers, (8, 8), 3)
    assert list(trace.fields) == ["parts.0"]
    assert "got shape (1, 1, 96)" in trace.problems["parts.1"]
    assert "does not depend on the image" in trace.problems["parts.2"]
    assert "never ran" in trace.problems["parts.3"]
    assert runs == [1]


def test_an_operator_that_is_not_understood_is_named() -> None:
    model = Functional(lambda x, a: a(torch.fft.fft2(x).real), nn.Conv2d(3, 3, 1))
    trace = trace_layers(model, {"parts.0": model.parts[0]}, (8, 8), 3)
    assert trace.fields == {}
    assert "lies behind aten::_fft" in trace.problems["parts.0"]


def test_a_model_that_catches_exceptions_does_not_swallow_the_stop() -> None:
    def forward(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        try:
            y = first(x)
        except Exception:
            y = x
        return second(y)

    model = Functional(forward, nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    ran: list[int] = []
    model.parts[1].register_forward_hook(lambda *_: ran.append(1))
    trace = trace_layers(model, {"parts.0": model.parts[0]}, (8, 8), 3, stop_after={"parts.0": 1})
    assert (list(trace.fields), ran) == (["parts.0"], [])


def test_model_comes_back_as_it_was_after_a_stop() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Conv2d(3, 3, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    trace_layers(model, {"1": model[1]}, (8, 8), 3, stop_after={"1": 1})
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_shapes_that_are_remembered_hold_for_the_same_strides_only() -> None:
    rows = Functional(lambda x: x.relu().view(1, -1))
    last = Functional(lambda x: x.to(memory_format=torch.channels_last).relu().view(1, -1))
    for _ in range(2):
        assert trace_layers(rows, {"": rows}, (8, 8), 3).fields[""].size == (8, 8)
        assert "view size is not compatible" in trace_layers(last, {"": last}, (8, 8), 3).problems[""]


def test_shapes_that_are_remembered_hold_for_numbers_of_the_same_type_only() -> None:
    dtypes: list[torch.dtype] = []

    def forward(x: Tensor) -> Tensor:
        for factor in (2, 2.0, True):
            dtypes.append(((x > 0) * factor).dtype)
        return x

    model = Functional(forward)
    assert trace_layers(model, {"": model}, (8, 8), 3).problems == {}
    assert dtypes == [torch.int64, torch.float32, torch.bool]
