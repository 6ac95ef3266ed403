from __future__ import annotations

import io
import itertools
import math

import matplotlib.image
import matplotlib.pyplot
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from erfattr.metrics.gaussian_fit import fit_gaussian
from erfattr.metrics.imbalance import phase_profile
from erfattr.report._map_image import CMAP, DIVERGING_CMAP
from erfattr.report.plots import (
    pixel_exact_dpi,
    plot_gaussian_fit,
    plot_map,
    plot_map_row,
    plot_phase_profile,
    plot_zoom,
)


def checkered_bell(height: int = 64, width: int = 96) -> Tensor:
    """A Gaussian at (20, 60) times the 1-2-4 checkerboard, at the scale of real gradients."""
    y, x = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    bell = torch.exp(-((y - 20) ** 2) / (2 * 9**2) - (x - 60) ** 2 / (2 * 14**2))
    return 1e-6 * bell * (1 + y % 2) * (1 + x % 2)


def new_axes() -> Axes:
    return Figure(figsize=(6, 5), layout="constrained").subplots()


def shown(ax: Axes) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def legend_texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def colorbar_label(ax: Axes) -> str:
    return ax.child_axes[-1].get_ylabel()


# plot_map


def test_map_is_drawn_relative_to_its_mean_with_pixel_centres_at_integers():
    values = checkered_bell()
    ax = new_axes()
    assert plot_map(ax, values, title="layer4") is ax
    image = ax.images[0]
    np.testing.assert_allclose(shown(ax), (values / values.mean()).numpy(), rtol=1e-12)
    assert tuple(image.get_extent()) == (-0.5, 95.5, 63.5, -0.5)
    assert ax.get_xlim() == (-0.5, 95.5)
    assert ax.get_ylim() == (63.5, -0.5)  # row 0 on top
    assert image.get_interpolation() == "nearest"
    assert image.get_cmap().name == CMAP
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == (
        "layer4",
        "column x (pixel)",
        "row y (pixel)",
    )


def test_colours_end_at_the_percentile_and_the_bar_says_so():
    values = torch.arange(1, 1001, dtype=torch.float64).reshape(25, 40)
    ax = plot_map(new_axes(), values)
    # 1 to 1000: position 0.995 * 999 from the first, 995.005; the mean is 500.5.
    assert ax.images[0].get_clim() == pytest.approx((0, 995.005 / 500.5), rel=1e-12)
    assert colorbar_label(ax) == "sensitivity relative to mean\n(colours end at percentile 99.5)"
    assert ax.images[0].colorbar.extend == "max"


def test_a_map_whose_colours_reach_its_maximum_says_nothing_of_percentiles():
    ax = plot_map(new_axes(), torch.tensor([1.0, 3.0]).repeat(10, 5))
    assert ax.images[0].get_clim() == (0, 1.5)
    assert colorbar_label(ax) == "sensitivity relative to mean"
    assert ax.images[0].colorbar.extend == "neither"


def test_limits_and_absolute_values_are_as_asked():
    values = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    ax = plot_map(new_axes(), values, relative=False, limits=(1.5, 2.5))
    assert shown(ax).tolist() == values.tolist()
    assert ax.images[0].get_clim() == (1.5, 2.5)
    assert colorbar_label(ax) == "sensitivity"
    assert ax.images[0].colorbar.extend == "both"


def test_a_signed_map_gets_two_sided_colours_about_zero():
    values = torch.tensor([[-4.0, 1.0], [2.0, 0.0]]).repeat(10, 10)
    ax = plot_map(new_axes(), values, relative=False)
    assert ax.images[0].get_clim() == (-4, 4)
    assert ax.images[0].get_cmap().name == DIVERGING_CMAP


def test_a_nearly_empty_map_is_not_drawn_black():
    values = torch.zeros(100, 100)
    values[3, 4] = 5.0
    ax = plot_map(new_axes(), values, relative=False)
    assert ax.images[0].get_clim() == (0, 5)


def test_centre_is_marked_at_column_and_row_and_named_with_the_unit():
    ax = plot_map(new_axes(), checkered_bell(), unit=(1, 3), center=(20, 60.5))
    (marker,) = ax.lines
    assert (list(marker.get_xdata()), list(marker.get_ydata())) == ([60.5], [20])
    assert legend_texts(ax) == ["unit (1, 3), projected centre (20, 60.5)"]


