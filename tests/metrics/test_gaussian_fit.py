from __future__ import annotations

import dataclasses
import json
import math
import time

import lmfit
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from torch import Tensor

from erfattr.metrics.gaussian_fit import (
    GaussianFitError,
    _check_fit,
    fit_gaussian,
)


def bell(
    shape: tuple[int, int], center: tuple[float, float], sigmas: tuple[float, float], height: float = 1.0
) -> Tensor:
    y = torch.arange(shape[0], dtype=torch.float64)[:, None]
    x = torch.arange(shape[1], dtype=torch.float64)
    exponent = (y - center[0]) ** 2 / (2 * sigmas[0] ** 2) + (x - center[1]) ** 2 / (2 * sigmas[1] ** 2)
    return height * torch.exp(-exponent)


def random_map(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy_bell(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(48, 60, generator=generator, dtype=torch.float64)
    return bell((48, 60), (20.3, 33.8), (7, 11), height=2.5) + 0.1 * noise


# fit_gaussian: closed forms


@pytest.mark.parametrize(
    ("shape", "center", "sigmas"),
    [
        ((224, 224), (96, 96), (60, 62)),  # a ResNet's
        ((224, 224), (111.5, 111.5), (77, 74)),
        ((224, 224), (50, 150), (1, 1)),  # narrow
        ((224, 224), (100, 80), (1, 300)),  # narrow along one axis, wide along the other
        ((224, 224), (112, 112), (600, 400)),  # wider than the map
        ((224, 224), (0, 0), (20, 20)),  # in the corner
        ((224, 224), (0, 223), (1, 3)),
        ((224, 224), (223, 100), (80, 5)),
        ((224, 224), (-20, 240), (60, 60)),  # outside
        ((17, 40), (8, 11.25), (2.5, 9)),
        ((7, 7), (3, 3), (1, 1.5)),
        ((3, 3), (1, 1), (1, 1)),
    ],
)
def test_a_gaussian_is_found_again(shape, center, sigmas):
    fit = fit_gaussian(bell(shape, center, sigmas, height=3e-6))
    # lmfit stops where a step changes the sum of squares by less than 1e-8 of it or so.
    assert fit.center == pytest.approx(center, abs=1e-5 * max(sigmas))
    assert fit.sigma_y == pytest.approx(sigmas[0], rel=1e-5)
    assert fit.sigma_x == pytest.approx(sigmas[1], rel=1e-5)
    assert fit.height == pytest.approx(3e-6, rel=1e-5)
    assert fit.amplitude == pytest.approx(3e-6 * 2 * math.pi * sigmas[0] * sigmas[1], rel=1e-5)
    assert fit.r_squared == pytest.approx(1, abs=1e-9)
    assert fit.shape == shape
    assert fit.n_pixels == shape[0] * shape[1]


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    sigma=st.tuples(st.floats(0.7, 200), st.floats(0.7, 200)),
    height=st.floats(1e-9, 1e6),
)
def test_a_gaussian_anywhere_in_the_map_is_found_again(shape, place, sigma, height):
    # A bell more than five times wider than the map changes by less than 2 % across it.
    assume(sigma[0] < 5 * shape[0] and sigma[1] < 5 * shape[1])
    center = (place[0] * (shape[0] - 1), place[1] * (shape[1] - 1))
    fit = fit_gaussian(bell(shape, center, sigma, height))
    assert (fit.sigma_y, fit.sigma_x) == pytest.approx(sigma, rel=1e-4)
    assert fit.center[0] == pytest.approx(center[0], abs=1e-4 * sigma[0])
    assert fit.center[1] == pytest.approx(center[1], abs=1e-4 * sigma[1])
    assert fit.height == pytest.approx(height, rel=1e-4)


def test_a_checkerboard_of_mean_one_leaves_the_gaussian_and_lowers_r_squared():
    smooth = bell((224, 224), (96, 96), (60, 60))
    board = 1 + 0.8 * (-1.0) ** (torch.arange(224)[:, None] + torch.arange(224))
    fit = fit_gaussian(smooth * board)
    assert (fit.sigma_y, fit.sigma_x) == pytest.approx((60, 60), rel=1e-5)
    assert fit.center == pytest.approx((96, 96), abs=1e-3)
    # The board adds 0.64 times the smooth map's mean square to the variance, and the fit explains none of it.
    variance, square = smooth.var(correction=0).item(), smooth.square().mean().item()
    assert fit.r_squared == pytest.approx(1 - 0.64 * square / (variance + 0.64 * square), abs=1e-3)


def test_one_far_bright_pixel_does_not_lead_the_start_astray():
    values = bell((224, 224), (96, 96), (60, 60))
    values[200, 10] = 30
    fit = fit_gaussian(values)
    assert fit.center == pytest.approx((96, 96), abs=0.1)
    assert (fit.sigma_y, fit.sigma_x) == pytest.approx((60, 60), abs=0.1)


# fit_gaussian: oracles


def test_equals_a_fit_with_scipy_and_its_covariance():
    values = noisy_bell()
    fit = fit_gaussian(values)
    y, x = np.mgrid[:48, :60]

    def model(at, height, cy, cx, sy, sx):
        return height * np.exp(-((at[0] - cy) ** 2) / (2 * sy**2) - (at[1] - cx) ** 2 / (2 * sx**2))

    start = (2.5, 20, 34, 7, 11)
    best, covariance = curve_fit(model, (y.ravel(), x.ravel()), values.numpy().ravel(), p0=start, ftol=1e-14)
    errors = np.sqrt(np.diag(covariance))
    assert (fit.height, *fit.center, fit.sigma_y, fit.sigma_x) == pytest.approx(tuple(best), rel=1e-5)
    found = fit.standard_errors
    # Two numerical derivatives: the errors agree to the step they were made with.
    assert (found.height, *found.center, found.sigma_y, found.sigma_x) == pytest.approx(
        tuple(errors), rel=1e-3
    )


def test_equals_lmfit_used_plainly_with_its_meaning_of_amplitude():
    values = noisy_bell(1)
    y, x = (axis.ravel().astype(float) for axis in np.mgrid[:48, :60])
    model = lmfit.models.Gaussian2dModel()
    plain = model.fit(values.numpy().ravel(), model.guess(values.numpy().ravel(), x, y), x=x, y=y)
    fit = fit_gaussian(values)
    assert fit.amplitude == pytest.approx(plain.params["amplitude"].value, rel=1e-5)
    assert fit.standard_errors.amplitude == pytest.approx(plain.params["amplitude"].stderr, rel=1e-3)
    assert fit.sigma_x == pytest.approx(plain.params["sigmax"].value, rel=1e-5)
    assert fit.sigma_y == pytest.approx(plain.params["sigmay"].value, rel=1e-5)
    assert fit.r_squared == pytest.approx(plain.rsquared, rel=1e-9)


def test_r_squared_and_evaluate_agree_with_the_formulas():
    values = noisy_bell(2)
    fit = fit_gaussian(values)
    fitted = bell((48, 60), fit.center, (fit.sigma_y, fit.sigma_x), fit.height)
    torch.testing.assert_close(fit.evaluate(torch.arange(48)[:, None], torch.arange(60)), fitted)
    left = sum(
        (a - b) ** 2 for a, b in zip(values.flatten().tolist(), fitted.flatten().tolist(), strict=True)
    )
    mean = sum(values.flatten().tolist()) / values.numel()
    total = sum((a - mean) ** 2 for a in values.flatten().tolist())
    assert fit.r_squared == pytest.approx(1 - left / total, rel=1e-9)
    # At a least-squares solution no nearby Gaussian fits better.
    for change in (0.99, 1.01):
        worse = bell((48, 60), fit.center, (fit.sigma_y * change, fit.sigma_x), fit.height)
        assert (values - worse).square().sum() > left


def test_standard_errors_cover_the_scatter_between_samples():
    fits = [fit_gaussian(noisy_bell(seed)) for seed in range(40)]
    scatter = np.std([fit.sigma_x for fit in fits], ddof=1)
    stated = np.mean([fit.standard_errors.sigma_x for fit in fits])
    # 40 samples know a standard deviation to 11 %; the noise here is independent, as the errors assume.
    assert stated == pytest.approx(scatter, rel=0.35)


# fit_gaussian: invariances


def test_scale_changes_heights_only():
    values = noisy_bell()
    fit, scaled = fit_gaussian(values), fit_gaussian(1e-7 * values)
    assert (*scaled.center, scaled.sigma_y, scaled.sigma_x) == pytest.approx(
        (*fit.center, fit.sigma_y, fit.sigma_x), rel=1e-7
    )
    assert scaled.amplitude == pytest.approx(1e-7 * fit.amplitude, rel=1e-7)
    assert scaled.standard_errors.height == pytest.approx(1e-7 * fit.standard_errors.height, rel=1e-5)
    assert scaled.r_squared == pytest.approx(fit.r_squared, rel=1e-9)


def test_transposing_swaps_the_axes_and_mirroring_moves_the_centre():
    values = noisy_bell()
    fit, turned, mirrored = fit_gaussian(values), fit_gaussian(values.T), fit_gaussian(values.flip(1))
    assert turned.center == pytest.approx(fit.center[::-1], rel=1e-6)
    assert (turned.sigma_y, turned.sigma_x) == pytest.approx((fit.sigma_x, fit.sigma_y), rel=1e-6)
    assert mirrored.center == pytest.approx((fit.center[0], 59 - fit.center[1]), rel=1e-6)


def test_float32_arrays_and_maps_with_gradient_are_taken():
    values = noisy_bell()
    expected = fit_gaussian(values)
    for other in (values.float(), values.numpy(), values.clone().requires_grad_()):
        assert fit_gaussian(other).sigma_x == pytest.approx(expected.sigma_x, rel=1e-5)


def test_a_full_size_map_takes_well_under_a_second():
    generator = torch.Generator().manual_seed(0)
    values = bell((224, 224), (96, 96), (60, 62))
    values = values * torch.empty_like(values).exponential_(generator=generator)
    started = time.process_time()
    fit = fit_gaussian(values)
    assert time.process_time() - started < 1
    assert fit.sigma_y == pytest.approx(60, abs=2)


def test_the_result_is_frozen_and_goes_to_json():
    fit = fit_gaussian(noisy_bell())
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.height = 1.0
    read = json.loads(json.dumps(dataclasses.asdict(fit)))
    assert read["standard_errors"]["sigma_x"] == fit.standard_errors.sigma_x
    assert read["center"] == list(fit.center)


# fit_gaussian: errors


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        ("text", TypeError, "sensitivity_map: expected a map"),
        (torch.rand(2, 8, 8), ValueError, r"sensitivity_map: expected a map of shape \(H, W\)"),
        (torch.full((8, 8), math.nan), ValueError, "sensitivity_map: expected finite values, got 64"),
        (torch.rand(2, 9), ValueError, "sensitivity_map: expected at least 3 x 3 pixels, got 2 x 9"),
        (
            torch.zeros(9, 9),
            ValueError,
            "sensitivity_map: expected a map that is not constant, got 0 everywhere",
        ),
        (
            torch.full((9, 9), 0.25),
            ValueError,
            "sensitivity_map: expected a map that is not constant, got 0.25 everywhere",
        ),
    ],
)
def test_maps_that_cannot_be_fitted_are_named(bad, error, match):
    with pytest.raises(error, match=match):
        fit_gaussian(bad)


