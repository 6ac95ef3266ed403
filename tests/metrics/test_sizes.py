from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from erfattr.metrics.sizes import (
    AreaRatio,
    centroid,
    centroid_offset,
    mass_squares,
    radial_mass,
    replknet_area_ratio,
    size_scores,
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


# mass_squares


def test_squares_of_equal_pixels_are_counted_by_hand():
    ones = torch.ones(101, 101)
    # 0.2 of 10201 is 2040.2: 45^2 = 2025 is too little, 47^2 = 2209 enough; 55^2 = 3025 and 57^2 = 3249 about
    # 3060.3; 71^2 = 5041 and 73^2 about 5100.5; 99^2 = 9801 and 101^2 about 10099.
    assert mass_squares(ones, (50, 50)) == (47, 57, 73, 101)


def test_the_square_is_clipped_by_the_image_and_its_side_counts_in_full():
    ones = torch.ones(10, 10)
    # About the corner pixel, half side r + 1/2 holds (r + 1)^2 pixels: 25 for r = 4.
    assert mass_squares(ones, (0, 0), fractions=(0.01, 0.25, 1)) == (1, 9, 19)
    # One row above the image, (r) * (2 r + 1) pixels at most: the first at r = 1.
    assert mass_squares(ones, (-1, 5), fractions=(0.03,)) == (3,)


def test_a_centre_between_pixels_gives_even_sides_and_any_other_whole_pixels():
    ones = torch.ones(6, 6)
    assert mass_squares(ones, (2.5, 2.5), fractions=(4 / 36, 5 / 36, 1)) == (2, 4, 6)
    # Pixel 2 is 0.25 away, pixel 3 is 0.75 away: one pixel, then two by two.
    assert mass_squares(ones, (2.25, 2.25), fractions=(1 / 36, 4 / 36)) == pytest.approx((1.5, 2.5))


def test_shares_met_exactly_are_not_missed_by_rounding():
    # 0.3 is no binary fraction: sums of 0.3 over 9 pixels and 9/121 of the total differ in the last digit.
    fractions = [side**2 / 121 for side in (1, 3, 5, 7, 9, 11)]
    assert mass_squares(np.full((11, 11), 0.3), (5, 5), fractions) == (1, 3, 5, 7, 9, 11)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    center=st.tuples(st.floats(-2, 14), st.floats(-2, 14)),
    fraction=st.floats(0.01, 0.999),
    seed=st.integers(0, 10_000),
)
def test_the_square_holds_the_share_and_the_next_smaller_does_not(shape, center, fraction, seed):
    values = random_map(*shape, seed=seed)
    (side,) = mass_squares(values, center, fractions=(fraction,))

    def held(half: float) -> float:
        total = 0.0
        for y in range(shape[0]):
            for x in range(shape[1]):
                inside = abs(y - center[0]) + 0.5 <= half and abs(x - center[1]) + 0.5 <= half
                total += values[y, x].item() if inside else 0.0
        return total / values.sum().item()

    assert held(side / 2 + 1e-9) >= fraction - 1e-9
    assert held(side / 2 - 1e-9) < fraction + 1e-9


def test_a_gaussian_has_the_square_of_the_normal_distribution():
    # 50 % of the mass within +-h along both axes: erf(h / (sigma sqrt 2))^2 = 0.5, h = 1.0518 sigma.
    (side,) = mass_squares(bell((224, 224), (96, 96), (20, 20)), (96, 96), fractions=(0.5,))
    assert abs(side - 2 * 1.0518 * 20) <= 2


def test_measured_about_the_image_centre_the_square_would_be_larger():
    values = bell((224, 224), (96, 96), (20, 20))
    (at_unit,), (at_image,) = (
        mass_squares(values, center, fractions=(0.2,)) for center in ((96, 96), (112, 112))
    )
    assert at_unit < at_image


# radial_mass, centroid


