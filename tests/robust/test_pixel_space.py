"""The space of pixels and colours, against its rules written out."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from erfattr.robust.pixel_space import PixelSpace


def space(
    images: Tensor | None = None,
    allowed: Tensor | None = None,
    weights: Tensor | None = None,
    pixels: int = 1,
    levels: int | None = None,
    seed: int = 0,
) -> PixelSpace:
    if images is None:
        images = torch.rand(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if allowed is None:
        allowed = torch.ones(images.shape[2:], dtype=torch.bool)
    lower = torch.zeros(images.shape[1], dtype=images.dtype)
    return PixelSpace(images, lower, lower + 1, allowed, weights, pixels, levels, seed)


BOTH = torch.arange(2)


def test_as_many_draws_as_pixels_take_each_once_and_twice_as_many_each_twice() -> None:
    for times in (1, 2):
        ranks = space().draw_ranks(BOTH, 30 * times)
        for image in ranks:
            assert image.flatten().bincount().tolist() == [times] * 30
        assert not torch.equal(ranks[0], ranks[1])
        assert not torch.equal(ranks[0].flatten(), torch.arange(30).repeat_interleave(times))


def test_draws_are_in_proportion_to_weights() -> None:
    weights = torch.zeros(6, 5)
    weights[1, 2], weights[3, 4], weights[5, 0] = 1, 2, 5
    drawn = space(allowed=weights > 0, weights=weights)
    counts = drawn.draw_ranks(BOTH, 80)[0].flatten().bincount()
    # By strata: at most one draw more or less at each border between two pixels.
    assert (counts - torch.tensor([10, 20, 50])).abs().max() <= 1
    pixels = drawn.candidates(BOTH, drawn.draw_ranks(BOTH, 80), torch.ones(2, 80, 1, 3)).pixels
    assert set(pixels.flatten().tolist()) == {7, 19, 25}


def test_ranked_pixels_come_again_when_all_had_their_turn() -> None:
    images = torch.zeros(1, 1, 6, 5, dtype=torch.float64)
    sensitivity = torch.arange(30.0).view(6, 5)
    allowed = sensitivity >= 26
    ranks = space(images, allowed=allowed, pixels=3).ranked(torch.tensor([0]), sensitivity, 2)
    assert ranks.tolist() == [[[3, 2, 1], [0, 3, 2]]]
    # An amplitude of a half instead of a whole puts pixel 29 behind all but itself.
    images[0, 0, 5, 4] = 0.5
    ranks = space(images, allowed=allowed).ranked(torch.tensor([0]), sensitivity, 4)
    assert ranks.flatten().tolist() == [2, 1, 0, 3]


def test_place_is_moved_to_the_nearest_allowed_pixel() -> None:
    allowed = torch.zeros(6, 5, dtype=torch.bool)
    allowed[0, 0] = allowed[2, 4] = allowed[5, 1] = True
    chosen = space(allowed=allowed)
    pixels = allowed.nonzero()
    for y, x in product(range(6), range(5)):
        for inside in (0.0, 0.5, 0.99):
            place = torch.tensor([(y + inside) / 6, (x + inside) / 5], dtype=torch.float64)
            rank = int(chosen.nearest_rank(place))
            distances = ((pixels - torch.tensor([y, x])) ** 2).sum(1)
            assert distances[rank] == distances.min()


def test_every_place_is_its_own_pixel_where_all_are_allowed() -> None:
    y, x = torch.meshgrid(torch.arange(6), torch.arange(5), indexing="ij")
    places = torch.stack([(y + 0.5) / 6, (x + 0.5) / 5], -1).double()
    assert torch.equal(space().nearest_rank(places), torch.arange(30).view(6, 5))


def test_pixels_of_a_candidate_are_made_different() -> None:
    ranks = torch.tensor([[4, 4, 4], [29, 29, 0], [7, 3, 7], [1, 2, 3], [0, 1, 0]])
    expected = [[4, 5, 6], [29, 0, 1], [7, 3, 8], [1, 2, 3], [0, 1, 2]]
    assert space(pixels=3).distinct(ranks).tolist() == expected


def test_colours_reach_the_bounds_exactly_and_keep_to_the_levels() -> None:
    images = torch.full((1, 2, 2, 2), 0.3)
    lower, upper = torch.tensor([-2.1179039478302, -1.8]), torch.tensor([2.2489083766937, 2.6400001049041])
    allowed = torch.ones(2, 2, dtype=torch.bool)
    shades = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.4, 0.9]]).view(1, 3, 1, 2)
    ranks = torch.zeros(1, 3, 1, dtype=torch.int64)
    first = torch.zeros(1, dtype=torch.int64)
    free = PixelSpace(images, lower, upper, allowed, None, 1, None, 0).candidates(first, ranks, shades)
    assert free.colors[0, :2, 0].tolist() == [
        [lower[0].item(), upper[1].item()],
        [upper[0].item(), lower[1].item()],
    ]
    three = PixelSpace(images, lower, upper, allowed, None, 1, 3, 0).candidates(first, ranks, shades)
    assert torch.equal(three.colors[0, 2, 0], torch.stack([(lower[0] + upper[0]) / 2, upper[1]]))


def test_present_colour_becomes_the_farthest_corner() -> None:
    images = torch.tensor([0.2, 0.7, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2).double()
    shades = torch.tensor([[0.2, 0.7, 0.0], [0.2, 0.7, 0.1]], dtype=torch.float64).view(1, 2, 1, 3)
    ranks = torch.zeros(1, 2, 1, dtype=torch.int64)
    colors = space(images).candidates(torch.tensor([0]), ranks, shades).colors
    assert colors[0, 0, 0].tolist() == [1.0, 0.0, 1.0]
    assert colors[0, 1, 0].tolist() == pytest.approx([0.2, 0.7, 0.1])


def test_draws_depend_on_the_image_and_not_on_its_place() -> None:
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    together = space(images).random(torch.arange(3), 5)
    for image in range(3):
        assert torch.equal(space(images[image : image + 1]).random(torch.tensor([0]), 5)[0], together[image])
    assert len({row.tolist()[0] for row in together}) == 3
    assert not torch.equal(space(images, seed=1).random(torch.arange(3), 5), together)
