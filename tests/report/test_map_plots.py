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
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from erfattr.metrics.gaussian_fit import fit_gaussian
from erfattr.metrics.imbalance import phase_profile
from erfattr.metrics.statistics import MapSource, MapStatistics
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
    assert plot_map(values, ax, title="layer4") is ax
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


def test_colours_leave_out_two_percent_of_the_mass_and_the_bar_says_so():
    values = torch.arange(1, 1001, dtype=torch.float64).reshape(25, 40)
    ax = plot_map(values, new_axes())
    # 1 to 1000, in all 500500: 991 to 1000 are 9955 together, and one more would be over 10010.
    assert ax.images[0].get_clim() == pytest.approx((0, 990 / 500.5), rel=1e-12)
    assert colorbar_label(ax) == "sensitivity relative to mean\n(2 % of the mass beyond the colours)"
    assert [text.get_text() for text in ax.texts] == []  # too little to be noted in the picture
    assert ax.images[0].colorbar.extend == "max"


def test_a_map_whose_colours_reach_its_maximum_says_nothing_of_them():
    ax = plot_map(torch.tensor([1.0, 3.0]).repeat(10, 5), new_axes())
    assert ax.images[0].get_clim() == (0, 1.5)
    assert colorbar_label(ax) == "sensitivity relative to mean"
    assert ax.images[0].colorbar.extend == "neither"


def concentrated() -> Tensor:
    """A bell of four pixels' width in 224 x 224: 0.4 % of the pixels reach a tenth of its peak."""
    y, x = torch.arange(224, dtype=torch.float64)[:, None], torch.arange(224, dtype=torch.float64)
    return torch.exp(-((y - 100) ** 2 + (x - 120) ** 2) / (2 * 4**2))


def test_a_concentrated_map_gets_a_logarithmic_scale_that_shows_all_but_a_thousandth_of_its_mass():
    values = concentrated()
    ax = plot_map(values, new_axes())
    norm = ax.images[0].norm
    assert isinstance(norm, LogNorm)
    assert norm.vmax == pytest.approx(float(values.max() / values.mean()), rel=1e-12)
    # Of a Gaussian all but the share q of the mass lies where it is above q times its peak; half of that.
    assert norm.vmin == pytest.approx(norm.vmax * 1e-3 / 2, rel=0.1)
    assert colorbar_label(ax) == "sensitivity relative to mean\n(logarithmic)"
    assert ax.images[0].colorbar.extend == "min"
    # The faintest are dark, not transparent.
    assert ax.images[0].cmap.get_bad().tolist() == list(ax.images[0].cmap(0.0))


def test_scale_and_colours_are_as_asked():
    values = concentrated()
    linear = plot_map(values, new_axes(), norm="linear", cmap="viridis")
    assert type(linear.images[0].norm) is Normalize
    assert linear.images[0].get_cmap().name == "viridis"
    bell = checkered_bell()
    assert type(plot_map(bell, new_axes()).images[0].norm) is Normalize
    assert isinstance(plot_map(bell, new_axes(), norm="log").images[0].norm, LogNorm)
    ends = plot_map(bell, new_axes(), norm="log", limits=(0.5, 8)).images[0].get_clim()
    assert ends == (0.5, 8)
    own = PowerNorm(0.5, vmin=0, vmax=9)
    ax = plot_map(bell, new_axes(), norm=own)
    assert ax.images[0].norm is own
    assert "PowerNorm" in colorbar_label(ax)
    unscaled = Normalize()
    plot_map(bell, new_axes(), norm=unscaled)
    assert not unscaled.scaled()  # the caller's is left as it was


def test_more_than_a_few_percent_beyond_the_colours_is_said_in_the_picture():
    values = torch.tensor([[1.0, 1.0], [1.0, 5.0]])
    ax = plot_map(values, new_axes(), relative=False, limits=(0, 2))
    assert [text.get_text() for text in ax.texts] == ["62 % of the mass beyond the colours"]
    ax = plot_map(values, new_axes(), relative=False, limits=(0, 5))
    assert not ax.texts


def test_numbers_of_the_bar_are_scientific():
    ax = plot_map(1e-5 * checkered_bell(), new_axes(), relative=False)
    ax.figure.draw_without_rendering()
    bar = ax.child_axes[-1].yaxis
    assert "10^{−11}" in bar.get_offset_text().get_text()  # noqa: RUF001
    assert all(abs(float(tick)) < 1e-8 for tick in ax.child_axes[-1].get_yticks())
    formatted = ax.child_axes[-1].yaxis.get_major_formatter()(2e-11)
    assert "0000" not in formatted