def test_radial_mass_counts_pixels_within_the_radius():
    ones = torch.ones(11, 11)
    # Lattice points within 1, sqrt 2, 2, 5 of the origin: 5, 9, 13, 81.
    expected = (1 / 121, 5 / 121, 9 / 121, 13 / 121, 81 / 121, 1.0)
    assert radial_mass(ones, (5, 5), (0, 1, math.sqrt(2), 2, 5, 100)) == pytest.approx(expected, rel=1e-12)


def test_radial_mass_of_a_gaussian_follows_its_integral():
    values = bell((224, 224), (112, 112), (20, 20))
    found = radial_mass(values, (112, 112), (10, 20, 40))
    # Pixels counted whole: 317, 1257 and 5025 lattice points for areas of 314.2, 1256.6 and 5026.5.
    assert found == pytest.approx([1 - math.exp(-(r**2) / (2 * 20**2)) for r in (10, 20, 40)], abs=1.5e-3)


def test_centroid_is_the_mean_position():
    values = torch.zeros(5, 9)
    values[1, 2], values[3, 8] = 1.0, 3.0
    assert centroid(values) == (2.5, 6.5)
    assert centroid_offset(values, (2, 7)) == (0.5, -0.5)


def test_centroid_of_a_gaussian_at_an_aligned_unit_is_there_and_not_at_the_image_centre():
    assert centroid(bell((224, 224), (96, 96), (15, 15))) == pytest.approx((96, 96), abs=1e-6)


# replknet_area_ratio


def literal_replknet(scores: np.ndarray, threshold: float) -> int | None:
    """The published definition: grow a square about pixel (H // 2, W // 2) until it holds the share."""
    scores = np.log10(scores + 1)
    scores = scores / scores.max()
    middle = len(scores) // 2
    for i in range(1, middle):
        inside = [
            scores[y, x]
            for y in range(len(scores))
            for x in range(len(scores))
            if abs(y - middle) <= i and abs(x - middle) <= i
        ]
        if sum(inside) / scores.sum() > threshold:
            return 2 * i + 1
    return None


@pytest.mark.parametrize("height", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("size", [20, 21])
def test_replknet_sides_follow_the_published_definition(height, size):
    values = bell((size, size), (8, 9), (3, 4), height)
    for row in replknet_area_ratio(values):
        assert row.side == literal_replknet(values.numpy(), row.threshold)
        if row.side is not None:
            assert row.area_ratio == pytest.approx(row.side**2 / size**2, rel=1e-12)


def test_replknet_without_a_large_enough_square_says_none():
    # Squares below half the height stop at 3 of 4 pixels: 9 of 16.
    assert replknet_area_ratio(torch.ones(4, 4), (0.5, 0.9)) == (
        AreaRatio(0.5, 3, 9 / 16),
        AreaRatio(0.9, None, None),
    )


def test_replknet_is_not_scale_free_and_the_mass_squares_are():
    values = bell((224, 224), (112, 112), (30, 30))
    sides = [replknet_area_ratio(height * values, (0.5,))[0].side for height in (1e-3, 1e3)]
    assert sides == [65, 113]  # as the docstring says
    squares = [mass_squares(height * values, (112, 112), (0.5,)) for height in (1e-3, 1e3)]
    assert squares[0] == squares[1] == (65,)


# all scores: invariances, errors, caller untouched


@settings(max_examples=20)
@given(scale=st.floats(1e-12, 1e12), seed=st.integers(0, 10_000))
def test_scores_ignore_the_scale(scale, seed):
    values = random_map(13, 17, seed=seed)
    one, other = size_scores(values, (5, 6.5)), size_scores(scale * values, (5, 6.5))
    assert other.mass_squares == one.mass_squares
    assert other.radial_mass == pytest.approx(one.radial_mass, rel=1e-9)
    assert other.centroid == pytest.approx(one.centroid, rel=1e-9)


def test_scores_move_with_the_map():
    small = random_map(9, 9)
    here, there = torch.zeros(40, 40).double(), torch.zeros(40, 40).double()
    here[5:14, 6:15] = small
    there[20:29, 11:20] = small
    one, other = size_scores(here, (9, 10)), size_scores(there, (24, 15))
    assert other.mass_squares == one.mass_squares
    assert other.radial_mass == pytest.approx(one.radial_mass, rel=1e-9)
    assert other.centroid_offset == pytest.approx(one.centroid_offset, abs=1e-9)


def test_scores_gather_the_functions():
    values = random_map(30, 40)
    scores = size_scores(values, (12, 20), fractions=(0.5, 0.9), radii=(3, 8))
    assert scores.center == (12, 20)
    assert scores.shape == (30, 40)
    assert scores.centroid == centroid(values)
    assert scores.centroid_offset == centroid_offset(values, (12, 20))
    assert scores.mass_squares == mass_squares(values, (12, 20), (0.5, 0.9))
    assert scores.radial_mass == radial_mass(values, (12, 20), (3, 8))
    assert scores.replknet_area_ratio == replknet_area_ratio(values, (0.5, 0.9))
    assert (scores.fractions, scores.radii) == ((0.5, 0.9), (3, 8))
    assert json.loads(json.dumps(dataclasses.asdict(scores)))["shape"] == [30, 40]


ABOUT_A_CENTER = [mass_squares, radial_mass, centroid_offset, size_scores]


@pytest.mark.parametrize("function", [*ABOUT_A_CENTER, centroid, replknet_area_ratio])
@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        ("text", TypeError, "sensitivity_map: expected a map"),
        (torch.rand(2, 8, 8), ValueError, r"sensitivity_map: expected a map of shape \(H, W\)"),
        (torch.full((8, 8), math.nan), ValueError, "sensitivity_map: expected finite values"),
        (
            torch.rand(8, 8) - 5,
            ValueError,
            "sensitivity_map: expected no negative values, got a minimum of -",
        ),
        (torch.zeros(8, 8), ValueError, "sensitivity_map: expected some mass, got a map of zeros"),
    ],
)
def test_every_score_names_a_bad_map(function, bad, error, match):
    arguments = ((4, 4),) if function in ABOUT_A_CENTER else ()
    with pytest.raises(error, match=match):
        function(bad, *arguments)