def test_a_centre_outside_the_image_does_not_stretch_the_axes():
    ax = plot_map(new_axes(), checkered_bell(), center=(-7, 300))
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 95.5), (63.5, -0.5))


@pytest.mark.parametrize(
    ("bounds", "corner", "size", "label"),
    [
        # Both ends belong to the box: rows 3 to 12 are ten rows, from edge 2.5 to edge 12.5.
        ((3, 5, 12, 24), (4.5, 2.5), (20, 10), "TRF 10 × 20"),  # noqa: RUF001
        ((-5, 80, 4, 120), (79.5, -0.5), (16, 5), "TRF 10 × 41, clipped to the image"),  # noqa: RUF001
        ((-100, -90, 99, 109), (-0.5, -0.5), (96, 64), "TRF 200 × 200, larger than the image"),  # noqa: RUF001
        ((0, 0, 63, 95), (-0.5, -0.5), (96, 64), "TRF 64 × 96"),  # noqa: RUF001
    ],
)
def test_box_is_clipped_to_the_image_and_says_so(bounds, corner, size, label):
    ax = plot_map(new_axes(), checkered_bell(), bounds=bounds)
    (box,) = ax.patches
    assert box.get_xy() == corner
    assert (box.get_width(), box.get_height()) == size
    assert legend_texts(ax) == [label]


def test_without_marks_and_colour_bar_there_is_only_the_image():
    ax = plot_map(new_axes(), checkered_bell(), colorbar=False)
    assert (ax.get_legend(), ax.child_axes, len(ax.lines), len(ax.patches)) == (None, [], 0, 0)


# plot_zoom


@pytest.mark.parametrize(
    ("center", "size", "rows", "columns"),
    [
        ((20, 60), 16, (12, 28), (52, 68)),
        ((20, 60), 15, (13, 28), (53, 68)),  # odd: centred on the pixel
        ((19.5, 59.5), 16, (12, 28), (52, 68)),  # between pixels: as many on both sides
        ((0, 95), 16, (0, 16), (80, 96)),  # moved inside
        ((-9, 200), 16, (0, 16), (80, 96)),
        ((20, 60), 80, (0, 64), (16, 96)),  # higher than the map
    ],
)
def test_zoom_shows_these_pixels_in_the_coordinates_of_the_map(center, size, rows, columns):
    values = checkered_bell()
    ax = plot_zoom(new_axes(), values, center, size)
    window = values[rows[0] : rows[1], columns[0] : columns[1]]
    np.testing.assert_allclose(shown(ax), (window / values.mean()).numpy(), rtol=1e-12)
    left, right, bottom, top = ax.images[0].get_extent()
    assert (top, bottom, left, right) == (rows[0] - 0.5, rows[1] - 0.5, columns[0] - 0.5, columns[1] - 0.5)
    assert ax.get_title() == f"rows {rows[0]}–{rows[1] - 1}, columns {columns[0]}–{columns[1] - 1}"  # noqa: RUF001
    assert ax.images[0].get_interpolation() == "nearest"


def test_zoom_uses_the_range_of_its_window():
    values = checkered_bell()
    ax = plot_zoom(new_axes(), values, (50, 20), 8)
    largest = values[46:54, 16:24].max() / values.mean()
    assert ax.images[0].get_clim() == pytest.approx((0, largest.item()), rel=1e-12)
    assert colorbar_label(ax) == "sensitivity relative to mean"


def test_zoom_has_ticks_at_whole_pixels():
    ax = plot_zoom(new_axes(), checkered_bell(), (20, 60), 16)
    ax.figure.draw_without_rendering()
    major = [tick for tick in ax.get_xticks() if 52 <= tick < 68]
    minor = [tick for tick in ax.get_xticks(minor=True) if 52 <= tick < 68]
    assert major == [56, 64]
    assert sorted(major + minor) == list(range(52, 68))


def test_zoom_frames_its_pixels_in_the_parent():
    figure = Figure()
    whole, zoom = figure.subplots(1, 2)
    plot_map(whole, checkered_bell())
    plot_zoom(zoom, checkered_bell(), (20, 60), 16, parent=whole)
    (frame,) = whole.patches
    assert frame.get_xy() == (51.5, 11.5)
    assert (frame.get_width(), frame.get_height()) == (16, 16)
    assert zoom.get_title() == "rows 12–27, columns 52–67"  # noqa: RUF001


