"""Lines around shares of the mass, and where colours end."""

from __future__ import annotations

import pytest
import torch

from erfattr.report.page.shapes import CLIPPED, color_ends, mass_lines


def test_line_around_a_square_lies_half_a_pixel_outside() -> None:
    values = torch.zeros(20, 30)
    values[5:9, 10:16] = 2.0
    (line,) = mass_lines(values, 0.99, smooth=0)
    assert line[0] == line[-1]
    ys, xs = zip(*line, strict=True)
    assert (min(ys), max(ys), min(xs), max(xs)) == (4.5, 8.5, 9.5, 15.5)


def test_line_of_a_gaussian_has_the_radius_of_its_share() -> None:
    # The mass beyond radius r of a Gaussian is exp(-r^2 / 2 sigma^2); smoothing adds variances.
    y, x = torch.meshgrid(torch.arange(101.0), torch.arange(101.0), indexing="ij")
    sigma, smooth = 9.0, 3.0
    values = torch.exp(-((y - 50) ** 2 + (x - 50) ** 2) / (2 * sigma**2)).double()
    for share in (0.5, 0.9):
        (line,) = mass_lines(values, share, smooth)
        radii = [((y - 50) ** 2 + (x - 50) ** 2) ** 0.5 for y, x in line]
        expected = (-2 * (sigma**2 + smooth**2) * torch.log(torch.tensor(1 - share))).sqrt().item()
        assert radii == pytest.approx([expected] * len(radii), abs=0.5)  # points lie on tenths of a pixel


def test_a_map_that_reaches_the_border_has_a_closed_line() -> None:
    (line,) = mass_lines(torch.ones(6, 6), 0.99, smooth=0)
    assert line[0] == line[-1]


def test_nothing_around_nothing() -> None:
    assert mass_lines(torch.zeros(4, 4), 0.5) == []


def test_linear_colours_end_where_two_percent_of_the_mass_lie_beyond() -> None:
    values = torch.rand(50, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    (low, end), _ = color_ends([values])
    assert low == 0
    beyond = (values - end).clamp_min(0).sum() / values.sum()
    assert float(beyond) == pytest.approx(CLIPPED, rel=0.05)  # the end is one of the values


def test_a_concentrated_map_is_not_clipped_flat() -> None:
    # A percentile of the pixels would end at zero: 9 of 10,000 hold everything.
    values = torch.zeros(100, 100)
    values[50:53, 50:53] = torch.arange(1.0, 10.0).view(3, 3)
    assert color_ends([values])[0][1] > 8


def test_logarithmic_colours_span_four_decades_at_most() -> None:
    low, high = color_ends([torch.tensor([[1e-9, 1.0, 100.0]])])[1]
    assert (low, high) == (pytest.approx(0.01), 100.0)
    assert color_ends([torch.tensor([[1.0, 10.0]])])[1] == (1.0, 10.0)


def test_a_scale_for_several_maps_shows_the_largest() -> None:
    weak, strong = torch.full((4, 4), 1.0), torch.full((4, 4), 3.0)
    assert color_ends([weak, strong])[0] == (0.0, 3.0)


def test_negative_values_and_shares_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="values: "):
        mass_lines(-torch.ones(3, 3), 0.5)
    with pytest.raises(ValueError, match="share: "):
        mass_lines(torch.ones(3, 3), 1.5)
