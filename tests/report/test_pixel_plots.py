"""The pixels of a map one by one: which are shown, and that each is as large as the others."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from erfattr.report.map_plots import plot_map
from erfattr.report.pixel_plots import pixel_exact_dpi, plot_zoom, save_figure


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
    ax = plot_zoom(values, center, size, new_axes())
    window = values[rows[0] : rows[1], columns[0] : columns[1]]
    np.testing.assert_allclose(shown(ax), (window / values.mean()).numpy(), rtol=1e-12)
    left, right, bottom, top = ax.images[0].get_extent()
    assert (top, bottom, left, right) == (rows[0] - 0.5, rows[1] - 0.5, columns[0] - 0.5, columns[1] - 0.5)
    assert ax.get_title() == f"rows {rows[0]}–{rows[1] - 1}, columns {columns[0]}–{columns[1] - 1}"  # noqa: RUF001
    assert ax.images[0].get_interpolation() == "nearest"


def test_zoom_uses_the_range_of_its_window():
    values = checkered_bell()
    ax = plot_zoom(values, (50, 20), 8, new_axes())
    largest = values[46:54, 16:24].max() / values.mean()
    assert ax.images[0].get_clim() == pytest.approx((0, largest.item()), rel=1e-12)
    assert colorbar_label(ax) == "sensitivity relative to mean"


def test_zoom_has_ticks_at_whole_pixels():
    ax = plot_zoom(checkered_bell(), (20, 60), 16, new_axes())
    ax.figure.draw_without_rendering()
    major = [tick for tick in ax.get_xticks() if 52 <= tick < 68]
    minor = [tick for tick in ax.get_xticks(minor=True) if 52 <= tick < 68]
    assert major == [56, 64]
    assert sorted(major + minor) == list(range(52, 68))


def test_zoom_frames_its_pixels_in_the_parent():
    figure = Figure()
    whole, zoom = figure.subplots(1, 2)
    plot_map(checkered_bell(), whole)
    plot_zoom(checkered_bell(), (20, 60), 16, zoom, parent=whole)
    (frame,) = whole.patches
    assert frame.get_xy() == (51.5, 11.5)
    assert (frame.get_width(), frame.get_height()) == (16, 16)
    assert zoom.get_title() == "rows 12–27, columns 52–67"  # noqa: RUF001


def test_an_inset_has_light_numbers_and_no_other_words():
    ax = plot_map(checkered_bell(), new_axes())
    inset = plot_zoom(checkered_bell(), (20, 60), 16, ax.inset_axes((0.6, 0.6, 0.35, 0.35)), parent=ax)
    assert (inset.get_title(), inset.get_xlabel(), inset.get_ylabel(), inset.child_axes) == ("", "", "", [])
    assert {label.get_color() for label in inset.get_xticklabels()} == {"white"}
    assert len(ax.patches) == 1


def test_zoom_of_a_signed_window_is_two_sided_and_of_an_empty_one_is_drawn():
    values = torch.zeros(40, 40)
    values[2, 3], values[2, 4] = -3.0, 2.0
    ax = plot_zoom(values, (2, 3), 4, new_axes(), relative=False)
    assert ax.images[0].get_clim() == (-3, 3)
    empty = plot_zoom(values, (30, 30), 4, new_axes(), relative=False)
    assert empty.images[0].get_clim() == (0, 1)


# pixel_exact_dpi


def test_every_pixel_of_the_map_is_equally_large_in_the_file():
    checkerboard = (torch.arange(50)[:, None] + torch.arange(50)) % 2 + 1.0
    ax = Figure(figsize=(4, 3.7)).add_axes((0.15, 0.15, 0.7, 0.7))
    ax = plot_map(checkerboard, ax, colorbar=False)
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
    plot_map(torch.ones(100, 100), ax, colorbar=False)
    # 0.8 of 4 by 4 inches for 100 pixels.
    assert pixel_exact_dpi(ax, scale=1) == pytest.approx(100 / 3.2, rel=1e-9)


def test_saving_lays_the_figure_out_once(tmp_path, monkeypatch):
    laid_out = []
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda self, figure: (laid_out.append(1), execute(self, figure))
    )
    ax = plot_map(torch.ones(50, 50), new_axes())
    engine = ax.figure.get_layout_engine()
    save_figure(ax.figure, tmp_path / "map.png")
    assert len(laid_out) == 1
    assert ax.figure.get_layout_engine() is engine
    picture = matplotlib.image.imread(tmp_path / "map.png")
    # As wide as the resolution says at which a pixel of the map is two of the file.
    assert picture.shape[1] == pytest.approx(6 * pixel_exact_dpi(ax), abs=1)


# errors


@pytest.mark.parametrize(
    ("draw", "error", "match"),
    [
        (lambda ax: plot_zoom("text", (1, 1), ax=ax), TypeError, "^sensitivity_map: expected a map"),
        (
            lambda ax: plot_zoom(torch.zeros(8, 8), (1, 1), ax=ax),
            ValueError,
            "^sensitivity_map: expected a positive mean",
        ),
        (lambda ax: plot_zoom(torch.ones(8, 8), (1,), ax=ax), ValueError, r"center: expected \(y, x\)"),
        (
            lambda ax: plot_zoom(torch.ones(8, 8), None, ax=ax),
            TypeError,
            "center: expected a sequence of numbers",
        ),
        (
            lambda ax: plot_zoom(torch.ones(8, 8), (1, 1), 0, ax),
            ValueError,
            "size: expected a positive integer",
        ),
        (
            lambda ax: plot_zoom(torch.ones(8, 8), (1, 1), 4.5, ax),
            TypeError,
            "size: expected a positive integer",
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


# caller untouched


def test_the_callers_map_is_untouched():
    values = checkered_bell()
    before = values.clone()
    plot_zoom(values, (20, 60), ax=new_axes())
    assert torch.equal(values, before)
