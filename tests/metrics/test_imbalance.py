from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from erfattr.metrics.imbalance import (
    imbalance_index,
    local_mean,
    phase_contrast,
    phase_profile,
    strong_pixels,
    weak_pixels,
)


def ones_convolution_map(kernel: int, padding: int, size: int = 32, crop: int = 4) -> Tensor:
    """Gradient of the sum of outputs of an all-ones stride-2 convolution, away from the border."""
    convolution = nn.Conv2d(1, 1, kernel, stride=2, padding=padding, bias=False, dtype=torch.float64)
    nn.init.ones_(convolution.weight)
    image = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(convolution(image).sum(), image)
    return gradient[0, 0, crop:-crop, crop:-crop]


def literal_index(sensitivity_map: Tensor, order: int) -> float:
    """Eq. 4 and 5 written as loops over pixels."""
    rows = sensitivity_map.tolist()
    height, width = len(rows), len(rows[0])
    total, terms = 0.0, 0
    for y in range(height):
        for x in range(width):
            if order == 1:
                along_y = [rows[y + 1][x] - rows[y][x]] if y + 1 < height else []
                along_x = [rows[y][x + 1] - rows[y][x]] if x + 1 < width else []
            else:
                along_y = [rows[y][x] - 2 * rows[y + 1][x] + rows[y + 2][x]] if y + 2 < height else []
                along_x = [rows[y][x] - 2 * rows[y][x + 1] + rows[y][x + 2]] if x + 2 < width else []
            for difference in along_y + along_x:
                total += abs(difference)
                terms += 1
    return total / terms


