"""The expected map of a method: the loop written out, its identity, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, InputXGradient, IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from torch import Tensor, nn

from erfattr.attr.calibration import calibrate, describe_method
from erfattr.metrics.statistics import MapSource
from erfattr.models.loading import weights_hash


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(3844, 5)
    ).double()


def gradients(model: nn.Module, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """Mean absolute gradient, image by image, of the class given or predicted."""
    maps = []
    for index in range(len(images)):
        image = images[index : index + 1].clone().requires_grad_(True)
        output = model(image)[0]
        chosen = output.argmax() if classes is None else classes[index]
        maps.append(torch.autograd.grad(output[chosen], image)[0][0].abs().mean(0))
    return torch.stack(maps)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_map_is_the_mean_absolute_attribution(model: nn.Module, images: Tensor, batch_size: int) -> None:
    found = calibrate(Saliency(model), list(images.split(batch_size)))
    expected = gradients(model.eval(), images)
    torch.testing.assert_close(found.statistics.mean, expected.mean(0), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(
        found.statistics.standard_error, expected.std(0) / 5**0.5, rtol=1e-9, atol=1e-15
    )


def test_targets(model: nn.Module, images: Tensor) -> None:
    labels = torch.tensor([4, 0, 1, 3, 2])
    by_label = calibrate(Saliency(model), [(images, labels)], target="label")
    by_index = calibrate(Saliency(model), images, target=3, max_examples=2)
    model.eval()
    torch.testing.assert_close(
        by_label.statistics.mean, gradients(model, images, labels).mean(0), rtol=1e-9, atol=1e-15
    )
    torch.testing.assert_close(
        by_index.statistics.mean,
        gradients(model, images[:2], torch.tensor([3, 3])).mean(0),
        rtol=1e-9,
        atol=1e-15,
    )
    assert by_index.statistics.n_images == 2


def test_images_are_brought_to_the_model_and_its_arguments_to_the_target() -> None:
    class Shifted(nn.Module):
        """Which class is predicted depends on the further argument."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 3.0], dtype=torch.float64))

        def forward(self, value: Tensor, shift: Tensor) -> Tensor:
            return value.mean((1, 2, 3))[:, None] * self.weight + shift

    shift = torch.tensor([100.0, 0.0], dtype=torch.float64)
    images = torch.rand(3, 1, 2, 2)  # float32, for a model in float64
    found = calibrate(Saliency(Shifted()), [images], additional_forward_args=shift).statistics.mean
    assert torch.equal(found, torch.full((2, 2), 1 / 4, dtype=torch.float64))
    found = calibrate(Saliency(Shifted()), [images], additional_forward_args=-shift).statistics.mean
    assert torch.equal(found, torch.full((2, 2), 3 / 4, dtype=torch.float64))


def test_other_methods_have_other_maps(model: nn.Module, images: Tensor) -> None:
    found = calibrate(InputXGradient(model), images, target=1)
    model.eval()
    expected = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(expected)[:, 1].sum(), expected)
    torch.testing.assert_close(
        found.statistics.mean, (images * gradient).abs().mean((0, 1)), rtol=1e-9, atol=1e-15
    )


def test_layer_is_brought_to_the_images_size(model: nn.Module, images: Tensor) -> None:
    found = calibrate(LayerGradCam(model, model[0]), images, target=1, interpolate_mode="bilinear")  # type: ignore[index]
    model.eval()
    raw = LayerGradCam(model, model[0]).attribute(images, target=1)  # type: ignore[index]
    expected = nn.functional.interpolate(raw, (64, 64), mode="bilinear").abs().mean((0, 1))
    torch.testing.assert_close(found.statistics.mean, expected, rtol=1e-9, atol=1e-15)
    assert found.method == "LayerGradCam(0)"


def test_what_it_belongs_to_is_recorded(model: nn.Module, images: Tensor) -> None:
    method = NoiseTunnel(IntegratedGradients(model, multiply_by_inputs=False))
    found = calibrate(method, images[:2], target=1, nt_samples=2, stdevs=0.1, n_steps=3, baselines=0.5)
    assert found.method == "NoiseTunnel(IntegratedGradients())"
    assert describe_method(IntegratedGradients(model)) == "IntegratedGradients(multiplies by inputs)"
    assert found.settings == {"n_steps": "3 (int)", "nt_samples": "2 (int)", "stdevs": "0.1 (float)"}
    assert found.weights_sha256 == weights_hash(model)
    assert found.statistics.source == MapSource("output", None, None, None, 1, "abs", (64, 64))


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ([], {}, ValueError, "inputs: expected at least one image, got none"),
        (torch.ones(1, 3, 64, 64).double(), {"target": "label"}, ValueError, 'target: "label" expects one'),
        (torch.ones(1, 3, 64, 64).double(), {"target": "best"}, ValueError, "target: expected one of"),
        (torch.ones(1, 3, 64, 64).double(), {"interpolate_mode": "best"}, ValueError, "interpolate_mode"),
        (torch.ones(1, 3, 64, 64).double(), {"max_examples": 0}, ValueError, "max_examples"),
        (torch.ones(1, 3, 64, 64).long(), {}, TypeError, "floating-point images"),
        ([torch.ones(1, 3, 64, 64).double(), torch.ones(1, 3, 32, 64).double()], {}, ValueError, "one size"),
    ],
)
def test_bad_input(
    model: nn.Module, inputs: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        calibrate(Saliency(model), inputs, **options)


def test_bad_methods(model: nn.Module, images: Tensor) -> None:
    with pytest.raises(TypeError, match="method: expected a Captum attribution"):
        calibrate(model, images)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"method: a calibration needs a torch.nn.Module"):
        calibrate(Saliency(lambda x: model(x)), images)
    with pytest.raises(ValueError, match='brought to it with interpolate_mode="bilinear"'):
        calibrate(LayerGradCam(model, model[0]), images, target=1)  # type: ignore[index]


def test_attributions_that_say_nothing(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[union-attr, index, operator]
    with pytest.raises(ValueError, match="the attributions are zero on all images"):
        calibrate(Saliency(model), images)
    with torch.no_grad():
        model[4].weight[:] = torch.inf  # type: ignore[index, operator]
    with pytest.raises(ValueError, match="NaN or infinity in image 0"):
        calibrate(Saliency(model), images, target=0)


def test_numpys_random_state_is_given_back(model: nn.Module, images: Tensor) -> None:
    np.random.seed(5)  # noqa: NPY002  (the state that GradientShap draws from)
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    calibrate(GradientShap(model), images, target=1, baselines=torch.zeros_like(images), n_samples=2)
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_caller_is_left_untouched(
    resnet: nn.Module,
    images: Tensor,
    fails: bool,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    before, kept = snapshot(resnet), images.clone()
    method = NoiseTunnel(Saliency(resnet))
    if fails:
        with pytest.raises(AssertionError):  # Captum's own check
            calibrate(method, images, target=2, stdevs="much")
    else:
        calibrate(method, images, target=2, nt_samples=2, stdevs=0.1)
    assert_same(before, snapshot(resnet))
    assert torch.equal(images, kept)
    assert not images.requires_grad
    assert images.grad is None


def test_progress_is_shown_on_request(
    model: nn.Module,
    images: Tensor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("erfattr._progress._LINES_EVERY", 0.0)
    calibrate(Saliency(model), images)
    assert capsys.readouterr() == ("", "")
    calibrate(Saliency(model), images, show_progress=True)
    assert "5 of 5 images" in capsys.readouterr().err