def one_pixel() -> Tensor:
    values = torch.zeros(32, 32)
    values[10, 4] = 1
    return values


def one_row() -> Tensor:
    values = torch.zeros(32, 32)
    values[10] = 1
    return values


@pytest.mark.parametrize(
    "undetermined",
    [
        one_pixel(),
        one_row(),
        1 - bell((32, 32), (12, 12), (4, 4)),  # a dip
        random_map(32, 32),  # noise
        1 + 0.01 * random_map(32, 32),  # a noisy plateau
    ],
    ids=["pixel", "row", "dip", "noise", "plateau"],
)
def test_maps_that_do_not_determine_a_gaussian_are_errors(undetermined):
    with pytest.raises(GaussianFitError, match=r"did not converge|no covariance|does not determine sigma"):
        fit_gaussian(undetermined)


def test_a_negative_map_has_no_peak_to_start_from():
    with pytest.raises(GaussianFitError, match="cannot start: the map has no positive peak"):
        fit_gaussian(-bell((32, 32), (12, 12), (4, 4)))


@dataclasses.dataclass
class Parameter:
    value: float
    stderr: float | None


@dataclasses.dataclass
class Result:
    """What ``_check_fit`` reads of lmfit's result, for the endings that no map reaches on demand."""

    success: bool = True
    aborted: bool = False
    errorbars: bool = True
    stderr: float | None = 0.1
    nfev: int = 77
    message: str = "the reason"

    @property
    def params(self) -> dict[str, Parameter]:
        names = ("amplitude", "height", "centery", "centerx", "sigmay", "sigmax", "fwhmx")
        return {name: Parameter(1.0, self.stderr) for name in names}


@pytest.mark.parametrize(
    ("result", "match"),
    [
        (Result(success=False), "did not converge in 77 evaluations: the reason"),
        (Result(success=False, aborted=True), "did not converge in 77 evaluations$"),
        (Result(errorbars=False), "no covariance, so no standard errors"),
        (Result(stderr=None), "no covariance, so no standard errors"),
        (Result(stderr=math.inf), "no covariance, so no standard errors"),
        (Result(stderr=1.5), "does not determine sigma_y: its standard error is 1.5 times its value"),
    ],
)
def test_every_bad_ending_of_lmfit_is_told(result, match):
    _check_fit(Result())
    with pytest.raises(GaussianFitError, match=match):
        _check_fit(result)


def test_the_callers_map_is_untouched():
    values = noisy_bell().clamp(min=0)
    before = values.clone()
    fit_gaussian(values)
    assert torch.equal(values, before)
    array = values.numpy()
    fit_gaussian(array)
    assert np.array_equal(array, before.numpy())
