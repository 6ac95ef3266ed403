"""DeadPixelMap: stride patterns in closed form, targets, linear models, errors."""

from __future__ import annotations

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from erfattr import DeadPixelMap


def summing(kernel: int, stride: int, padding: int = 0) -> nn.Sequential:
    """An all-ones convolution whose outputs are summed: the map counts how often each pixel is read."""
    convolution = nn.Conv2d(1, 1, kernel, stride, padding, bias=False)
    nn.init.ones_(convolution.weight)

    class Sum(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features.sum((2, 3))

    return nn.Sequential(convolution, Sum()).double()


def linear(weight: Tensor) -> nn.Sequential:
    """Outputs linear in the pixels: weight is (classes, C, H, W)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight[0].numel(), len(weight), bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(weight.flatten(1))
    return model


# --- closed forms: what odd kernels with stride 2 do (section 4, figure 2)


@pytest.mark.parametrize(
    ("kernel", "padding", "row"),
    [
        (1, 0, [1, 0, 1, 0, 1, 0, 1, 0]),
        (3, 1, [1, 2, 1, 2, 1, 2, 1, 1]),
        (4, 1, [2, 2, 2, 2, 2, 2, 2, 1]),
    ],
)
def test_stride_two_coverage(kernel: int, padding: int, row: list[int]) -> None:
    counts = torch.tensor(row, dtype=torch.float64)
    if (kernel, padding) == (4, 1):
        counts[0] = 1  # the padding takes one of the two windows there
    result = DeadPixelMap(summing(kernel, 2, padding)).attribute(torch.zeros(1, 1, 8, 8))
    assert torch.equal(result, counts[:, None] * counts[None])


def test_three_by_three_stride_two_is_the_1_2_4_checkerboard() -> None:
    result = DeadPixelMap(summing(3, 2, 1)).attribute(torch.zeros(1, 1, 6, 6))
    assert result[2:4, 2:4].tolist() == [[1.0, 2.0], [2.0, 4.0]]


def test_linear_model_gives_its_mean_weight_rectified() -> None:
    weight = torch.tensor([[[[1.0, -2.0]]], [[[3.0, -4.0]]]], dtype=torch.float64)
    model = linear(weight)
    image = torch.zeros(3, 1, 1, 2)
    assert DeadPixelMap(model).attribute(image, "mean").tolist() == [[2.0, 0.0]]
    assert DeadPixelMap(model).attribute(image, 1).tolist() == [[3.0, 0.0]]
    assert DeadPixelMap(model, rectify="none").attribute(image, 0).tolist() == [[1.0, -2.0]]
    assert DeadPixelMap(model, rectify="abs").attribute(image, "mean").tolist() == [[2.0, 3.0]]


def test_predicted_and_label_choose_image_by_image() -> None:
    weight = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 4.0]]]], dtype=torch.float64)
    model = linear(weight)
    images = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]], [[[3.0, 0.5]]], [[[1.0, 9.0]]]])
    # Predicted classes 0, 1, 0, 1.
    assert DeadPixelMap(model).attribute(images, "predicted").tolist() == [[0.5, 2.0]]
    assert DeadPixelMap(model).attribute(images).tolist() == [[0.5, 2.0]]
    labels = torch.tensor([0, 0, 0, 1])
    assert DeadPixelMap(model).attribute((images, labels), "label").tolist() == [[0.75, 1.0]]
    batches = [{"image": images[:3], "label": labels[:3]}, {"image": images[3:], "label": labels[3:]}]
    assert DeadPixelMap(model).attribute(batches, "label").tolist() == [[0.75, 1.0]]
    assert DeadPixelMap(model).attribute([(images, labels.tolist())], "label").tolist() == [[0.75, 1.0]]


def test_relu_is_taken_image_by_image() -> None:
    class Square(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.square().sum((1, 2, 3))

    # Gradients 2 and -2 at the same pixel: the mean of the gradients is 0, of the rectified ones 1.
    images = torch.tensor([[[[1.0]]], [[[-1.0]]]])
    assert DeadPixelMap(Square()).attribute(images).tolist() == [[1.0]]


def test_dense_outputs_and_tuple_targets() -> None:
    model = nn.Conv2d(1, 2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([2.0, 6.0])[:, None, None, None])
    image = torch.zeros(1, 1, 2, 2)
    assert DeadPixelMap(model).attribute(image, "mean").tolist() == [[1.0, 1.0], [1.0, 1.0]]
    # At each of four positions the largest class there: of equal ones the first.
    assert DeadPixelMap(model).attribute(image).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert DeadPixelMap(model).attribute(image + 1).tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert DeadPixelMap(model).attribute(image, (1, 0, 1)).tolist() == [[0.0, 6.0], [0.0, 0.0]]


# --- independent oracle, invariance


def test_equals_captum_saliency_of_the_mean_output(resnet: nn.Module, images: Tensor) -> None:
    saliency = Saliency(lambda value: resnet.eval()(value).mean(1))
    gradient = saliency.attribute(images.clone().requires_grad_(True), abs=False)
    expected = gradient.mean(1).clamp_min(0).mean(0)
    result = DeadPixelMap(resnet).attribute(images.split(2), "mean")
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


def test_any_callable_serves(resnet: nn.Module, images: Tensor) -> None:
    resnet.eval()
    expected = DeadPixelMap(resnet).attribute(images, 3)
    result = DeadPixelMap(lambda value: resnet(value)[:, 3]).attribute(images)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


# --- errors


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (10, r"target: expected an index into outputs of shape \(10,\), got 10"),
        (-1, r"target: expected an index into outputs of shape \(10,\), got -1"),
        ((1, 2), r"target: expected an index into outputs of shape \(10,\), got \(1, 2\)"),
        ("best", "target: expected None, an integer, a tuple of integers"),
        (1.5, "target: expected None, an integer, a tuple of integers"),
        (True, "target: expected None, an integer, a tuple of integers"),
        ("label", 'target: "label" expects one integer label an image with every batch, got none'),
    ],
)
def test_bad_targets(resnet: nn.Module, images: Tensor, target: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DeadPixelMap(resnet).attribute(images, target)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (torch.tensor([0, 1, 2, 3, 10]), "expects labels from 0 to 9, got 0 to 10"),
        (torch.tensor([0, 1, -2, 3, 4]), "expects labels from 0 to 9, got -2 to 4"),
        (torch.zeros(5), "one integer label an image"),
        (torch.zeros(4, dtype=torch.int64), "one integer label an image"),
    ],
)
def test_bad_labels(resnet: nn.Module, images: Tensor, labels: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DeadPixelMap(resnet).attribute((images, labels), "label")


def test_outputs_that_do_not_serve(images: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"select: expected .*, since the model gives a dict of 'a': .*'b': "
    ):
        DeadPixelMap(lambda value: {"a": value, "b": value}).attribute(images)
    with pytest.raises(ValueError, match=r"model: expected an output of shape \(5, \.\.\.\), got \(\)"):
        DeadPixelMap(lambda value: value.sum()).attribute(images)
    with pytest.raises(ValueError, match=r'"label" expects an output of shape \(N, classes\)'):
        DeadPixelMap(lambda value: value).attribute((images, torch.zeros(5, dtype=torch.int64)), "label")
    with pytest.raises(ValueError, match="model: the output does not depend on the images"):
        DeadPixelMap(lambda value: value.detach()).attribute(images)


def test_caller_untouched_after_an_error(resnet, images, snapshot, assert_same) -> None:  # type: ignore[no-untyped-def]
    resnet.train()
    before = snapshot(resnet)
    DeadPixelMap(resnet).attribute(images)
    with pytest.raises(ValueError, match="target"):
        DeadPixelMap(resnet).attribute(images, 99)
    assert_same(before, snapshot(resnet))
    assert not images.requires_grad