def random_map(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# imbalance_index: closed forms


@pytest.mark.parametrize(
    ("kernel", "padding", "first", "second", "mean"),
    [
        # Rows 1,0,1,0 / 0,0,0,0: in half of the rows (columns) every step is 1 and every second difference 2.
        (1, 0, 1 / 2, 1.0, 1 / 4),
        # Outer product of 1,2,1,2 with itself: steps of 1 (second differences of 2) times 1 or 2, mean 3/2.
        (3, 1, 3 / 2, 3.0, 9 / 4),
        # Every pixel is used twice along each axis: flat.
        (4, 1, 0.0, 0.0, 4.0),
        # 5 over 2: outer product of 3,2,3,2: steps of 1 times 2 or 3, mean 5/2.
        (5, 2, 5 / 2, 5.0, 25 / 4),
    ],
)
def test_all_ones_convolutions_have_the_index_worked_by_hand(kernel, padding, first, second, mean):
    sensitivity = ones_convolution_map(kernel, padding)
    assert sensitivity.mean().item() == mean
    assert imbalance_index(sensitivity, order=1).item() == first
    assert imbalance_index(sensitivity, order=2).item() == second
    assert imbalance_index(sensitivity, order=1, normalize="mean").item() == pytest.approx(
        first / mean, rel=1e-12
    )
    assert imbalance_index(sensitivity, order=2, normalize="mean").item() == pytest.approx(
        second / mean, rel=1e-12
    )


def test_a_slope_has_its_gradient_as_first_index_and_no_second_index():
    slope = 2.0 * torch.arange(5).double()[:, None] + 0.5 * torch.arange(9).double()
    # 4 * 9 vertical steps of 2 and 5 * 8 horizontal steps of 0.5.
    assert imbalance_index(slope, order=1).item() == pytest.approx((36 * 2 + 40 * 0.5) / 76, rel=1e-12)
    assert imbalance_index(slope, order=2).item() == 0.0


def test_one_pixel_counts_its_four_sides_over_the_number_of_terms_of_the_paper():
    sensitivity = torch.zeros(224, 224)
    sensitivity[100, 50] = 3.0
    assert imbalance_index(sensitivity, order=1).item() == pytest.approx(4 * 3 / (224 * 223 * 2), rel=1e-12)
    # Second differences along an axis that touch it: 3, -6, 3.
    assert imbalance_index(sensitivity, order=2).item() == pytest.approx(2 * 12 / (224 * 222 * 2), rel=1e-12)


# imbalance_index: oracle and invariances


@settings(max_examples=40)
@given(
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    seed=st.integers(0, 10_000),
    order=st.sampled_from([1, 2]),
)
def test_equals_the_loops_of_the_paper(height, width, seed, order):
    sensitivity = random_map(height, width, seed=seed)
    assert imbalance_index(sensitivity, order=order).item() == pytest.approx(
        literal_index(sensitivity, order), rel=1e-12
    )


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("normalize", ["none", "mean"])
def test_a_batch_equals_one_map_at_a_time(order, normalize):
    maps = random_map(2, 3, 6, 8)
    together = imbalance_index(maps, order=order, normalize=normalize)
    alone = [
        [imbalance_index(sensitivity, order=order, normalize=normalize).item() for sensitivity in row]
        for row in maps
    ]
    assert together.shape == (2, 3)
    torch.testing.assert_close(together, torch.tensor(alone, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_raw_index_scales_with_the_map_and_the_normalised_one_does_not(order):
    sensitivity = random_map(12, 10)
    raw, relative = (
        imbalance_index(sensitivity, order=order),
        imbalance_index(sensitivity, order=order, normalize="mean"),
    )
    torch.testing.assert_close(
        imbalance_index(1e-6 * sensitivity, order=order), 1e-6 * raw, rtol=1e-9, atol=0
    )
    torch.testing.assert_close(
        imbalance_index(1e-6 * sensitivity, order=order, normalize="mean"), relative, rtol=1e-9, atol=0
    )
    torch.testing.assert_close(imbalance_index(sensitivity + 5, order=order), raw, rtol=1e-9, atol=0)
    torch.testing.assert_close(relative * sensitivity.mean(), raw, rtol=1e-9, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_turning_or_mirroring_the_map_changes_nothing(order):
    sensitivity = random_map(7, 11)
    expected = imbalance_index(sensitivity, order=order)
    for other in (sensitivity.T, sensitivity.flip(0), sensitivity.flip(1), sensitivity.rot90()):
        torch.testing.assert_close(imbalance_index(other, order=order), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_every_real_dtype_gives_a_float64_index(dtype):
    sensitivity = torch.tensor([[0, 3], [5, 1]]).to(dtype)
    result = imbalance_index(sensitivity)
    assert result.dtype == torch.float64
    assert result.item() == (5 + 2 + 3 + 4) / 4


def test_numpy_maps_are_taken():
    assert imbalance_index(np.array([[0.0, 3.0], [5.0, 1.0]])).item() == 3.5


@pytest.mark.parametrize("order", [1, 2])
def test_the_smallest_map_has_an_index(order):
    size = order + 1
    sensitivity = torch.zeros(size, size)
    sensitivity[0, 0] = 4.0
    # One difference down and one across are not zero, of 2 * size * 1.
    assert imbalance_index(sensitivity, order=order).item() == 2 * 4 / (2 * size)


# strong and weak pixels


@settings(max_examples=50)
@given(
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    seed=st.integers(0, 10_000),
    levels=st.integers(2, 50),
    fraction=st.floats(0.3, 1.0),
)
def test_strong_and_weak_pixels_are_the_top_and_bottom_of_a_plain_sort(height, width, seed, levels, fraction):
    sensitivity = (random_map(height, width, seed=seed) * levels).floor()  # few levels: many ties
    sensitivity[0, 0], sensitivity[0, 1] = -1.0, levels + 1.0
    # The decimal that is written, times the pixels, a half up: what float multiplication gives depends on its
    # order (0.3 * 5 * 9 is below 13.5, 0.3 * 45 is not).
    product = Decimal(repr(fraction)) * height * width
    count = int(product.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    values = sensitivity.flatten().tolist()
    strongest = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    weakest = sorted(range(len(values)), key=lambda i: (values[i], i))[:count]
    assert strong_pixels(sensitivity, fraction).flatten().nonzero().flatten().tolist() == sorted(strongest)
    assert weak_pixels(sensitivity, fraction).flatten().nonzero().flatten().tolist() == sorted(weakest)


def test_halves_of_a_pixel_are_rounded_up_whatever_the_shape():
    for shape in ((5, 9), (9, 5), (3, 15), (45, 1)):
        sensitivity = random_map(*shape)
        assert strong_pixels(sensitivity, 0.3).sum() == 14  # 13.5
        assert weak_pixels(sensitivity, 0.5).sum() == 23  # 22.5
        assert strong_pixels(sensitivity, 0.7).sum() == 32  # 31.5, 31.499999999999996 in floating point


def test_ties_go_to_the_first_pixels_in_reading_order():
    sensitivity = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    assert strong_pixels(sensitivity, 0.5).tolist() == [[True, True, False], [False, True, False]]
    assert weak_pixels(sensitivity, 1 / 6).tolist() == [[False, False, True], [False, False, False]]


def test_half_the_pixels_strong_and_half_weak_cover_the_map_once():
    sensitivity = random_map(10, 14)
    assert torch.equal(strong_pixels(sensitivity, 0.5), ~weak_pixels(sensitivity, 0.5))


def test_strong_pixels_of_the_1_2_4_checkerboard_are_the_fours():
    sensitivity = ones_convolution_map(3, 1)
    assert torch.equal(strong_pixels(sensitivity, 0.25), sensitivity == 4)
    assert torch.equal(weak_pixels(sensitivity, 0.25), sensitivity == 1)


def test_all_pixels_are_marked_by_the_fraction_one():
    assert strong_pixels(random_map(3, 4), 1).all()


# phase_profile: closed forms


@pytest.mark.parametrize(
    ("kernel", "padding", "pattern", "contrast"),
    [
        (1, 0, [[4.0, 0.0], [0.0, 0.0]], math.sqrt(3)),
        (3, 1, [[4 / 9, 8 / 9], [8 / 9, 16 / 9]], math.sqrt(19) / 9),
        (4, 1, [[1.0, 1.0], [1.0, 1.0]], 0.0),
    ],
)
def test_all_ones_convolutions_give_back_their_pattern(kernel, padding, pattern, contrast):
    profile = phase_profile(ones_convolution_map(kernel, padding), period=2)
    torch.testing.assert_close(profile, torch.tensor(pattern, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert phase_contrast(profile) == pytest.approx(contrast, rel=1e-12, abs=1e-12)


def tiled(pattern: Tensor, height: int, width: int) -> Tensor:
    rows = torch.arange(height) % pattern.shape[0]
    columns = torch.arange(width) % pattern.shape[1]
    return pattern[rows][:, columns]


@settings(max_examples=60)
@given(
    periods=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    extra=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    seed=st.integers(0, 10_000),
)
def test_a_pure_pattern_comes_back_exactly_from_any_map_size(periods, extra, seed):
    pattern = random_map(*periods, seed=seed) + 1e-3
    sensitivity = 1e-7 * tiled(pattern, periods[0] + extra[0], periods[1] + extra[1])
    torch.testing.assert_close(
        phase_profile(sensitivity, periods), pattern / pattern.mean(), rtol=1e-9, atol=1e-12
    )


@settings(max_examples=60)
@given(
    periods=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    extra=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    slopes=st.tuples(*[st.floats(-0.9, 0.9)] * 3),
    seed=st.integers(0, 10_000),
)
def test_a_pattern_on_a_bilinear_slope_comes_back_exactly(periods, extra, slopes, seed):
    height, width = (3 * period - 2 + more for period, more in zip(periods, extra, strict=True))
    y = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, width, dtype=torch.float64)
    envelope = 3 + slopes[0] * y + slopes[1] * x + slopes[2] * y * x
    pattern = random_map(*periods, seed=seed) + 1e-3
    profile = phase_profile(envelope * tiled(pattern, height, width), periods)
    torch.testing.assert_close(profile, pattern / pattern.mean(), rtol=1e-9, atol=1e-12)


def test_the_checkerboard_comes_back_from_under_a_gaussian_at_an_aligned_centre():
    y, x = torch.arange(224.0, dtype=torch.float64)[:, None], torch.arange(224.0, dtype=torch.float64)
    gaussian = torch.exp(-((y - 96) ** 2 + (x - 96) ** 2) / (2 * 60**2))
    pattern = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64) / 2.25
    profile = phase_profile(gaussian * tiled(pattern, 224, 224), period=2)
    # Not exact: the envelope is curved, and (period / sigma)^2 = 0.001.
    torch.testing.assert_close(profile, pattern, rtol=0, atol=2e-5)


def test_a_long_period_under_a_gaussian_is_as_near_as_documented():
    y, x = torch.arange(224.0, dtype=torch.float64)[:, None], torch.arange(224.0, dtype=torch.float64)
    gaussian = torch.exp(-((y - 96) ** 2 + (x - 96) ** 2) / (2 * 60**2))
    row = torch.tensor([1.8, 0.5, 1.5, 0.5], dtype=torch.float64).repeat(8)
    pattern = torch.outer(row, row) / row.mean() ** 2
    profile = phase_profile(gaussian * tiled(pattern, 224, 224), period=32)
    error = (profile - pattern).square().mean().sqrt()
    assert error / phase_contrast(pattern) < 0.01


# phase_profile: oracle, invariances, limits


def literal_profile(sensitivity_map: Tensor, period: int) -> list[list[float]]:
    """The docstring in loops: mean over windows inside the map that contain the pixel, then fold."""
    values = sensitivity_map.numpy()
    height, width = values.shape
    margins = [period - 1 if size >= 3 * period - 2 else 0 for size in (height, width)]
    ratios: dict[tuple[int, int], list[float]] = {}
    for y in range(margins[0], height - margins[0]):
        for x in range(margins[1], width - margins[1]):
            windows = [
                values[top : top + period, left : left + period].mean()
                for top in range(max(0, y - period + 1), min(y, height - period) + 1)
                for left in range(max(0, x - period + 1), min(x, width - period) + 1)
            ]
            if np.mean(windows) > 0:
                ratios.setdefault((y % period, x % period), []).append(values[y, x] / np.mean(windows))
    profile = np.array([[np.mean(ratios[a, b]) for b in range(period)] for a in range(period)])
    return (profile / profile.mean()).tolist()


@pytest.mark.parametrize(
    ("shape", "period"), [((9, 13), 3), ((12, 7), 4), ((6, 5), 5), ((16, 16), 2), ((4, 4), 4)]
)
def test_profile_equals_the_loops_of_the_docstring(shape, period):
    sensitivity = random_map(*shape)
    torch.testing.assert_close(
        phase_profile(sensitivity, period),
        torch.tensor(literal_profile(sensitivity, period), dtype=torch.float64),
        rtol=1e-9,
        atol=1e-12,
    )


def test_regions_of_zeros_are_left_out_rather_than_counted():
    pattern = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
    sensitivity = torch.zeros(40, 40, dtype=torch.float64)
    sensitivity[:20, :20] = 0.1 * tiled(pattern, 20, 20)
    expected = torch.tensor(literal_profile(sensitivity, 2), dtype=torch.float64)
    torch.testing.assert_close(phase_profile(sensitivity, 2), expected, rtol=1e-9, atol=1e-12)


def test_profile_has_mean_one_and_ignores_scale():
    sensitivity = random_map(30, 30)
    profile = phase_profile(sensitivity, 4)
    assert profile.mean().item() == pytest.approx(1, rel=1e-12)
    torch.testing.assert_close(phase_profile(1e-8 * sensitivity, 4), profile, rtol=1e-9, atol=0)


def test_moving_the_map_by_a_pixel_moves_the_phase_by_one():
    pattern = random_map(3, 3)
    sensitivity = tiled(pattern, 24, 24)
    torch.testing.assert_close(
        phase_profile(sensitivity.roll((1, 2), (0, 1)), 3),
        phase_profile(sensitivity, 3).roll((1, 2), (0, 1)),
        rtol=1e-9,
        atol=0,
    )


def test_period_one_and_a_constant_map_have_no_pattern():
    assert phase_profile(random_map(5, 5), 1).tolist() == [[1.0]]
    assert phase_contrast(phase_profile(torch.full((9, 9), 0.3), 3)) == pytest.approx(0, abs=1e-12)


# errors, caller untouched


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("text",), TypeError, "sensitivity_map: expected a map of shape"),
        ((torch.rand(5),), ValueError, r"sensitivity_map: expected a map of shape .* got shape \(5,\)"),
        (
            (torch.tensor([[1.0, math.nan], [0.0, 1.0]]),),
            ValueError,
            "sensitivity_map: expected finite values, got 1",
        ),
        ((torch.rand(4, 4), 3), ValueError, "order: expected one of 1, 2, got 3"),
        ((torch.rand(4, 4), 1, "sum"), ValueError, "normalize: expected one of 'none', 'mean', got 'sum'"),
        (
            (torch.rand(1, 4),),
            ValueError,
            "sensitivity_map: expected at least 2 x 2 pixels for order=1, got 1 x 4",
        ),
        (
            (torch.rand(4, 2), 2),
            ValueError,
            "sensitivity_map: expected at least 3 x 3 pixels for order=2, got 4 x 2",
        ),
        ((torch.zeros(4, 4), 1, "mean"), ValueError, "sensitivity_map: expected a positive mean .* got 0"),
        (
            (torch.stack([torch.ones(4, 4), -torch.ones(4, 4)]), 1, "mean"),
            ValueError,
            "positive mean .* got -1",
        ),
    ],
)
def test_imbalance_index_says_what_is_wrong(arguments, error, match):
    with pytest.raises(error, match=match):
        imbalance_index(*arguments)


@pytest.mark.parametrize("function", [strong_pixels, weak_pixels])
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((None, 0.5), TypeError, "sensitivity_map: expected a map"),
        ((torch.rand(2, 4, 4), 0.5), ValueError, r"sensitivity_map: expected a map of shape \(H, W\)"),
        ((torch.rand(4, 4), "half"), TypeError, "fraction: expected a number in"),
        ((torch.rand(4, 4), 0.0), ValueError, "fraction: expected a number in"),
        ((torch.rand(4, 4), 1.5), ValueError, "fraction: expected a number in"),
        ((torch.rand(4, 4), 0.01), ValueError, "fraction: expected at least one of 16 pixels, got 0.01"),
        (
            (torch.zeros(4, 4), 0.5),
            ValueError,
            "sensitivity_map: expected pixels of different strength, got 0 everywhere",
        ),
    ],
)
def test_pixel_masks_say_what_is_wrong(function, arguments, error, match):
    with pytest.raises(error, match=match):
        function(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("text", 2), TypeError, "sensitivity_map: expected a map"),
        ((torch.rand(3, 8, 8), 2), ValueError, r"sensitivity_map: expected a map of shape \(H, W\)"),
        ((torch.full((8, 8), math.inf), 2), ValueError, "sensitivity_map: expected finite values"),
        ((torch.rand(8, 8), 2.0), TypeError, "period: expected a positive integer"),
        ((torch.rand(8, 8), (2, 2, 2)), TypeError, "period: expected an integer or"),
        ((torch.rand(8, 8), 0), ValueError, "period: expected a positive integer, got 0"),
        ((torch.rand(8, 8) - 2, 2), ValueError, "sensitivity_map: expected no negative values"),
        ((torch.rand(31, 64), 32), ValueError, "at least one period of 32 x 32 pixels, got 31 x 64"),
        ((torch.rand(64, 8), (2, 16)), ValueError, "at least one period of 2 x 16 pixels, got 64 x 8"),
        ((torch.zeros(8, 8), 2), ValueError, "got only zeros for 4 of 4 phases"),
    ],
)
def test_phase_profile_says_what_is_wrong(arguments, error, match):
    with pytest.raises(error, match=match):
        phase_profile(*arguments)


