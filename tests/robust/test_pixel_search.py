"""The searches for pixels and colours, against their rules written out."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from erfattr.robust.pixel_search import DifferentialEvolution, GradientSearch, RandomSearch, _others
from erfattr.robust.pixel_space import PixelSpace


def space(images: Tensor | None = None, allowed: Tensor | None = None, pixels: int = 1) -> PixelSpace:
    if images is None:
        images = torch.rand(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if allowed is None:
        allowed = torch.ones(images.shape[2:], dtype=torch.bool)
    lower = torch.zeros(images.shape[1], dtype=images.dtype)
    return PixelSpace(images, lower, lower + 1, allowed, None, pixels, None, 0)


BOTH = torch.arange(2)


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
