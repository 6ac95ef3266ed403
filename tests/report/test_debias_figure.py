"""The figure of debiased attributions: what it compares, on which scale, and what it says of the grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from erfattr.report.debias_figure import DebiasedImage, draw_debiased, grid_change


def noise(seed: int) -> Tensor:
    return 0.5 + torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image(seed: int, before: float, after: float, label: str = "") -> DebiasedImage:
    """Attributions with a checkerboard of this contrast before and after."""
    grid = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(32, 32)
    values = noise(seed)
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))
    raw, debiased = (values * (1 + contrast * grid) for contrast in (before, after))
    return DebiasedImage(f"photo{seed}", picture, raw, -2 * debiased, 24, label)


def test_grid_that_is_gone_that_is_left_and_that_was_never_there() -> None:
    gone = grid_change([image(0, 0.5, 0.0)], 8)
    assert gone is not None
    assert gone.sentence.startswith("this image: a grid before; after it, none that is told from noise (")
    assert f"{gone.before.contrast:.3f} before, {gone.after.contrast:.3f} after" in gone.sentence
    left = grid_change([image(0, 0.5, 0.25), image(1, 0.5, 0.25)], 8)
    assert left is not None
    assert left.sentence.startswith("2 images: a grid before; after it, 49 % of its contrast is left (")
    assert left.after.without_noise / left.before.without_noise == pytest.approx(0.5, rel=0.03)
    never = grid_change([image(2, 0.0, 0.0)], 8)
    assert never is not None
    assert "no grid is told from noise, before or after" in never.sentence
    assert never.numbers()["told_from_noise_before"] is False


@pytest.mark.parametrize("period", [None, 1, 65])
def test_without_a_period_that_fits_there_is_no_answer(period: int | None) -> None:
    assert grid_change([image(0, 0.5, 0.0)], period) is None


def test_attributions_of_zeros_have_no_grid() -> None:
    empty = DebiasedImage("empty", torch.zeros(3, 16, 16), torch.zeros(1, 16, 16), torch.zeros(1, 16, 16), 3)
    assert grid_change([empty], 4) is None
    assert draw_debiased([empty], torch.ones(16, 16), 4).axes


def test_raw_and_debiased_share_scale_and_window() -> None:
    one = image(0, 0.5, 0.1, label="tabby cat")
    figure = draw_debiased([one], torch.ones(64, 64), 8, "a heading")
    photograph, raw, debiased, raw_pixels, debiased_pixels, *_ = figure.axes
    assert photograph.get_title(loc="left") == "photo0: tabby cat"
    np.testing.assert_array_equal(photograph.images[0].get_array(), one.image.permute(1, 2, 0))
    strengths = [values.numpy() for values in one.strengths()]
    scale = strengths[0].mean()
    for ax, values in zip((raw, debiased), strengths, strict=True):
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), values / scale, rtol=1e-12)
    limits = {ax.images[0].get_clim() for ax in (raw, debiased, raw_pixels, debiased_pixels)}
    assert len(limits) == 1
    windows = {tuple(ax.images[0].get_extent()) for ax in (raw_pixels, debiased_pixels)}
    ((left, right, bottom, top),) = windows
    assert (right - left, bottom - top) == (16, 16)  # two periods
    assert raw.patches[0].get_xy() == debiased.patches[0].get_xy() == (left, top)


def test_profiles_share_their_colours_and_the_headline_answers() -> None:
    figure = draw_debiased([image(0, 0.5, 0.0)], torch.ones(64, 64), 8)
    by_title = {ax.get_title(): ax for ax in figure.axes}
    before, after = by_title["phase profile before"], by_title["phase profile after"]
    assert before.images[0].get_clim() == after.images[0].get_clim()
    bars = by_title["contrast, line: noise"]
    change = grid_change([image(0, 0.5, 0.0)], 8)
    assert change is not None
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == [change.before.contrast, change.after.contrast]
    floors = [line.get_ydata()[0] for line in bars.lines]
    assert floors == [change.before.noise_floor, change.after.noise_floor]
    words = [text.get_text() for text in figure.texts]
    assert "this image: a grid before; after it, none that is told from noise" in words


def test_nothing_leaves_the_page_and_no_titles_meet() -> None:
    images = [image(seed, 0.5, 0.0, label="a class with a name that is long") for seed in range(2)]
    figure = draw_debiased(images, torch.ones(64, 64), 8, "a heading")
    assert figure.get_figwidth() * 25.4 == pytest.approx(170)
    figure.draw_without_rendering()
    for ax in figure.axes:
        box = ax.get_tightbbox()
        assert box is not None
        assert box.x0 >= -0.5
        assert box.x1 <= figure.bbox.width + 0.5
    for first in range(0, 10, 5):
        row = [ax.get_tightbbox() for ax in figure.axes[first : first + 4]]
        assert all(one.x1 <= other.x0 + 1 for one, other in itertools.pairwise(row) if one and other)