@pytest.mark.parametrize(
    ("profile", "error", "match"),
    [
        ("text", TypeError, "profile: expected a map"),
        (torch.ones(4), ValueError, "profile: expected a map of shape"),
        (torch.tensor([[math.nan]]), ValueError, "profile: expected finite values"),
        (torch.full((4, 4), 3.0), ValueError, "profile: expected a phase profile with mean 1, got mean 3"),
    ],
)
def test_phase_contrast_says_what_is_wrong(profile, error, match):
    with pytest.raises(error, match=match):
        phase_contrast(profile)


def test_the_callers_map_is_untouched():
    sensitivity = random_map(9, 9)
    before = sensitivity.clone()
    imbalance_index(sensitivity, order=2, normalize="mean")
    strong_pixels(sensitivity, 0.1)
    weak_pixels(sensitivity, 0.1)
    phase_profile(sensitivity, 3)
    assert torch.equal(sensitivity, before)


@pytest.mark.parametrize("period", [1, 2, 3, (2, 4)])
def test_local_mean_is_the_mean_over_all_windows_that_hold_the_pixel(period: int | tuple[int, int]) -> None:
    values = torch.rand(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    down, across = period if isinstance(period, tuple) else (period, period)
    found = local_mean(values, period)
    for y in range(7):
        for x in range(9):
            windows = [
                values[top : top + down, left : left + across].mean().item()
                for top in range(max(0, y - down + 1), min(y, 7 - down) + 1)
                for left in range(max(0, x - across + 1), min(x, 9 - across) + 1)
            ]
            assert found[y, x].item() == pytest.approx(sum(windows) / len(windows), rel=1e-9)


def test_local_mean_refuses_what_the_profile_refuses() -> None:
    with pytest.raises(ValueError, match="sensitivity_map: expected no negative values"):
        local_mean(-torch.ones(4, 4), 2)
    with pytest.raises(ValueError, match="sensitivity_map: expected at least one period"):
        local_mean(torch.ones(4, 4), 5)
    with pytest.raises(TypeError, match="period: expected an integer or"):
        local_mean(torch.ones(4, 4), (2, 2, 2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sensitivity_map: expected a map"):
        local_mean("map", 2)
