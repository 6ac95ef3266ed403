"""Which of its pixels and colours a pixel attack tries: three ways to search the space of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Protocol

import torch
from torch import Tensor

from erfattr.robust.pixel_space import Candidates, PixelSpace

# F of Su et al.: how much of the difference of two members is added to a third.
_WEIGHT = 0.5


class PixelSearch(Protocol):
    """Proposes candidates, generation after generation, and may learn from how good they were."""

    generations: int
    """How many there are at most."""

    def propose(self, images: Tensor) -> Candidates:
        """Return the next generation for the images of these indices."""

    def observe(self, images: Tensor, values: Tensor) -> None:
        """Learn how good the generation was: (images, candidates), smaller is better."""


class DifferentialEvolution:
    """Differential evolution of pixels and colours as in Su et al.: DE/rand/1, no crossover.

    The first half of the first population has the corner colours farthest from the present ones, which allow
    the largest amplitude; the second half has random corner colours. A child is :math:`x_a + F (x_b - x_c)`
    of three other members of the population and replaces the member of its own index if it is no worse. A
    place outside the image is reflected, a colour outside the bounds clipped.

    Args:
        space: The pixels and colours.
        population_size: Candidates of each generation.
        generations: How many follow the first population.
        sensitivity: (H, W): the first population is that of `PixelSpace.ranked`, each pixel with the
            farthest corner colour; ``None``: it is drawn.
    """

    def __init__(
        self,
        space: PixelSpace,
        population_size: int,
        generations: int,
        sensitivity: Tensor | None = None,
    ) -> None:
        self.space = space
        self.size = population_size
        self.generations = 1 + generations
        self._sensitivity = sensitivity
        self._members: Tensor | None = None  # (N, population, k, 2 + C), all on the scale 0 to 1
        self._children: Tensor = torch.empty(0)
        self._values = torch.full((space.n_images, population_size), torch.inf, dtype=torch.float64)

    def propose(self, images: Tensor) -> Candidates:
        """Return the first population, later on the children."""
        if self._members is None:
            if self._sensitivity is None:
                ranks = self.space.draw_ranks(images, self.size)
            else:
                ranks = self.space.ranked(images, self._sensitivity, self.size)
            self._children = self._first(images, ranks)
            shape = (self.space.n_images, *self._children.shape[1:])
            self._members = torch.zeros(shape, dtype=torch.float64)
        else:
            members = self._members[images]
            trios = _others(self.space.random(images, self.size, 3))
            x_a, x_b, x_c = (_members_at(members, trios[..., i]) for i in range(3))
            children = x_a + _WEIGHT * (x_b - x_c)
            # Reflected at 0 and at 1, which no child is farther beyond than by a half.
            places = 1 - (1 - children[..., :2].abs()).abs()
            self._children = torch.cat([places, children[..., 2:].clamp(0, 1)], -1)
            ranks = self.space.nearest_rank(places)
        return self.space.candidates(images, ranks, self._children[..., 2:])

    def observe(self, images: Tensor, values: Tensor) -> None:
        """Keep the children that are no worse than their parents."""
        assert self._members is not None
        better = values <= self._values[images]
        self._members[images] = torch.where(better[..., None, None], self._children, self._members[images])
        self._values[images] = torch.where(better, values.double(), self._values[images])

    def _first(self, images: Tensor, ranks: Tensor) -> Tensor:
        pixels = self.space.allowed[ranks]
        size = torch.tensor([self.space.height, self.space.width])
        places = (torch.stack([pixels // self.space.width, pixels % self.space.width], -1) + 0.5) / size
        shades = self.space.farthest(images, ranks)
        if self._sensitivity is None:
            # Of one colour only, the children of an even image would never leave it.
            half = self.size // 2
            shades[:, half:] = self.space.random(images, self.size - half, *shades.shape[2:]).round()
        return torch.cat([places, shades], -1)


class RandomSearch:
    """Pixels drawn from the space, each with a random corner colour: all channels at one of their bounds."""

    def __init__(self, space: PixelSpace, sizes: Sequence[int]) -> None:
        self.space = space
        self.sizes = sizes
        self.generations = len(sizes)
        self._next = 0

    def propose(self, images: Tensor) -> Candidates:
        """Draw anew."""
        count = self.sizes[self._next]
        self._next += 1
        ranks = self.space.draw_ranks(images, count)
        corners = self.space.random(images, count, self.space.pixels, self.space.channels).round()
        return self.space.candidates(images, ranks, corners)

    def observe(self, images: Tensor, values: Tensor) -> None:
        """Learn nothing."""


class GradientSearch:
    """Pixels and corner colours in the order of the change that the gradient predicts (white box).

    In the linearised model a pixel moves the value by gradient times change of colour: eq. 12 with the
    image's own gradient in place of R. Each pixel comes with the corner colour that lowers the value most,
    the best pixel first; when all have been tried, each comes with its second-best corner, and so on. With
    k pixels a candidate takes the next k.

    Args:
        space: The pixels and colours.
        gradient: Of what is to be lowered with respect to the images, (N, C, H, W).
        sizes: Candidates of each generation.
    """

    def __init__(self, space: PixelSpace, gradient: Tensor, sizes: Sequence[int]) -> None:
        self.space = space
        span = space.upper - space.lower
        slopes = (gradient.detach().cpu().flatten(2).transpose(1, 2) * span)[:, space.allowed]
        present = space.present[:, space.allowed]
        ordered = [
            _in_order_of_effect(slopes_of_image, present_of_image, sum(sizes), space.pixels)
            for slopes_of_image, present_of_image in zip(slopes.double(), present, strict=True)
        ]
        self._ranks, self._corners = (torch.stack(parts) for parts in zip(*ordered, strict=True))
        count = self._ranks.shape[1]
        stops = [min(sum(sizes[: index + 1]), count) for index in range(len(sizes))]
        self._slices = [slice(*ends) for ends in pairwise([0, *stops]) if ends[0] < ends[1]]
        self.generations = len(self._slices)

    def propose(self, images: Tensor) -> Candidates:
        """Return the next in order."""
        part = self._slices.pop(0)
        return self.space.candidates(images, self._ranks[images, part], self._corners[images, part])

    def observe(self, images: Tensor, values: Tensor) -> None:
        """Learn nothing."""


def _in_order_of_effect(slopes: Tensor, present: Tensor, count: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Return ranks (count, k) and corners (count, k, C) of one image, or fewer where there are fewer.

    Args:
        slopes: Change of the value per change of each channel on the scale 0 to 1, (allowed pixels, C).
        present: The colours on that scale, (allowed pixels, C).
        count: Candidates wanted.
        pixels: k.
    """
    corners = torch.tensor(list(product((0.0, 1.0), repeat=slopes.shape[1])), dtype=torch.float64)
    # Corners of each pixel by their effect, (allowed pixels, 2^C): a column is a turn of all pixels.
    effects, corner_indices = ((corners - present[:, None]) * slopes[:, None]).sum(-1).sort(dim=1)
    per_turn = len(slopes) // pixels * pixels
    ranks, colors = [], []
    for effect, corner_index in zip(effects.T, corner_indices.T, strict=True):
        order = effect.argsort(stable=True)[:per_turn]
        ranks.append(order)
        colors.append(corners[corner_index[order]])
        if len(ranks) * per_turn >= count * pixels:
            break
    return (
        torch.cat(ranks).view(-1, pixels)[:count],
        torch.cat(colors).view(-1, pixels, slopes.shape[1])[:count],
    )


def _others(drawn: Tensor) -> Tensor:
    """Return, for each member of a population, three different others: (..., population, 3) indices."""
    size = drawn.shape[-2]
    chosen = torch.arange(size).expand(drawn.shape[:-1])[..., None]  # the member itself to begin with
    for index in range(3):
        # The j-th of those not chosen yet: counted on past every chosen one below it.
        choice = (drawn[..., index] * (size - 1 - index)).long()
        for other in chosen.sort(-1).values.unbind(-1):
            choice = choice + (choice >= other)
        chosen = torch.cat([chosen, choice[..., None]], -1)
    return chosen[..., 1:]


def _members_at(members: Tensor, indices: Tensor) -> Tensor:
    return members.gather(1, indices[..., None, None].expand(-1, -1, *members.shape[2:]))
