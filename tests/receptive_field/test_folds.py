"""Which batch normalisations a trace finds foldable: torch.fx as oracle, then every reason not to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from torch import Tensor, fx, nn

from erfattr import average_shortcuts, blur_downsampling, pad_kernels
from erfattr.receptive_field.trace import trace_layers
from tests.receptive_field.conftest import Functional, on_meta


def folds(model: nn.Module, size: int = 16, **options: Any) -> set[tuple[str, str]]:
    found = trace_layers(model, {"": model}, (size, size), 3, **options).folds
    assert len(set(found)) == len(found)
    return set(found)


def folds_by_fx(model: nn.Module) -> set[tuple[str, str]]:
    """Every batch normalisation whose input is a convolution's output that nothing else reads."""
    modules = dict(model.named_modules())
    nodes = [node for node in fx.Tracer().trace(model).nodes if node.op == "call_module"]
    return {
        (node.args[0].target, node.target)
        for node in nodes
        if isinstance(modules[node.target], nn.BatchNorm2d)
        and node.args[0].op == "call_module"
        and isinstance(modules[node.args[0].target], nn.Conv2d)
        and len(node.args[0].users) == 1
    }


class Pair(nn.Module):
    """A convolution and a batch normalisation; ``forward(x)`` is ``function(x, conv, norm, self)``."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.function = function
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, **options)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.conv, self.norm, self)


@pytest.mark.parametrize(
    ("name", "count"), [("resnet50", 53), ("densenet121", 59), ("mobilenet_v2", 52), ("efficientnet_b0", 49)]
)
def test_same_pairs_as_a_symbolic_trace(name: str, count: int) -> None:
    model = on_meta(getattr(zoo, name)).eval()
    expected = folds_by_fx(model)
    assert len(expected) == count
    assert folds(model, 64) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_a_pair_alone(affine: bool, memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    model = Pair(lambda x, conv, norm, _: norm(conv(x)).relu_(), affine=affine)
    assert folds(model.to(dtype=dtype, memory_format=memory_format)) == {("conv", "norm")}


@pytest.mark.parametrize("change", [pad_kernels, blur_downsampling, average_shortcuts])
def test_convolutions_of_the_remedies(change: Callable[[nn.Module], nn.Module]) -> None:
    strided = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, 2), nn.BatchNorm2d(4)
    )
    assert folds(change(strided)) == {("0", "1"), ("2", "3")}


class Dispersed(nn.BatchNorm2d):
    """Normalises with the statistics of the batch whatever its mode."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True)


