from __future__ import annotations

import dataclasses
import json
import math

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
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics


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
    vary: bool = True
    expr: str | None = None


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


# -- rotation, background, errors over images --


def slanted(long: float, short: float, degrees: float, size: int = 160, below: float = 0.0) -> torch.Tensor:
    """A bell of height 1 whose long axis is turned from the columns' axis towards the rows'."""
    y, x = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for _ in range(2))
    y, x = y[:, None], x[None, :]
    angle = math.radians(degrees)
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    return torch.exp(-(along**2) / (2 * long**2) - across**2 / (2 * short**2)) + below


@pytest.mark.parametrize("degrees", [45.0, -45.0, 20.0, 90.0, 0.0, -70.0])
def test_a_slanted_bell_is_found_again(degrees):
    fit = fit_gaussian(slanted(30, 10, degrees), rotated=True)
    assert fit.axes == pytest.approx((30, 10, degrees), rel=1e-4, abs=1e-3)
    assert fit.r_squared > 1 - 1e-9
    assert fit.amplitude == pytest.approx(2 * math.pi * 30 * 10, rel=1e-4)
    rows, columns = torch.arange(160.0)[:, None], torch.arange(160.0)
    torch.testing.assert_close(fit.evaluate(rows, columns), slanted(30, 10, degrees), rtol=0, atol=1e-6)


def test_without_rotation_a_slanted_bell_comes_out_round_and_badly_fitted():
    fit = fit_gaussian(slanted(60, 20, 45, 300))
    assert (fit.sigma_y, fit.sigma_x) == pytest.approx((34.6, 34.6), abs=0.3)
    assert fit.r_squared == pytest.approx(0.70, abs=0.01)
    assert fit.correlation == 0
    assert fit.standard_errors.correlation is None
    turned = fit_gaussian(slanted(60, 20, 45, 300), rotated=True)
    assert turned.axes == pytest.approx((60, 20, 45), rel=1e-3)


def test_a_round_bell_has_no_slant_and_its_error_is_finite():
    noise = 0.01 * torch.randn(80, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fit = fit_gaussian(slanted(12, 12, 0, 80) + noise, rotated=True)
    assert fit.correlation == pytest.approx(0, abs=4 * fit.standard_errors.correlation)
    assert 0 < fit.standard_errors.correlation < 0.01


def test_a_background_is_fitted_where_it_is_asked_for():
    bell = slanted(30, 30, 0, 224, below=0.2)
    plain, fitted = fit_gaussian(bell), fit_gaussian(bell, background=True)
    assert plain.sigma_y == pytest.approx(54, abs=1)
    assert (fitted.sigma_y, fitted.sigma_x) == pytest.approx((30, 30), rel=1e-4)
    assert (fitted.height, fitted.background) == pytest.approx((1, 0.2), rel=1e-4)
    assert fitted.standard_errors.background is not None
    assert plain.standard_errors.background is None
    both = fit_gaussian(50 * slanted(30, 10, 30, 160, below=0.5), rotated=True, background=True)
    assert both.axes == pytest.approx((30, 10, 30), rel=1e-3)
    assert both.background == pytest.approx(25, rel=1e-3)


def sampled(images: int, seed: int, size: int = 48) -> MapStatistics:
    """Bells whose place, width and height differ from image to image, times skewed noise."""
    generator = torch.Generator().manual_seed(seed)
    streaming = StreamingStatistics()
    y, x = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    for _ in range(images):
        a, b, c, d, e = torch.randn(5, generator=generator, dtype=torch.float64).tolist()
        sigma_y, sigma_x = 8 * math.exp(0.3 * c), 10 * math.exp(0.3 * d)
        bell = torch.exp(
            -((y - 24 - 4 * a) ** 2) / (2 * sigma_y**2) - (x - 22 - 4 * b) ** 2 / (2 * sigma_x**2)
        )
        noise = torch.randn(size, size, generator=generator, dtype=torch.float64).exp()
        streaming.update((math.exp(e) * bell * noise)[None])
    return streaming.result()


@pytest.mark.slow
def test_errors_over_images_are_as_large_as_the_scatter():
    fits = [fit_gaussian(sampled(64, seed)) for seed in range(40)]
    for read in (
        lambda fit: fit.sigma_y,
        lambda fit: fit.sigma_x,
        lambda fit: fit.center[0],
        lambda fit: fit.center[1],
        lambda fit: fit.height,
        lambda fit: fit.r_squared,
    ):
        scatter = np.std([read(fit) for fit in fits], ddof=1)
        stated = np.mean([read(fit.standard_errors) for fit in fits])
        assert 0.7 < stated / scatter < 1.4
    alone = [fit_gaussian(sampled(64, seed).mean) for seed in range(3)]
    assert all(fit.standard_errors.source == "residuals" for fit in alone)
    scatter = np.std([fit.sigma_y for fit in fits], ddof=1)
    assert all(fit.standard_errors.sigma_y < scatter / 3 for fit in alone)


def test_statistics_give_the_fit_of_their_mean_with_errors_over_images():
    statistics = sampled(40, 0)
    fit, alone = fit_gaussian(statistics), fit_gaussian(statistics.mean)
    assert (fit.sigma_y, fit.center, fit.r_squared) == (alone.sigma_y, alone.center, alone.r_squared)
    assert fit.standard_errors.source == "images"
    assert fit.standard_errors.sigma_y > 2 * alone.standard_errors.sigma_y
    assert fit.standard_errors.r_squared > 0


def test_errors_are_infinite_where_a_group_decides_the_fit():
    maps = torch.zeros(4, 16, 16, dtype=torch.float64)
    maps[0] = slanted(3, 3, 0, 16)  # the only one with a bell
    maps[1:] = 0.2 * torch.rand(3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    streaming = StreamingStatistics(4)
    streaming.update(maps)
    fit = fit_gaussian(streaming.result())
    assert fit.standard_errors.sigma_y == math.inf


def test_bad_switches_and_statistics_of_few_groups_are_refused():
    with pytest.raises(TypeError, match="rotated: expected True or False, got 1"):
        fit_gaussian(slanted(3, 3, 0, 16), rotated=1)
    streaming = StreamingStatistics(2)
    streaming.update(torch.stack([slanted(3, 3, 0, 16)] * 4))
    with pytest.raises(ValueError, match="at least 3 groups"):
        fit_gaussian(streaming.result())
