"""Which tensor of an output of several is taken, and what is said where none is obvious."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erfattr import ERF, DeadPixelMap
from erfattr.attr.selection import check_select, only_obvious, selected

A, B = torch.zeros(2, 3), torch.ones(2, 4)
Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Output:
    logits: Tensor
    hidden: Any = None


@pytest.mark.parametrize(
    ("output", "taken", "words"),
    [
        (A, A, ""),
        ((A,), A, "output[0]"),
        ([None, B], B, "output[1]"),
        ({"features": B}, B, "output['features']"),
        (OrderedDict(out=A, aux=B), A, "output['out']"),
        (Output(A, (B, B)), A, "output['logits']"),
        (Output(A, B), A, "output['logits']"),
        ((A, (B, B)), A, "output[0]"),
    ],
)
def test_obvious_tensor_is_taken_and_said(output: Any, taken: Tensor, words: str) -> None:
    found, said = selected("the model", output, None)
    assert found is taken
    assert said == words
    assert only_obvious(output) is taken


@pytest.mark.parametrize(
    ("output", "select", "taken"),
    [
        ((A, B), 1, B),
        ({"a": A, "b": B}, "b", B),
        (Pair(A, B), "second", B),
        (Output(A, B), "hidden", B),
        (Output(A, (A, B)), lambda output: output.hidden[1], B),
    ],
)
def test_named_tensor_is_taken(output: Any, select: Any, taken: Tensor) -> None:
    assert selected("the model", output, select)[0] is taken


@pytest.mark.parametrize(
    ("output", "select", "match"),
    [
        ((A, B), None, r"since the model gives a tuple of 0: \(2, 3\), 1: \(2, 4\)"),
        ({"a": A, "b": B}, None, r"since the model gives a dict of 'a': \(2, 3\), 'b': \(2, 4\)"),
        ({"a": A, "b": B}, "c", "gives a dict of 'a': .*, got 'c'"),
        ((A, (B, B)), 1, "got 1"),
        (A, 0, "of which there is nothing to select"),
        (3.0, None, r"gives 3.0 \(float\)"),
        ([{"boxes": A}], None, "gives a list of 0: dict"),
        (A, lambda output: 3, "expected the callable to return a tensor of the model, got 3"),
    ],
)
def test_what_cannot_be_taken(output: Any, select: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        selected("the model", output, select)


def test_other_kinds_are_refused() -> None:
    check_select(None)
    with pytest.raises(TypeError, match=r"select: expected an index, a key, .*, got 1\.5"):
        check_select(1.5)
    with pytest.raises(TypeError, match="select: "):
        ERF(nn.Conv2d(3, 1, 1), select=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="select: "):
        DeadPixelMap(nn.Conv2d(3, 1, 1), select=[0])  # type: ignore[arg-type]


class Several(nn.Module):
    """A segmentation network: features in a tuple, outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.head, self.aux = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine, coarse = self.body(images)
        return {"aux": self.aux(fine), "out": self.head(coarse)}


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(images)
        return fine, self.coarse(fine)


@pytest.mark.parametrize("count", [1, 5])
def test_maps_of_layers_and_outputs_of_several_tensors(count: int) -> None:
    torch.manual_seed(0)
    model = Several().double().eval()
    images = torch.rand(count, 3, 12, 10, dtype=torch.float64)
    for select, alone in ((0, "body.fine"), (1, "body.coarse"), (lambda pair: pair[1], "body.coarse")):
        expected = ERF(model, alone).attribute(images)
        assert torch.allclose(ERF(model, "body", select=select).attribute(images), expected, atol=1e-14)
    with pytest.raises(ValueError, match=r"since layer 'body' gives a tuple of 0: \(1, 4, 12, 10\)"):
        ERF(model, "body").attribute(images[:1])
    whole, statistics = DeadPixelMap(model).attribute(images, return_statistics=True)
    assert statistics.source is not None
    assert statistics.source.layout == "output['out']"
    assert torch.allclose(whole, DeadPixelMap(lambda x: model(x)["out"]).attribute(images), atol=1e-14)
    aux = DeadPixelMap(model, select="aux").attribute(images)
    assert torch.allclose(aux, DeadPixelMap(lambda x: model(x)["aux"]).attribute(images), atol=1e-14)


def test_one_position_of_a_dense_output() -> None:
    torch.manual_seed(0)
    model = Several().double().eval()
    images = torch.rand(4, 3, 12, 10, dtype=torch.float64)
    found = DeadPixelMap(model).attribute(images, (1, 2, 3))
    expected = torch.zeros(12, 10, dtype=torch.float64)
    for image in images:
        leaf = image[None].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(leaf)["out"][0, 1, 2, 3], leaf)
        expected += gradient[0].mean(0).relu() / 4
    assert torch.allclose(found, expected, atol=1e-14)
    # The coarse unit (2, 3) sees rows 2..6 and columns 4..8.
    seen = found.nonzero()
    assert seen.min(0).values.tolist() >= [2, 4]
    assert seen.max(0).values.tolist() <= [6, 8]
    with pytest.raises(ValueError, match="target: expected an index into outputs of shape"):
        DeadPixelMap(model).attribute(images, (1, 2, 30))
