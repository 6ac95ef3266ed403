"""Profiles of a map: with the fitted Gaussian, and by phase."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from erfattr.metrics.gaussian_fit import fit_gaussian
from erfattr.report._map_image import DIVERGING_CMAP
from erfattr.report.profile_plots import plot_gaussian_fit, plot_phase_profile, profile_limits


def checkered_bell(height: int = 64, width: int = 96) -> Tensor:
    """A Gaussian at (20, 60) times the 1-2-4 checkerboard, at the scale of real gradients."""
    y, x = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    bell = torch.exp(-((y - 20) ** 2) / (2 * 9**2) - (x - 60) ** 2 / (2 * 14**2))
    return 1e-6 * bell * (1 + y % 2) * (1 + x % 2)


def new_axes() -> Axes:
    return Figure(figsize=(6, 5), layout="constrained").subplots()


def shown(ax: Axes) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def colorbar_label(ax: Axes) -> str:
    return ax.child_axes[-1].get_ylabel()


FIT = fit_gaussian(checkered_bell())


# plot_gaussian_fit


@pytest.mark.parametrize(("axis", "across", "middle", "sigma"), [("x", 0, 60, "14.0"), ("y", 1, 20, "9.0")])
def test_mean_profile_and_fit_are_means_of_map_and_gaussian(axis, across, middle, sigma):
    values = checkered_bell()
    fit = fit_gaussian(values)
    ax = plot_gaussian_fit(values, fit, axis, new_axes())
    points, curve, centre = ax.lines
    mean = values.mean()
    np.testing.assert_allclose(points.get_ydata(), (values.mean(across) / mean).numpy(), rtol=1e-12)
    y, x = np.mgrid[:64, :96]
    bell = fit.height * np.exp(
        -((y - fit.center[0]) ** 2) / (2 * fit.sigma_y**2) - (x - fit.center[1]) ** 2 / (2 * fit.sigma_x**2)
    )
    np.testing.assert_allclose(curve.get_ydata(), bell.mean(across) / mean.item(), rtol=1e-9)
    assert list(points.get_xdata()) == list(curve.get_xdata()) == list(range(values.shape[1 - across]))
    # The checkerboard pulls the fitted centre by less than a pixel.
    assert centre.get_xdata()[0] == pytest.approx(middle, abs=0.3)
    assert curve.get_label().startswith(rf"Gaussian, $\sigma_{axis}$ = {sigma}")
    assert ax.get_title() == f"Gaussian fit, $R^2$ = {fit.r_squared:.3f}"
    assert ax.get_xlabel() == ("column x (pixel)" if axis == "x" else "row y (pixel)")
    assert ax.get_ylabel() == "sensitivity relative to mean"


@pytest.mark.parametrize("axis", ["x", "y"])
def test_centre_profile_is_the_line_of_pixels_through_the_centre(axis):
    values = checkered_bell()
    fit = fit_gaussian(values)
    ax = plot_gaussian_fit(values, fit, axis, new_axes(), profile="center")
    row, column = round(fit.center[0]), round(fit.center[1])
    line = values[row] if axis == "x" else values[:, column]
    gaussian = fit.evaluate(row, torch.arange(96)) if axis == "x" else fit.evaluate(torch.arange(64), column)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), (line / values.mean()).numpy(), rtol=1e-12)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), (gaussian / values.mean()).numpy(), rtol=1e-9)
    assert ax.lines[0].get_label() == (f"map, row {row}" if axis == "x" else f"map, column {column}")


def test_a_fitted_centre_outside_the_map_draws_the_border_and_no_line():
    y, x = torch.arange(40, dtype=torch.float64)[:, None], torch.arange(40, dtype=torch.float64)
    values = torch.exp(-((y + 5) ** 2 + (x - 20) ** 2) / (2 * 10**2))
    fit = fit_gaussian(values)
    ax = plot_gaussian_fit(values, fit, "x", new_axes(), profile="center")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), (values[0] / values.mean()).numpy(), rtol=1e-12)
    assert len(plot_gaussian_fit(values, fit, "y", new_axes()).lines) == 2


# plot_phase_profile


def test_phase_profile_is_drawn_about_one():
    profile = torch.tensor([[4.0, 8.0], [8.0, 16.0]]) / 9
    ax = plot_phase_profile(profile, new_axes())
    np.testing.assert_allclose(shown(ax), profile.numpy(), rtol=1e-6)
    assert ax.images[0].get_clim() == pytest.approx((1 - 7 / 9, 1 + 7 / 9), rel=1e-6)
    assert ax.images[0].get_cmap().name == DIVERGING_CMAP
    assert ax.get_title() == "phase profile, contrast 0.484"  # sqrt(19) / 9
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column modulo 2", "row modulo 2")
    assert colorbar_label(ax) == "sensitivity relative to local mean"


def test_a_flat_profile_is_drawn_and_an_uneven_period_named():
    ax = plot_phase_profile(torch.ones(2, 3), new_axes(), title="none")
    assert ax.images[0].get_clim() == (0, 2)
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("none", "column modulo 3", "row modulo 2")


def test_a_fit_that_explains_less_than_half_is_drawn_as_none():
    generator = torch.Generator().manual_seed(0)
    y, x = torch.arange(48, dtype=torch.float64)[:, None], torch.arange(48, dtype=torch.float64)
    bell = torch.exp(-((y - 24) ** 2 + (x - 24) ** 2) / (2 * 8**2))
    values = bell * torch.rand(48, 48, generator=generator, dtype=torch.float64) ** 8
    fit = fit_gaussian(values)
    assert 0.1 < fit.r_squared < 0.5
    ax = plot_gaussian_fit(values, fit, ax=new_axes())
    _, curve = ax.lines  # no line at the fitted centre
    assert curve.get_linestyle() == "--"
    assert curve.get_label() == f"Gaussian, no description ($R^2$ = {fit.r_squared:.2f})"
    assert ax.get_title() == f"no Gaussian: $R^2$ = {fit.r_squared:.2f}, below 0.5"
    described = plot_gaussian_fit(checkered_bell(), FIT, ax=new_axes())
    assert FIT.r_squared > 0.5
    assert described.lines[1].get_linestyle() == "-"


def test_a_strong_profile_has_no_colours_below_zero_and_one_in_the_middle():
    profile = torch.tensor([[0.0, 0.5], [0.5, 3.0]])
    ax = plot_phase_profile(profile, new_axes())
    assert ax.images[0].get_clim() == (0, 3)
    assert ax.images[0].norm(1.0) == 0.5
    both = profile_limits([profile, torch.ones(2, 2)])
    assert both == (0, 3)
    weak = plot_phase_profile(torch.tensor([[0.9, 1.1], [1.1, 0.9]]), new_axes(), limits=both)
    assert weak.images[0].get_clim() == (0, 3)
    assert (
        plot_phase_profile(profile, new_axes(), cmap="viridis", norm="linear").images[0].cmap.name
        == "viridis"
    )


# errors


@pytest.mark.parametrize(
    ("draw", "error", "match"),
    [
        (
            lambda ax: plot_gaussian_fit(checkered_bell(), None, ax=ax),
            TypeError,
            "fit: expected what fit_gaussian",
        ),
        (lambda ax: plot_gaussian_fit("text", FIT, ax=ax), TypeError, "^sensitivity_map: expected a map"),
        (
            lambda ax: plot_gaussian_fit(torch.ones(8, 8), FIT, ax=ax),
            ValueError,
            "fit: expected a fit of this map",
        ),
        (
            lambda ax: plot_gaussian_fit(0 * checkered_bell(), FIT, ax=ax),
            ValueError,
            "^sensitivity_map: expected a positive mean",
        ),
        (
            lambda ax: plot_gaussian_fit(checkered_bell(), FIT, "z", ax),
            ValueError,
            "axis: expected one of 'x', 'y'",
        ),
        (
            lambda ax: plot_gaussian_fit(checkered_bell(), FIT, ax=ax, profile="sum"),
            ValueError,
            "profile: expected one",
        ),
        (lambda ax: plot_phase_profile("text", ax), TypeError, "profile: expected a map"),
        (lambda ax: plot_phase_profile(torch.ones(3), ax), ValueError, "profile: expected a map of shape"),
        (
            lambda ax: plot_phase_profile(torch.zeros(3, 3), ax),
            ValueError,
            "profile: .* with mean 1, got mean 0",
        ),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_drawn(draw, error, match):
    ax = new_axes()
    with pytest.raises(error, match=match):
        draw(ax)
    assert (len(ax.images), len(ax.lines), len(ax.patches), ax.get_title()) == (0, 0, 0, "")


# caller untouched


def test_the_callers_map_is_untouched():
    values = checkered_bell()
    before = values.clone()
    plot_gaussian_fit(values, FIT, ax=new_axes())
    assert torch.equal(values, before)
