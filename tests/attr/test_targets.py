"""Targets: which output is explained, and what labels have to be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from erfattr.attr.targets import check_target, named_classes, output_sum

OUTPUT = torch.tensor([[1.0, 5.0, 3.0], [4.0, 0.0, 2.0]])


@pytest.mark.parametrize(
    ("target", "labels", "expected"),
    [
        ("mean", None, 3.0 + 2.0),
        (None, None, 5.0 + 4.0),
        (2, None, 3.0 + 2.0),
        ((0,), None, 1.0 + 4.0),
        ("predicted", None, 5.0 + 4.0),
        ("label", torch.tensor([2, 1]), 3.0 + 0.0),
    ],
)
def test_output_summed_over_images(target: Any, labels: Tensor | None, expected: float) -> None:
    assert output_sum(OUTPUT, target, labels, 2, 0).item() == expected


def test_positions_of_dense_outputs() -> None:
    dense = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert output_sum(dense, (2, 1, 0), None, 2, 0).item() == 10 + 22
    assert output_sum(dense, "mean", None, 2, 0).item() == 5.5 + 17.5
    # The last class is the largest everywhere: the mean over the positions of 8 to 11 and of 20 to 23.
    assert output_sum(dense, None, None, 2, 0).item() == 9.5 + 21.5
    assert output_sum(dense, "predicted", None, 2, 0).item() == 9.5 + 21.5
    with pytest.raises(ValueError, match=r"expected an index into outputs of shape \(3, 2, 2\), got 1"):
        output_sum(dense, 1, None, 2, 0)
    with pytest.raises(ValueError, match='target: "label" expects an output of shape'):
        output_sum(dense, "label", torch.tensor([0, 1]), 2, 0)


@pytest.mark.parametrize("target", [None, "predicted", "mean"])
def test_one_number_an_image(target: Any) -> None:
    assert output_sum(torch.tensor([1.0, 2.0]), target, None, 2, 0).item() == 3.0
    assert output_sum(torch.tensor([[1.0], [2.0]]), target, None, 2, 0).item() == 3.0


@pytest.mark.parametrize("target", [1.0, (), (1, 2.0), "best", True])
def test_targets_that_are_none(target: Any) -> None:
    with pytest.raises(ValueError, match="target: expected None, an integer, a tuple of integers"):
        check_target(target)


@pytest.mark.parametrize(
    ("labels", "came"),
    [
        (None, "got none in the batch that begins with image 7"),
        (torch.tensor([0.0, 1.0]), "expects one integer label an image"),
        (torch.tensor([0]), "expects one integer label an image"),
        (torch.tensor([0, 3]), "expects labels from 0 to 2, got 0 to 3"),
        (torch.tensor([-1, 0]), "expects labels from 0 to 2, got -1 to 0"),
    ],
)
def test_labels_that_do_not_fit(labels: Tensor | None, came: str) -> None:
    with pytest.raises(ValueError, match=came):
        named_classes("label", OUTPUT, labels, 7)


def test_outputs_that_do_not_serve() -> None:
    with pytest.raises(ValueError, match=r"model: expected an output of shape \(3, ...\), got \(2, 3\)"):
        output_sum(OUTPUT, None, None, 3, 0)