REASONS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "output added elsewhere": lambda x, conv, norm, _: norm(y := conv(x)) + y,
    "output added before": lambda x, conv, norm, _: (y := conv(x)) + norm(y),
    "output looked at through a view": lambda x, conv, norm, _: norm(y := conv(x)) + y.flatten(2).mean(),
    "output read without its history": lambda x, conv, norm, _: norm(y := conv(x)) + y.detach(),
    "output's data read": lambda x, conv, norm, _: norm(y := conv(x)) + y.data,
    "output's data normalised": lambda x, conv, norm, _: norm(conv(x).data.detach()),
    "output returned": lambda x, conv, norm, _: (norm(y := conv(x)), y),
    "output returned in a dictionary": lambda x, conv, norm, _: {"maps": [y := conv(x)], "end": norm(y)},
    "output kept": lambda x, conv, norm, owner: norm(setattr(owner, "kept", y := conv(x)) or y),
    "output changed": lambda x, conv, norm, _: norm(conv(x) * 2),
    "output changed in place": lambda x, conv, norm, _: norm(conv(x).mul_(2)),
    "output changed in place after": lambda x, conv, norm, _: (norm(y := conv(x)), y.mul_(2))[0],
    "view normalised": lambda x, conv, norm, _: norm(conv(x)[:, :, 1:]),
    "convolution runs twice": lambda x, conv, norm, _: norm(conv(conv(x))),
    "convolution runs beside": lambda x, conv, norm, _: norm(conv(x)) + conv(x),
    "normalisation runs twice": lambda x, conv, norm, _: norm(norm(conv(x))),
    "normalisation runs beside": lambda x, conv, norm, _: norm(conv(x)) + norm(x),
    "weight read elsewhere": lambda x, conv, norm, _: norm(conv(x)) + conv.weight.mean(),
    "bias read elsewhere": lambda x, conv, norm, _: norm(conv(x)) + conv.bias[0],
    "scale read elsewhere": lambda x, conv, norm, _: norm(conv(x)) * norm.weight.sum(),
    "mean read elsewhere": lambda x, conv, norm, _: norm(conv(x)) - norm.running_mean.mean(),
    "weight's data read elsewhere": lambda x, conv, norm, _: norm(conv(x)) + conv.weight.data.mean(),
    "convolution by its weight alone": lambda x, conv, norm, _: norm(F.conv2d(x, conv.weight)),
    "normalised by its tensors alone": lambda x, conv, norm, _: F.batch_norm(
        conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_not_where_anything_else_reads(reason: str) -> None:
    assert folds(Pair(REASONS[reason])) == set()


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(3, track_running_stats=False), Dispersed(3), nn.InstanceNorm2d(3), nn.GroupNorm(1, 3)],
)
def test_not_with_statistics_of_the_batch_or_image(norm: nn.Module) -> None:
    assert folds(nn.Sequential(nn.Conv2d(3, 3, 1), norm)) == set()


def test_not_with_buffers_of_the_model_itself() -> None:
    class Own(Functional):
        def __init__(self) -> None:
            super().__init__(lambda x, conv: F.batch_norm(conv(x), self.mean, self.var), nn.Conv2d(3, 3, 1))
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("var", torch.ones(3))

    assert folds(Own()) == set()


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [(0, 2, "weight"), (0, 2, "bias"), (1, 3, "weight"), (1, 3, "bias"), (1, 3, "running_mean")],
)
def test_not_with_tied_tensors(first: int, second: int, name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert folds(model) == {("0", "1"), ("2", "3")}
    setattr(model[second], name, getattr(model[first], name))
    assert folds(model) == set()


def test_not_with_tensors_of_a_layer_that_does_not_run() -> None:
    model = Functional(lambda x, a, b, *_: b(a(x)), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    assert folds(model) == {("parts.0", "parts.1")}
    model.parts[2].weight = model.parts[0].weight
    assert folds(model) == set()


def test_not_with_tensors_in_one_piece_of_memory() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    flat = torch.ones(18)
    model[0].weight.data, model[2].weight.data = (half.view(3, 3, 1, 1) for half in flat.split(9))
    assert folds(model) == set()


def test_not_under_two_names() -> None:
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    model = Functional(lambda x, a, b, *_: b(a(x)), conv, norm)
    assert folds(model) == {("parts.0", "parts.1")}
    model.again = norm
    assert folds(model) == set()


def test_a_reader_behind_the_stop_does_not_count_but_one_before_it_does() -> None:
    def forward(x: Tensor, conv: nn.Module, norm: nn.Module, act: nn.Module, last: nn.Module) -> Tensor:
        y = conv(x)
        z = act(norm(y))
        return last(z) + y

    parts = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1)
    model = Functional(forward, *parts)
    assert folds(model) == set()
    stopped = trace_layers(model, {"act": parts[2]}, (8, 8), 3, stop_after={"act": 1})
    assert stopped.folds == (("parts.0", "parts.1"),)
    early = trace_layers(model, {"conv": parts[0]}, (8, 8), 3, stop_after={"conv": 1})
    assert early.folds == ()


def test_none_of_a_pass_that_broke() -> None:
    model = Pair(lambda x, conv, norm, _: y if float((y := norm(conv(x))).sum()) < 1e9 else x)
    assert folds(model) == set()