def test_an_inset_has_light_numbers_and_no_other_words():
    ax = plot_map(new_axes(), checkered_bell())
    inset = plot_zoom(ax.inset_axes((0.6, 0.6, 0.35, 0.35)), checkered_bell(), (20, 60), 16, parent=ax)
    assert (inset.get_title(), inset.get_xlabel(), inset.get_ylabel(), inset.child_axes) == ("", "", "", [])
    assert {label.get_color() for label in inset.get_xticklabels()} == {"white"}
    assert len(ax.patches) == 1


def test_zoom_of_a_signed_window_is_two_sided_and_of_an_empty_one_is_drawn():
    values = torch.zeros(40, 40)
    values[2, 3], values[2, 4] = -3.0, 2.0
    ax = plot_zoom(new_axes(), values, (2, 3), 4, relative=False)
    assert ax.images[0].get_clim() == (-3, 3)
    empty = plot_zoom(new_axes(), values, (30, 30), 4, relative=False)
    assert empty.images[0].get_clim() == (0, 1)


# plot_map_row


def test_row_draws_each_map_with_its_own_colours():
    maps = [checkered_bell(), 1000 * checkered_bell() ** 2]
    axes = Figure().subplots(1, 2)
    drawn = plot_map_row(axes, maps, ["before", "after"])
    assert list(drawn) == list(axes)
    for ax, values, title in zip(axes, maps, ("before", "after"), strict=True):
        relative = (values / values.mean()).numpy()
        np.testing.assert_allclose(shown(ax), relative, rtol=1e-12)
        assert ax.images[0].get_clim() == pytest.approx((0, np.percentile(relative, 99.5)), rel=1e-12)
        assert ax.get_title() == title
        assert "percentile 99.5" in colorbar_label(ax)
    assert [ax.get_ylabel() for ax in axes] == ["row y (pixel)", ""]


def test_row_with_a_shared_scale_has_one_range_and_one_bar():
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, 2)
    flat, peak = torch.ones(20, 20), torch.ones(20, 20)
    peak[0, 0] = 401.0  # mean 2
    plot_map_row(axes, [flat, peak], shared_scale=True)
    # 400 pixels of 1, 399 of 0.5 and one of 200.5: the percentile is 1.
    assert [ax.images[0].get_clim() for ax in axes] == [(0, 1), (0, 1)]
    assert [len(ax.child_axes) for ax in axes] == [0, 0]
    (bar,) = [ax for ax in figure.axes if ax not in list(axes)]
    assert bar.get_ylabel() == "sensitivity relative to mean\n(colours end at percentile 99.5)"


# plot_gaussian_fit


@pytest.mark.parametrize(("axis", "across", "middle", "sigma"), [("x", 0, 60, "14.0"), ("y", 1, 20, "9.0")])
def test_mean_profile_and_fit_are_means_of_map_and_gaussian(axis, across, middle, sigma):
    values = checkered_bell()
    fit = fit_gaussian(values)
    ax = plot_gaussian_fit(new_axes(), values, fit, axis)
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
    ax = plot_gaussian_fit(new_axes(), values, fit, axis, profile="center")
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
    ax = plot_gaussian_fit(new_axes(), values, fit, "x", profile="center")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), (values[0] / values.mean()).numpy(), rtol=1e-12)
    assert len(plot_gaussian_fit(new_axes(), values, fit, "y").lines) == 2


# plot_phase_profile


def test_phase_profile_is_drawn_about_one():
    profile = torch.tensor([[4.0, 8.0], [8.0, 16.0]]) / 9
    ax = plot_phase_profile(new_axes(), profile)
    np.testing.assert_allclose(shown(ax), profile.numpy(), rtol=1e-6)
    assert ax.images[0].get_clim() == pytest.approx((1 - 7 / 9, 1 + 7 / 9), rel=1e-6)
    assert ax.images[0].get_cmap().name == DIVERGING_CMAP
    assert ax.get_title() == "phase profile, contrast 0.484"  # sqrt(19) / 9
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column modulo 2", "row modulo 2")
    assert colorbar_label(ax) == "sensitivity relative to local mean"


def test_a_flat_profile_is_drawn_and_an_uneven_period_named():
    ax = plot_phase_profile(new_axes(), torch.ones(2, 3), title="none")
    assert ax.images[0].get_clim() == (0, 2)
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("none", "column modulo 3", "row modulo 2")


# pixel_exact_dpi