@pytest.mark.parametrize("function", ABOUT_A_CENTER)
@pytest.mark.parametrize(
    ("center", "error", "match"),
    [
        (4, TypeError, "center: expected a sequence of numbers, got 4"),
        ("center", TypeError, "center: expected a sequence of numbers, got 'center'"),
        ((4, 4, 4), ValueError, r"center: expected \(y, x\), got \(4, 4, 4\)"),
        ((4, math.nan), ValueError, "center: expected finite numbers"),
    ],
)
def test_every_score_names_a_bad_centre(function, center, error, match):
    with pytest.raises(error, match=match):
        function(torch.rand(8, 8), center)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "match"),
    [
        (mass_squares, ((4, 4), ()), ValueError, "fractions: expected finite numbers"),
        (mass_squares, ((4, 4), (0.5, 0)), ValueError, r"fractions: expected a number in \(0, 1\], got 0"),
        (mass_squares, ((4, 4), 0.5), TypeError, "fractions: expected a sequence of numbers, got 0.5"),
        (radial_mass, ((4, 4), ()), ValueError, "radii: expected finite numbers"),
        (radial_mass, ((4, 4), (3, -1)), ValueError, "radii: expected no negative distance, got -1"),
        (radial_mass, ((4, 4), (None,)), TypeError, "radii: expected a sequence of numbers"),
        (replknet_area_ratio, ((),), ValueError, "thresholds: expected finite numbers"),
        (replknet_area_ratio, ((20,),), ValueError, r"thresholds: expected a number in \(0, 1\], got 20"),
        (replknet_area_ratio, (0.5,), TypeError, "thresholds: expected a sequence of numbers"),
    ],
)
def test_bad_settings_are_named(function, arguments, error, match):
    with pytest.raises(error, match=match):
        function(torch.rand(8, 8), *arguments)


def test_the_callers_map_is_untouched():
    values = random_map(48, 60)
    before = values.clone()
    size_scores(values, (20, 30))
    size_scores(values.numpy(), (20, 30))
    assert torch.equal(values, before)