def test_without_axes_there_is_a_new_figure_of_pyplot():
    try:
        ax = plot_map(checkered_bell())
        assert matplotlib.pyplot.get_fignums() == [ax.figure.number]
        plots = plot_map_row([checkered_bell()] * 2)
        assert plots[0].figure is plots[1].figure
        assert plots[0].figure is not ax.figure
    finally:
        matplotlib.pyplot.close("all")


def test_statistics_bring_their_centre_and_a_banner_where_they_are_noise():
    mean = checkered_bell().clamp_min(1e-9)
    source = MapSource("layer4", (3, 3), (7, 7), (20.0, 60.0), None, "relu", (64, 96))
    noisy = MapStatistics(mean, 0.8 * mean, 4, mean[None], (4,), source)
    ax = plot_map(noisy, new_axes())
    assert legend_texts(ax) == ["unit (3, 3), projected centre (20, 60)"]
    assert [text.get_text() for text in ax.texts] == [
        "mostly noise: 4 images, median pixel ± 80 %\nfor ± 10 % about 256 images"
    ]
    known = MapStatistics(mean, 0.2 * mean, 64, mean[None], (64,), source)
    assert not plot_map(known, new_axes()).texts


def test_limits_and_absolute_values_are_as_asked():
    values = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    ax = plot_map(values, new_axes(), relative=False, limits=(1.5, 2.5))
    assert shown(ax).tolist() == values.tolist()
    assert ax.images[0].get_clim() == (1.5, 2.5)
    assert colorbar_label(ax) == "sensitivity"
    assert ax.images[0].colorbar.extend == "both"


def test_a_signed_map_gets_two_sided_colours_about_zero():
    values = torch.tensor([[-4.0, 1.0], [2.0, 0.0]]).repeat(10, 10)
    ax = plot_map(values, new_axes(), relative=False)
    assert ax.images[0].get_clim() == (-4, 4)
    assert ax.images[0].get_cmap().name == DIVERGING_CMAP


def test_a_nearly_empty_map_is_not_drawn_black():
    values = torch.zeros(100, 100)
    values[3, 4] = 5.0
    ax = plot_map(values, new_axes(), relative=False)
    assert ax.images[0].get_clim() == (0, 5)


def test_centre_is_marked_at_column_and_row_and_named_with_the_unit():
    ax = plot_map(checkered_bell(), new_axes(), unit=(1, 3), center=(20, 60.5))
    (marker,) = ax.lines
    assert (list(marker.get_xdata()), list(marker.get_ydata())) == ([60.5], [20])
    assert legend_texts(ax) == ["unit (1, 3), projected centre (20, 60.5)"]


def test_a_centre_outside_the_image_does_not_stretch_the_axes():
    ax = plot_map(checkered_bell(), new_axes(), center=(-7, 300))
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
    ax = plot_map(checkered_bell(), new_axes(), bounds=bounds)
    (box,) = ax.patches
    assert box.get_xy() == corner
    assert (box.get_width(), box.get_height()) == size
    assert legend_texts(ax) == [label]


def test_without_marks_and_colour_bar_there_is_only_the_image():
    ax = plot_map(checkered_bell(), new_axes(), colorbar=False)
    assert (ax.get_legend(), ax.child_axes, len(ax.lines), len(ax.patches)) == (None, [], 0, 0)


# plot_map_row


def test_row_draws_each_map_with_its_own_colours():
    maps = [checkered_bell(), 1000 * checkered_bell() ** 2]
    axes = Figure().subplots(1, 2)
    drawn = plot_map_row(maps, axes, ["before", "after"])
    assert list(drawn) == list(axes)
    for ax, values, title in zip(axes, maps, ("before", "after"), strict=True):
        relative = (values / values.mean()).numpy()
        np.testing.assert_allclose(shown(ax), relative, rtol=1e-12)
        falling = np.sort(relative.ravel())[::-1]
        end = falling[np.flatnonzero(np.cumsum(falling) > 0.02 * falling.sum())[0]]
        assert ax.images[0].get_clim() == pytest.approx((0, end), rel=1e-12)
        assert ax.get_title() == title
        assert "own scale" in colorbar_label(ax)
    assert [ax.get_ylabel() for ax in axes] == ["row y (pixel)", ""]


def test_row_with_a_shared_scale_has_one_range_and_one_bar():
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, 2)
    flat, peak = torch.ones(20, 20), torch.ones(20, 20)
    peak[0, 0] = 6.0  # mean 1.0125
    plot_map_row([flat, peak], axes, shared_scale=True)
    # 400 pixels of 1, 399 of 0.988 and one of 5.926, which is less than 2 % of 800.
    assert [ax.images[0].get_clim() for ax in axes] == [(0, 1), (0, 1)]
    assert [len(ax.child_axes) for ax in axes] == [0, 0]
    (bar,) = [ax for ax in figure.axes if ax not in list(axes)]
    assert bar.get_ylabel() == "sensitivity relative to mean\n(0.74 % of the mass beyond the colours)"


