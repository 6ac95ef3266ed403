"""Dividing the grid out: by hand, against the wrapped method, inside and around Captum's own tools."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    Attribution,
    Deconvolution,
    DeepLift,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from erfattr import DeadPixelMap, DebiasedAttribution, demo_model, sample_images
from erfattr.attr.debiased_attribution import debias
from erfattr.metrics.relief import relief

PATTERN = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
CHECKERBOARD = PATTERN.repeat(8, 8)


@pytest.fixture
def model() -> nn.Module:
    """Layers that every method understands: no ReLU used twice."""
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 5),
        )
        .double()
        .eval()
    )


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sensitivity() -> Tensor:
    values = torch.rand(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return 0.5 + values


@pytest.fixture(autouse=True)
def _without_captums_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
        warnings.filterwarnings("ignore", message="Setting (backward|forward)")
        yield


@pytest.mark.parametrize("mode", ["phase", "local", "global"])
def test_a_grid_is_taken_out_and_signs_stay(mode: Any) -> None:
    values = torch.stack([3 * CHECKERBOARD, -CHECKERBOARD])
    found = debias(values, 5 * CHECKERBOARD, mode, period=2)
    expected = torch.tensor([6.75, -2.25])[:, None, None].expand(2, 16, 16)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert found.dtype == torch.float32


def test_channels_and_images_share_one_map(sensitivity: Tensor) -> None:
    values = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gain = sensitivity.mean() / sensitivity
    torch.testing.assert_close(debias(values, sensitivity, "global"), values * gain, rtol=1e-9, atol=0)


def test_epsilon_bounds_the_gain() -> None:
    values = torch.tensor([[0.0, 1.0], [1.0, 2.0]], dtype=torch.float64)  # mean 1
    ones = torch.ones(2, 2, dtype=torch.float64)
    assert debias(ones, values, "global", epsilon=0.25).tolist() == [[4.0, 1.0], [1.0, 0.5]]
    assert debias(ones, values, "global", epsilon=1).tolist() == [[1.0, 1.0], [1.0, 0.5]]


def test_total_is_preserved_on_request(sensitivity: Tensor) -> None:
    values = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values[1] = 0
    found = debias(values, sensitivity, "global", preserve_total=True)
    plain = debias(values, sensitivity, "global")
    torch.testing.assert_close(found.abs().sum((1, 2, 3)), values.abs().sum((1, 2, 3)), rtol=1e-9, atol=0)
    factor = values[0].abs().sum() / plain[0].abs().sum()
    torch.testing.assert_close(found[0], plain[0] * factor, rtol=1e-9, atol=0)  # one factor an image
    single = debias(values[0], sensitivity, "global", preserve_total=True)
    torch.testing.assert_close(single.abs().sum((1, 2)), values[0].abs().sum((1, 2)), rtol=1e-9, atol=0)


def test_scale_of_the_map_does_not_matter_and_a_flat_one_changes_nothing(sensitivity: Tensor) -> None:
    values = torch.randn(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for mode in ("phase", "local", "global"):
        first, second = (
            debias(values, scale * sensitivity, mode, period=4)  # type: ignore[arg-type]
            for scale in (1, 1000)
        )
        torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
        flat = debias(values, torch.full((16, 16), 7.0), mode, period=4)  # type: ignore[arg-type]
        torch.testing.assert_close(flat, values, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (["a"], {}, TypeError, "attributions: expected a map"),
        (torch.ones(16), {}, ValueError, "attributions: expected a map of shape"),
        (torch.full((16, 16), torch.nan), {}, ValueError, "attributions: expected finite"),
        (torch.ones(16, 16), {"epsilon": 0}, ValueError, "epsilon: expected a number in"),
        (torch.ones(16, 16), {"epsilon": "no"}, TypeError, "epsilon: expected a number in"),
        (torch.ones(3, 15, 16), {}, ValueError, "expected the period .* to divide"),
        (torch.ones(3, 8, 8), {"mode": "local"}, ValueError, "attributions of the map's size"),
    ],
)
def test_bad_values(values: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        debias(values, CHECKERBOARD, period=2, **options)


METHODS: dict[str, tuple[Callable[[nn.Module], Attribution], dict[str, Any]]] = {
    "Saliency": (Saliency, {}),
    "signed Saliency": (Saliency, {"abs": False}),
    "InputXGradient": (InputXGradient, {}),
    "IntegratedGradients": (IntegratedGradients, {"n_steps": 4}),
    "GradientShap": (GradientShap, {"baselines": torch.zeros(2, 3, 16, 16).double(), "n_samples": 3}),
    "DeepLift": (DeepLift, {}),
    "GuidedBackprop": (GuidedBackprop, {}),
    "Deconvolution": (Deconvolution, {}),
    "Occlusion": (Occlusion, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}),
    "NoiseTunnel": (lambda model: NoiseTunnel(Saliency(model)), {"nt_samples": 3, "stdevs": 0.2}),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_wrapped(name: str, model: nn.Module, images: Tensor, sensitivity: Tensor) -> None:
    build, arguments = METHODS[name]
    method = build(model)
    wrapped = DebiasedAttribution(method, sensitivity, "local", period=4)
    target = torch.tensor([0, 4, 2])
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  (GradientShap draws from it)
    raw = method.attribute(images, target=target, **arguments)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    found = wrapped.attribute(images, target=target, **arguments)
    assert found.shape == images.shape
    assert raw.abs().sum() > 0
    gain = 1 / relief(sensitivity, "local", period=4).clamp_min(0.1)
    expected = raw * gain.to(raw.dtype)  # Occlusion answers in float32
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)
    assert wrapped.multiplies_by_inputs == method.multiplies_by_inputs
    assert wrapped.has_convergence_delta() == method.has_convergence_delta()
    assert wrapped.forward_func is model


def test_layer_is_brought_to_the_images_size(model: nn.Module, images: Tensor, sensitivity: Tensor) -> None:
    method = LayerGradCam(model, model[2])  # type: ignore[index]
    for wrapped in (
        DebiasedAttribution(method, sensitivity, "global", interpolate_mode="bilinear"),
        DebiasedAttribution.calibrate(method, images, mode="global", interpolate_mode="bilinear"),
    ):
        raw = nn.functional.interpolate(method.attribute(images, target=1), (16, 16), mode="bilinear")
        torch.testing.assert_close(
            wrapped.attribute(images, target=1),
            debias(raw, wrapped.sensitivity_map, "global"),
            rtol=1e-9,
            atol=1e-15,
        )
    with pytest.raises(ValueError, match='brought to it with interpolate_mode="bilinear"'):
        DebiasedAttribution(method, sensitivity, "global").attribute(images, target=1)


def test_additional_arguments_reach_the_model(images: Tensor, sensitivity: Tensor) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: float) -> Tensor:
            return scale * x.sum((1, 2, 3))

    wrapped = DebiasedAttribution(Saliency(Scaled()), sensitivity, "global")
    expected = (7 * sensitivity.mean() / sensitivity).expand(3, 3, 16, 16)
    torch.testing.assert_close(
        wrapped.attribute(images, additional_forward_args=7.0), expected, rtol=1e-9, atol=0
    )


def test_delta_is_that_of_the_raw_attributions(model: nn.Module, images: Tensor, sensitivity: Tensor) -> None:
    method = IntegratedGradients(model)
    wrapped = DebiasedAttribution(method, sensitivity, "global")
    arguments = {"target": 1, "n_steps": 4, "return_convergence_delta": True}
    raw, raw_delta = method.attribute(images, **arguments)
    found, delta = wrapped.attribute(images, **arguments)
    assert torch.equal(delta, raw_delta)
    torch.testing.assert_close(found, debias(raw, sensitivity, "global"), rtol=1e-9, atol=0)
    # It says how exact the raw ones were: the debiased ones do not add up to the outputs' difference.
    difference = model(images)[:, 1] - model(torch.zeros_like(images))[:, 1]
    torch.testing.assert_close(raw.sum((1, 2, 3)) - difference, delta, rtol=1e-9, atol=1e-15)
    assert ((found.sum((1, 2, 3)) - difference).abs() > 1.2 * delta.abs()).all()


def test_inside_a_noise_tunnel_as_around_it(model: nn.Module, images: Tensor, sensitivity: Tensor) -> None:
    results = []
    for method in (
        NoiseTunnel(DebiasedAttribution(Saliency(model), sensitivity, "global")),
        DebiasedAttribution(NoiseTunnel(Saliency(model)), sensitivity, "global"),
    ):
        torch.manual_seed(5)
        results.append(method.attribute(images, target=1, nt_samples=4, stdevs=0.2))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-15)  # a mean of quotients by one map
    tunnel = NoiseTunnel(DebiasedAttribution(IntegratedGradients(model), sensitivity, "global"))
    found, delta = tunnel.attribute(
        images, target=1, nt_samples=2, stdevs=0.2, n_steps=2, return_convergence_delta=True
    )
    assert found.shape == images.shape
    assert delta.shape == (6,)


def test_tuples_stay_tuples_and_others_pass_through(images: Tensor, sensitivity: Tensor) -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
            return image.sum((1, 2, 3)) + (numbers**2).sum(1)

    numbers = torch.arange(6.0, dtype=torch.float64).reshape(3, 2)
    method = Saliency(Two())
    wrapped = DebiasedAttribution(method, (sensitivity, None), "global")
    first, second = wrapped.attribute((images, numbers))
    expected = (sensitivity.mean() / sensitivity).expand_as(images)
    torch.testing.assert_close(first, expected, rtol=1e-9, atol=0)
    assert torch.equal(second, 2 * numbers)
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\), got .* at position 1; .*None"):
        DebiasedAttribution(method, sensitivity, "global").attribute((images, numbers))
    with pytest.raises(ValueError, match="inputs: expected 2, one for each map of sensitivity_map, got 1"):
        wrapped.attribute(images)
    single = DebiasedAttribution(Saliency(nn.Flatten()), sensitivity, "global").attribute((images,), target=0)
    assert isinstance(single, tuple)
    assert len(single) == 1


def test_one_map_serves_several_images(model: nn.Module, images: Tensor, sensitivity: Tensor) -> None:
    class Sum(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return first.sum((1, 2, 3)) + 2 * second.sum((1, 2, 3))

    found = DebiasedAttribution(Saliency(Sum()), sensitivity, "global").attribute((images, images + 1))
    gain = (sensitivity.mean() / sensitivity).expand_as(images)
    torch.testing.assert_close(found, (gain, 2 * gain), rtol=1e-9, atol=0)


def test_captums_metrics_take_it(model: nn.Module, images: Tensor, sensitivity: Tensor) -> None:
    method = Saliency(model)
    wrapped = DebiasedAttribution(method, sensitivity, "global")

    def by_hand(inputs: Any, **arguments: Any) -> Any:
        return tuple(debias(one, sensitivity, "global") for one in method.attribute(inputs, **arguments))

    scores = []
    for explain in (wrapped.attribute, by_hand):
        torch.manual_seed(7)
        scores.append(sensitivity_max(explain, images, target=1, n_perturb_samples=3))
    torch.testing.assert_close(*scores, rtol=1e-9, atol=0)
    assert (scores[0] > 0).all()
    # A linear model is explained by its gradient without error, and by its debiased one with some.
    linear = nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).double()

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(inputs, 0.1), inputs - 0.1

    signed = Saliency(linear).attribute(images, target=1, abs=False)
    again = DebiasedAttribution(Saliency(linear), sensitivity, "global").attribute(
        images, target=1, abs=False
    )
    assert infidelity(linear, noise, images, signed, target=1).max() < 1e-20
    expected = (0.1 * (again - signed).sum((1, 2, 3))) ** 2
    torch.testing.assert_close(
        infidelity(linear, noise, images, again, target=1), expected, rtol=1e-9, atol=1e-18
    )


def test_period_is_read_from_the_model(resnet: nn.Module) -> None:
    images = torch.randn(4, 3, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    resnet.eval()
    D = DeadPixelMap(resnet).attribute(images)  # noqa: N806
    found, expected = (
        DebiasedAttribution(Saliency(resnet), D, period=period).attribute(images[:1], target=3)
        for period in (None, 32)
    )
    assert torch.equal(found, expected)
    # Its profile serves every size that the period divides.
    smaller = images[:1, :, :64, :64]
    raw = Saliency(resnet).attribute(smaller, target=3)
    torch.testing.assert_close(
        DebiasedAttribution(Saliency(resnet), D).attribute(smaller, target=3),
        debias(raw, D, period=32),
        rtol=1e-9,
        atol=1e-15,
    )
    with pytest.raises(ValueError, match=r"period: .* could not be read from the model; give period="):
        DebiasedAttribution(Saliency(lambda x: resnet(x)), D).attribute(images, target=3)


def test_calibrated_grid_is_gone_from_the_images_it_was_measured_on(
    resnet: nn.Module, images: Tensor
) -> None:
    images = torch.randn(12, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    debiased = DebiasedAttribution.calibrate(Saliency(resnet.eval()), images, mode="global", epsilon=1e-9)
    with torch.no_grad():
        target = resnet(images).argmax(1)
    without = DebiasedAttribution(
        Saliency(resnet), debiased.sensitivity_map.statistics.mean, "global", epsilon=1e-9
    )
    mean = without.attribute(images, target=target).mean((0, 1))
    torch.testing.assert_close(mean, mean.mean().expand(64, 64), rtol=1e-9, atol=0)
    # With the noise held back it is not, and it is nearer than before.
    raw = Saliency(resnet).attribute(images, target=target).mean((0, 1))
    held = debiased.attribute(images, target=target).mean((0, 1))
    assert 0 < (held / held.mean()).std() < (raw / raw.mean()).std()


def test_calibration_of_another_model_method_or_setting_is_refused(model: nn.Module, images: Tensor) -> None:
    debiased = DebiasedAttribution.calibrate(IntegratedGradients(model), images, period=4, n_steps=4)
    calibration = debiased.sensitivity_map
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].bias += 1  # type: ignore[operator, index]
    with pytest.raises(ValueError, match=r"calibrated for a model with weights .* calibrate again"):
        DebiasedAttribution(IntegratedGradients(other), calibration, period=4)
    with pytest.raises(
        ValueError, match=r"calibrated for IntegratedGradients\(multiplies by inputs\), got Sal"
    ):
        DebiasedAttribution(Saliency(model), calibration, period=4)
    with pytest.raises(ValueError, match=r"n_steps: calibrated with 4 \(int\), got 5 \(int\)"):
        debiased.attribute(images, target=1, n_steps=5)
    with pytest.raises(ValueError, match=r"n_steps: calibrated with 4 \(int\), got the default"):
        debiased.attribute(images, target=1)
    with pytest.raises(ValueError, match=r"expected the period .* to divide"):
        debiased.attribute(images[..., :15], target=1, n_steps=4)
    # Its statistics are a map like any other.
    DebiasedAttribution(Saliency(model), calibration.statistics, period=4).attribute(images, target=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "fine"}, ValueError, "mode: expected one of"),
        ({"epsilon": 2}, ValueError, "epsilon: expected a number in"),
        ({"interpolate_mode": "best"}, ValueError, "interpolate_mode: expected one of"),
        ({"period": 0}, ValueError, "period: expected a positive integer"),
        ({"sensitivity_map": torch.ones(3)}, ValueError, "sensitivity_map: expected a map"),
        ({"method": nn.Flatten()}, TypeError, "method: expected a Captum attribution"),
    ],
)
def test_bad_settings(
    model: nn.Module, sensitivity: Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"method": Saliency(model), "sensitivity_map": sensitivity, "period": 2} | options
    with pytest.raises(error, match=message):
        DebiasedAttribution(**arguments)


def test_inputs_are_checked_before_the_model_runs(sensitivity: Tensor) -> None:
    def never(_: Tensor) -> Tensor:
        raise AssertionError("the model ran")

    wrapped = DebiasedAttribution(Saliency(never), sensitivity, "global")
    with pytest.raises(ValueError, match=r"attributions of the map's size \(16, 16\), got \(8, 16\)"):
        wrapped.attribute(torch.zeros(1, 3, 8, 16))
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\)"):
        wrapped.attribute(torch.zeros(3, 16, 16))


@pytest.mark.parametrize("fails", [False, True])
def test_caller_is_left_untouched(
    resnet: nn.Module,
    fails: bool,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    resnet.eval()  # what runs is the wrapped method, in the model's own mode
    before, kept = snapshot(resnet), images.clone()
    wrapped = DebiasedAttribution(GuidedBackprop(resnet), torch.ones(64, 64))
    if fails:
        with pytest.raises(AssertionError):  # Captum's own check of the target
            wrapped.attribute(images, target=[1])
    else:
        wrapped.attribute(images, target=1)
    assert_same(before, snapshot(resnet))
    assert torch.equal(images, kept)
    assert not images.requires_grad


# What other toolkits hand over.


def test_numpy_maps_with_a_calibration_that_knows_its_period() -> None:
    model, images = demo_model(), sample_images(12, 64)
    debiased = DebiasedAttribution.calibrate(Saliency(model), images)
    calibration = debiased.sensitivity_map
    assert calibration.period == (32, 32)
    cams = np.random.default_rng(0).random((3, 64, 64), dtype=np.float32)
    found = debias(cams, calibration)
    assert isinstance(found, np.ndarray)
    assert (found.shape, found.dtype) == (cams.shape, cams.dtype)
    expected = debias(torch.from_numpy(cams), calibration.statistics, period=32)
    assert np.array_equal(found, expected.numpy())


def test_target_by_position_is_the_target() -> None:
    model, images = demo_model(), sample_images(6, 64)
    for method in (Saliency(model), IntegratedGradients(model)):
        debiased = DebiasedAttribution(method, torch.rand(64, 64) + 0.5, period=32)
        # Of Integrated Gradients the second argument is the baseline; here it is always the target.
        assert torch.equal(debiased.attribute(images[:1], 5), debiased.attribute(images[:1], target=5))