def test_every_pixel_of_the_map_is_equally_large_in_the_file():
    checkerboard = (torch.arange(50)[:, None] + torch.arange(50)) % 2 + 1.0
    ax = Figure(figsize=(4, 3.7)).add_axes((0.15, 0.15, 0.7, 0.7))
    ax = plot_map(ax, checkerboard, colorbar=False)
    ax.set_axis_off()
    dpi = pixel_exact_dpi(ax, scale=3)
    with io.BytesIO() as file:
        ax.figure.savefig(file, dpi=dpi)
        file.seek(0)
        picture = matplotlib.image.imread(file)[..., 0]
    middle = picture[picture.shape[0] // 2]
    changes = np.flatnonzero(np.diff(middle))
    # From the first square's left edge on, the colour changes every three pixels of the file.
    inner = changes[2:-2]
    assert len(inner) >= 40
    assert set(np.diff(inner).tolist()) == {3}


def test_pixel_exact_dpi_works_in_a_subfigure():
    figure = Figure(figsize=(8, 4), dpi=50)
    ax = figure.subfigures(1, 2)[1].add_axes((0.1, 0.1, 0.8, 0.8))
    plot_map(ax, torch.ones(100, 100), colorbar=False)
    # 0.8 of 4 by 4 inches for 100 pixels.
    assert pixel_exact_dpi(ax, scale=1) == pytest.approx(100 / 3.2, rel=1e-9)


# layout, errors, caller untouched


def test_nothing_written_beside_the_map_overlaps_or_leaves_the_figure():
    figure = Figure(figsize=(17.2, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots(1, 4)
    values = checkered_bell()
    plot_map(
        axes[0], values, unit=(3, 3), center=(20, 60), bounds=(-50, -50, 90, 90), title="layer4, 100 images"
    )
    plot_zoom(axes[1], values, (20, 60))
    plot_gaussian_fit(axes[2], values, fit_gaussian(values))
    plot_phase_profile(axes[3], phase_profile(values, 2))
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in axes]
    for left, right in itertools.pairwise(boxes):
        assert left.x1 <= right.x0 + 0.5
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width + 0.5
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height + 0.5
    legend = axes[0].get_legend().get_window_extent()
    assert legend.y1 <= axes[0].xaxis.label.get_window_extent().y0


def test_global_state_of_matplotlib_is_left_alone():
    settings = dict(matplotlib.rcParams)
    ax = plot_map(new_axes(), checkered_bell(), center=(20, 60))
    plot_zoom(ax.inset_axes((0.6, 0.6, 0.3, 0.3)), checkered_bell(), (20, 60), parent=ax)
    plot_gaussian_fit(new_axes(), checkered_bell(), FIT)
    plot_phase_profile(new_axes(), torch.ones(2, 2))
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


FIT = fit_gaussian(checkered_bell())


@pytest.mark.parametrize(
    ("draw", "error", "match"),
    [
        (lambda ax: plot_map(ax, "text"), TypeError, "map: expected a map"),
        (lambda ax: plot_map(ax, torch.rand(3, 8, 8)), ValueError, r"map: expected a map of shape \(H, W\)"),
        (lambda ax: plot_map(ax, torch.full((8, 8), math.nan)), ValueError, "map: expected finite values"),
        (lambda ax: plot_map(ax, torch.zeros(8, 8)), ValueError, "map: expected a positive mean .* got 0"),
        (
            lambda ax: plot_map(ax, torch.ones(8, 8), center=3),
            TypeError,
            "center: expected a sequence of numbers, got 3",
        ),
        (
            lambda ax: plot_map(ax, torch.ones(8, 8), center=(3, math.inf)),
            ValueError,
            "center: expected finite numbers",
        ),
        (lambda ax: plot_map(ax, torch.ones(8, 8), unit=(3,)), ValueError, "unit: expected 2 finite numbers"),
        (lambda ax: plot_map(ax, torch.ones(8, 8), unit="center"), TypeError, "unit: expected 2 numbers"),
        (
            lambda ax: plot_map(ax, torch.ones(8, 8), bounds=(1, 2)),
            ValueError,
            "bounds: expected 4 finite numbers",
        ),
        (lambda ax: plot_map(ax, torch.ones(8, 8), bounds="box"), TypeError, "bounds: expected 4 numbers"),
        (
            lambda ax: plot_map(ax, torch.ones(8, 8), bounds=(5, 0, 4, 9)),
            ValueError,
            "bounds: .* in this order",
        ),
        (
            lambda ax: plot_map(ax, torch.ones(8, 8), bounds=(9, 0, 12, 7)),
            ValueError,
            "box that meets the 8 x 8",
        ),
        (
            lambda ax: plot_map(ax, torch.ones(8, 8), limits=(2, 2)),
            ValueError,
            "limits: expected .* in this order",
        ),
        (lambda ax: plot_map(ax, torch.ones(8, 8), limits="all"), TypeError, "limits: expected 2 numbers"),
        (lambda ax: plot_zoom(ax, "text", (1, 1)), TypeError, "map: expected a map"),
        (lambda ax: plot_zoom(ax, torch.zeros(8, 8), (1, 1)), ValueError, "map: expected a positive mean"),
        (lambda ax: plot_zoom(ax, torch.ones(8, 8), (1,)), ValueError, r"center: expected \(y, x\)"),
        (
            lambda ax: plot_zoom(ax, torch.ones(8, 8), None),
            TypeError,
            "center: expected a sequence of numbers",
        ),
        (
            lambda ax: plot_zoom(ax, torch.ones(8, 8), (1, 1), 0),
            ValueError,
            "size: expected a positive integer",
        ),
        (
            lambda ax: plot_zoom(ax, torch.ones(8, 8), (1, 1), 4.5),
            TypeError,
            "size: expected a positive integer",
        ),
        (lambda ax: plot_map_row([ax], []), ValueError, "maps: expected at least one map, got none"),
        (
            lambda ax: plot_map_row([ax], [torch.ones(2, 2)] * 2),
            ValueError,
            "axes: expected one .* 2 maps, got 1",
        ),
        (
            lambda ax: plot_map_row([ax], [torch.ones(2, 2)], []),
            ValueError,
            "titles: expected one .* 1 maps, got 0",
        ),
        (lambda ax: plot_map_row([ax], ["text"]), TypeError, "map: expected a map"),
        (lambda ax: plot_map_row([ax], [torch.zeros(2, 2)]), ValueError, "map: expected a positive mean"),
        (
            lambda ax: plot_gaussian_fit(ax, checkered_bell(), None),
            TypeError,
            "fit: expected what fit_gaussian",
        ),
        (lambda ax: plot_gaussian_fit(ax, "text", FIT), TypeError, "map: expected a map"),
        (
            lambda ax: plot_gaussian_fit(ax, torch.ones(8, 8), FIT),
            ValueError,
            "fit: expected a fit of this map",
        ),
        (
            lambda ax: plot_gaussian_fit(ax, 0 * checkered_bell(), FIT),
            ValueError,
            "map: expected a positive mean",
        ),
        (
            lambda ax: plot_gaussian_fit(ax, checkered_bell(), FIT, "z"),
            ValueError,
            "axis: expected one of 'x', 'y'",
        ),
        (
            lambda ax: plot_gaussian_fit(ax, checkered_bell(), FIT, profile="sum"),
            ValueError,
            "profile: expected one",
        ),
        (lambda ax: plot_phase_profile(ax, "text"), TypeError, "profile: expected a map"),
        (lambda ax: plot_phase_profile(ax, torch.ones(3)), ValueError, "profile: expected a map of shape"),
        (
            lambda ax: plot_phase_profile(ax, torch.zeros(3, 3)),
            ValueError,
            "profile: .* with mean 1, got mean 0",
        ),
        (lambda ax: pixel_exact_dpi(ax), ValueError, "ax: expected axes with an image, got none"),
        (lambda ax: pixel_exact_dpi(ax, 0), ValueError, "scale: expected a positive integer"),
        (lambda ax: pixel_exact_dpi(ax, 1.5), TypeError, "scale: expected a positive integer"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_drawn(draw, error, match):
    ax = new_axes()
    with pytest.raises(error, match=match):
        draw(ax)
    assert (len(ax.images), len(ax.lines), len(ax.patches), ax.get_title()) == (0, 0, 0, "")


def test_the_callers_map_is_untouched():
    values = checkered_bell()
    before = values.clone()
    plot_map(new_axes(), values, center=(20, 60))
    plot_zoom(new_axes(), values, (20, 60))
    plot_gaussian_fit(new_axes(), values, FIT)
    plot_map_row([new_axes()], [values])
    assert torch.equal(values, before)