# errors


@pytest.mark.parametrize(
    ("draw", "error", "match"),
    [
        (lambda ax: plot_map("text", ax), TypeError, "^sensitivity_map: expected a map"),
        (
            lambda ax: plot_map(torch.rand(3, 8, 8), ax),
            ValueError,
            r"^sensitivity_map: expected a map of shape \(H, W\)",
        ),
        (
            lambda ax: plot_map(torch.full((8, 8), math.nan), ax),
            ValueError,
            "^sensitivity_map: expected finite values",
        ),
        (
            lambda ax: plot_map(torch.zeros(8, 8), ax),
            ValueError,
            "^sensitivity_map: expected a positive mean .* got 0",
        ),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, center=3),
            TypeError,
            "center: expected a sequence of numbers, got 3",
        ),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, center=(3, math.inf)),
            ValueError,
            "center: expected finite numbers",
        ),
        (lambda ax: plot_map(torch.ones(8, 8), ax, unit=(3,)), ValueError, "unit: expected 2 finite numbers"),
        (lambda ax: plot_map(torch.ones(8, 8), ax, unit="center"), TypeError, "unit: expected 2 numbers"),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, bounds=(1, 2)),
            ValueError,
            "bounds: expected 4 finite numbers",
        ),
        (lambda ax: plot_map(torch.ones(8, 8), ax, bounds="box"), TypeError, "bounds: expected 4 numbers"),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, bounds=(5, 0, 4, 9)),
            ValueError,
            "bounds: .* in this order",
        ),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, bounds=(9, 0, 12, 7)),
            ValueError,
            "box that meets the 8 x 8",
        ),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, limits=(2, 2)),
            ValueError,
            "limits: expected .* in this order",
        ),
        (lambda ax: plot_map(torch.ones(8, 8), ax, limits="all"), TypeError, "limits: expected 2 numbers"),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, norm="loud"),
            ValueError,
            "norm: expected 'linear', 'log'",
        ),
        (lambda ax: plot_map(torch.ones(8, 8), ax, norm=3), TypeError, "norm: expected 'linear', 'log'"),
        (lambda ax: plot_map(torch.ones(8, 8), ax, cmap="mud"), ValueError, "cmap: expected the name"),
        (lambda ax: plot_map(torch.ones(8, 8), ax, cmap=3), TypeError, "cmap: expected a matplotlib"),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, norm=Normalize(0, 1), limits=(0, 1)),
            ValueError,
            "limits: expected None beside a norm",
        ),
        (
            lambda ax: plot_map(torch.ones(8, 8), ax, norm="log", limits=(0, 1)),
            ValueError,
            "limits: expected positive ones",
        ),
        (lambda ax: plot_map_row([], [ax]), ValueError, "maps: expected at least one map, got none"),
        (
            lambda ax: plot_map_row([torch.ones(2, 2)] * 2, [ax]),
            ValueError,
            "axes: expected one .* 2 maps, got 1",
        ),
        (
            lambda ax: plot_map_row([torch.ones(2, 2)], [ax], []),
            ValueError,
            "titles: expected one .* 1 maps, got 0",
        ),
        (lambda ax: plot_map_row(["text"], [ax]), TypeError, "maps: expected a map"),
        (lambda ax: plot_map_row([torch.zeros(2, 2)], [ax]), ValueError, "maps: expected a positive mean"),
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
        values, axes[0], unit=(3, 3), center=(20, 60), bounds=(-50, -50, 90, 90), title="layer4, 100 images"
    )
    plot_zoom(values, (20, 60), ax=axes[1])
    plot_gaussian_fit(values, fit_gaussian(values), ax=axes[2])
    plot_phase_profile(phase_profile(values, 2), axes[3])
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
    ax = plot_map(checkered_bell(), new_axes(), center=(20, 60))
    plot_zoom(checkered_bell(), (20, 60), ax=ax.inset_axes((0.6, 0.6, 0.3, 0.3)), parent=ax)
    plot_gaussian_fit(checkered_bell(), fit_gaussian(checkered_bell()), ax=new_axes())
    plot_phase_profile(torch.ones(2, 2), new_axes())
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


def test_the_callers_map_is_untouched():
    values = checkered_bell()
    before = values.clone()
    plot_map(values, new_axes(), center=(20, 60))
    plot_map_row([values], [new_axes()])
    assert torch.equal(values, before)
