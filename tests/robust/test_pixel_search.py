"""The space of pixels and colours, and the searches in it, against their rules written out."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from erfattr.robust.pixel_search import (
    DifferentialEvolution,
    GradientSearch,
    PixelSpace,
    RandomSearch,
    _others,
)


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


def test_three_others_are_different_and_equally_likely() -> None:
    # A population of 5 and draws at the middle of every equal part: each ordered trio of others comes once.
    parts = [(torch.arange(n) + 0.5) / n for n in (4, 3, 2)]
    counts: dict[tuple[int, ...], int] = {}
    for drawn in product(*parts):
        for member, trio in enumerate(_others(torch.stack(drawn).double().expand(5, 3)).tolist()):
            assert len({member, *trio}) == 4
            key = (member, *trio)
            counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 5 * 4 * 3 * 2
    assert set(counts.values()) == {1}


def test_children_follow_the_rule_and_replace_parents_that_are_no_better() -> None:
    chosen = space(pixels=2)
    search = DifferentialEvolution(chosen, population_size=6, generations=3)
    first = search.propose(BOTH)
    present = chosen.present[BOTH[:, None, None], first.pixels]
    assert torch.equal(first.colors[:, :3], (present < 0.5).double()[:, :3])
    assert set(first.colors[:, 3:].flatten().tolist()) == {0.0, 1.0}
    assert not torch.equal(first.colors[:, 3:], (present < 0.5).double()[:, 3:])
    values = torch.rand(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    search.observe(BOTH, values)
    parents = search._members.clone()  # type: ignore[union-attr]

    draws = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    chosen.random = lambda images, *shape: draws  # type: ignore[method-assign]
    second = search.propose(BOTH)
    trios = _others(draws)
    for image, member in product(range(2), range(6)):
        a, b, c = (parents[image, index] for index in trios[image, member])
        child = a + 0.5 * (b - c)
        for pixel in range(2):
            place = [abs(value) if value < 1 else 2 - value for value in child[pixel, :2].tolist()]
            expected = int(place[0] * 6) * 5 + int(place[1] * 5)
            if pixel == 0 or expected != second.pixels[image, member, 0]:
                assert second.pixels[image, member, pixel] == expected
            torch.testing.assert_close(
                second.colors[image, member, pixel], child[pixel, 2:].clamp(0, 1), rtol=1e-9, atol=1e-12
            )
    better = torch.tensor([True, False, True, True, False, False])
    search.observe(BOTH, torch.where(better, values, values + 1))  # as good counts as better
    for member in range(6):
        kept = torch.equal(search._members[:, member], parents[:, member])  # type: ignore[index]
        assert kept != bool(better[member])


def test_evolution_finds_the_minimum_of_a_bowl() -> None:
    chosen = space(torch.zeros(1, 3, 20, 30, dtype=torch.float64))
    search = DifferentialEvolution(chosen, population_size=40, generations=60)
    only = torch.tensor([0])
    best = torch.inf
    for _ in range(search.generations):
        tried = search.propose(only)
        y, x = tried.pixels[..., 0] // 30, tried.pixels[..., 0] % 30
        wanted = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
        values = (y - 7) ** 2 + (x - 22) ** 2 + ((tried.colors[:, :, 0] - wanted) ** 2).sum(-1)
        best = min(best, float(values.min()))
        search.observe(only, values)
    assert best < 1e-3


def test_gradient_search_goes_in_the_order_of_the_predicted_change() -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(2, 2, 3, 3, dtype=torch.float64, generator=generator)
    slopes = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=generator)
    search = GradientSearch(space(images), slopes, [5, 5, 5, 5])
    tried = [search.propose(BOTH) for _ in range(search.generations)]
    pixels = torch.cat([one.pixels for one in tried], 1)[..., 0]
    colors = torch.cat([one.colors for one in tried], 1)[:, :, 0]
    corners = torch.tensor(list(product((0.0, 1.0), repeat=2)), dtype=torch.float64)
    for image in range(2):
        changes = []
        for pixel in range(9):
            present, slope = (one[image].flatten(1)[:, pixel] for one in (images, slopes))
            effects = [(float(slope @ (corner - present)), pixel, corner.tolist()) for corner in corners]
            changes.append(sorted(effects))
        expected = [one for level in range(3) for one in sorted(change[level] for change in changes)][:20]
        assert pixels[image].tolist() == [pixel for _, pixel, _ in expected]
        assert colors[image].tolist() == [corner for _, _, corner in expected]


def test_gradient_search_takes_the_next_k_pixels_and_ends_with_its_list() -> None:
    images = torch.zeros(1, 1, 1, 5, dtype=torch.float64)
    slopes = torch.tensor([-3.0, -1.0, -5.0, -2.0, -4.0]).double().view(1, 1, 1, 5)
    search = GradientSearch(space(images, pixels=2), slopes, [3, 3])
    tried = [search.propose(torch.tensor([0])) for _ in range(search.generations)]
    # The four best at white, then black, which changes nothing here: all equal, in the order of the pixels.
    assert torch.cat([one.pixels for one in tried], 1).tolist() == [[[2, 4], [0, 3], [0, 1], [2, 3]]]


def test_random_search_tries_corners_of_allowed_pixels() -> None:
    allowed = torch.zeros(6, 5, dtype=torch.bool)
    allowed[:, 3] = True
    search = RandomSearch(space(allowed=allowed, pixels=2), [10, 7])
    sizes = []
    for _ in range(search.generations):
        tried = search.propose(BOTH)
        sizes.append(tried.pixels.shape[1])
        assert set((tried.pixels % 5).flatten().tolist()) == {3}
        assert set(tried.colors.flatten().tolist()) == {0.0, 1.0}
    assert sizes == [10, 7]
