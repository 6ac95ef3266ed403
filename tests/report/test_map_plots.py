"""Maps as a whole: their colours, marks and words, one or several side by side."""

from __future__ import annotations

import itertools
import math

import matplotlib
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
from erfattr.report.map_plots import plot_map, plot_map_row
from erfattr.report.pixel_plots import plot_zoom
from erfattr.report.profile_plots import plot_gaussian_fit, plot_phase_profile


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


# errors


@pytest.mark.parametrize(
    ("draw", "error", "match"),
    [
        (lambda ax: plot_map(ax, "text"), TypeError, "^sensitivity_map: expected a map"),
        (
            lambda ax: plot_map(ax, torch.rand(3, 8, 8)),
            ValueError,
            r"^sensitivity_map: expected a map of shape \(H, W\)",
        ),
        (
            lambda ax: plot_map(ax, torch.full((8, 8), math.nan)),
            ValueError,
            "^sensitivity_map: expected finite values",
        ),
        (
            lambda ax: plot_map(ax, torch.zeros(8, 8)),
            ValueError,
            "^sensitivity_map: expected a positive mean .* got 0",
        ),
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
        (lambda ax: plot_map_row([ax], ["text"]), TypeError, "maps: expected a map"),
        (lambda ax: plot_map_row([ax], [torch.zeros(2, 2)]), ValueError, "maps: expected a positive mean"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_drawn(draw, error, match):
    ax = new_axes()
    with pytest.raises(error, match=match):
        draw(ax)
    assert (len(ax.images), len(ax.lines), len(ax.patches), ax.get_title()) == (0, 0, 0, "")


# beside each other, caller untouched


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
    plot_gaussian_fit(new_axes(), checkered_bell(), fit_gaussian(checkered_bell()))
    plot_phase_profile(new_axes(), torch.ones(2, 2))
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


def test_the_callers_map_is_untouched():
    values = checkered_bell()
    before = values.clone()
    plot_map(new_axes(), values, center=(20, 60))
    plot_map_row([new_axes()], [values])
    assert torch.equal(values, before)
