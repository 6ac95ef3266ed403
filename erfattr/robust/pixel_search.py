"""Which pixels and colours a pixel attack tries: what they are drawn from, and three ways to search it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

# Colours nearer than this, on the scale 0 to 1, are one: float32's rounding, far below a step of 8 bits.
_SAME = 1e-6
# F of Su et al.: how much of the difference of two members is added to a third.
_WEIGHT = 0.5


@dataclass(frozen=True)
class Candidates:
    """Changes to try: of each, k pixels and their new colours.

    Attributes:
        pixels: (images, candidates, k) int64, row-major index y * W + x; the k of one candidate differ.
        colors: (images, candidates, k, C), in the unit of the images, inside their bounds.
    """

    pixels: Tensor
    colors: Tensor


class PixelSpace:
    """The pixels that may be changed and the colours they may take, for each image of a batch.

    Everything drawn for an image comes from a random generator of its own, seeded by ``seed`` and the image's
    values, so it does not depend on the batch that the image is in.

    Args:
        images: (N, C, H, W), inside the bounds.
        lower: Smallest value of each channel, (C,).
        upper: Largest value of each channel, (C,).
        allowed: Pixels that may be changed, bool (H, W), at least ``pixels`` of them.
        weights: Pixels are drawn in proportion to these, (H, W), zero where not allowed; ``None``: equally.
        pixels: How many each candidate changes.
        levels: Values a channel may take, evenly from lower to upper bound; ``None``: any.
        seed: Of the random numbers.
    """

    def __init__(
        self,
        images: Tensor,
        lower: Tensor,
        upper: Tensor,
        allowed: Tensor,
        weights: Tensor | None,
        pixels: int,
        levels: int | None,
        seed: int,
    ) -> None:
        self.n_images, self.channels, self.height, self.width = images.shape
        self.pixels = pixels
        self.levels = levels
        self.lower, self.upper = lower.cpu(), upper.cpu()
        values = images.detach().cpu()
        self.generators = [_generator(seed, image) for image in values]
        span = (self.upper - self.lower).view(-1, 1)
        # (N, H * W, C), 0 at the lower bound and 1 at the upper.
        self.present = ((values.flatten(2) - self.lower.view(-1, 1)) / span).transpose(1, 2)
        self.allowed = allowed.cpu().flatten().nonzero()[:, 0]
        # Rank of every pixel's nearest allowed one among them.
        nearest = distance_transform_edt(~allowed.cpu().numpy(), return_distances=False, return_indices=True)
        index = torch.as_tensor(nearest[0] * self.width + nearest[1]).flatten().long()
        self.snapped = torch.searchsorted(self.allowed, index)
        chosen = torch.ones(len(self.allowed)) if weights is None else weights.cpu().flatten()[self.allowed]
        self._shares = chosen.double().cumsum(0) / chosen.double().sum()

    def random(self, images: Tensor, *shape: int) -> Tensor:
        """Return random numbers of [0, 1), ``shape`` of them for each image, from its own generator."""
        return torch.stack(
            [
                torch.rand(shape, generator=self.generators[image], dtype=torch.float64)
                for image in images.tolist()
            ]
        )

    def draw_ranks(self, images: Tensor, count: int) -> Tensor:
        """Draw pixels for ``count`` candidates, (len(images), count, k) ranks among the allowed ones.

        Drawn by strata: of all draws of an image each pixel gets its share, up to one. The strata are taken
        in a random order, and the place inside each is random, so strides of the network are not met.
        """
        total = count * self.pixels
        drawn = self.random(images, 2, total)
        strata = drawn[:, 0].argsort(dim=1)
        ranks = torch.searchsorted(self._shares, (strata + drawn[:, 1]) / total, right=True)
        return ranks.clamp(max=len(self.allowed) - 1).view(len(images), count, self.pixels)

    def ranked(self, images: Tensor, sensitivity: Tensor, count: int) -> Tensor:
        """Return pixels for ``count`` candidates in the order of eq. 12's effect, the largest first.

        The effect is the pixel's sensitivity times the largest amplitude that its present colour allows,
        summed over channels. When all pixels have had their turn they come again.

        Args:
            images: Indices of the images.
            sensitivity: (H, W).
            count: How many candidates.

        Returns:
            (len(images), count, k) ranks among the allowed pixels.
        """
        present = self.present[images][:, self.allowed]
        span = (self.upper - self.lower).to(present.dtype)
        amplitude = (torch.maximum(present, 1 - present) * span).sum(-1).double()
        effect = amplitude * sensitivity.cpu().double().flatten()[self.allowed]
        order = effect.sort(dim=1, descending=True, stable=True).indices
        turns = -(-count * self.pixels // order.shape[1])
        return order.repeat(1, turns)[:, : count * self.pixels].view(len(images), count, self.pixels)

    def nearest_rank(self, places: Tensor) -> Tensor:
        """Return the rank of the allowed pixel nearest to each place (..., 2), as fractions of H and W."""
        size = torch.tensor([self.height, self.width])
        y, x = (places * size).long().clamp(max=size - 1).unbind(-1)
        return self.snapped[y * self.width + x]

    def distinct(self, ranks: Tensor) -> Tensor:
        """Move pixels that a candidate holds twice on to the next allowed one; ``ranks`` is (..., k)."""
        columns = list(ranks.unbind(-1))
        for index in range(1, len(columns)):
            taken = torch.stack(columns[:index], -1)
            for _ in range(index):
                clash = (columns[index][..., None] == taken).any(-1)
                columns[index] = (columns[index] + clash) % len(self.allowed)
        return torch.stack(columns, -1)

    def farthest(self, images: Tensor, ranks: Tensor) -> Tensor:
        """Return, on the scale 0 to 1, the corner colour farthest from each pixel's present one."""
        return (self._present(images, self.allowed[ranks]) < 0.5).double()

    def candidates(self, images: Tensor, ranks: Tensor, shades: Tensor) -> Candidates:
        """Return what to try, for pixels by rank and colours on the scale 0 to 1.

        A colour that is the pixel's present one becomes the corner colour farthest from it: every
        candidate changes exactly k pixels.
        """
        pixels = self.allowed[self.distinct(ranks)]
        if self.levels is not None:
            shades = (shades * (self.levels - 1)).round() / (self.levels - 1)
        present = self._present(images, pixels)
        same = ((shades - present).abs() < _SAME).all(-1, keepdim=True)
        return Candidates(pixels, self._colors(torch.where(same, (present < 0.5).double(), shades)))

    def _present(self, images: Tensor, pixels: Tensor) -> Tensor:
        rows = images.view(-1, *[1] * (pixels.ndim - 1))
        return self.present[rows, pixels]

    def _colors(self, shades: Tensor) -> Tensor:
        # Not lower + shade * span, which misses the upper bound by a rounding.
        return (self.lower * (1 - shades) + self.upper * shades).to(self.lower.dtype)


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
            a, b, c = (_taken(members, trios[..., i]) for i in range(3))
            children = a + _WEIGHT * (b - c)
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
            _in_order_of_effect(*one, sum(sizes), space.pixels)
            for one in zip(slopes.double(), present, strict=True)
        ]
        self._ranks, self._corners = (torch.stack(parts) for parts in zip(*ordered, strict=True))
        count = self._ranks.shape[1]
        stops = [min(sum(sizes[: index + 1]), count) for index in range(len(sizes))]
        self._slices = [slice(*ends) for ends in zip([0, *stops], stops) if ends[0] < ends[1]]  # noqa: B905
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
    effects, which = ((corners - present[:, None]) * slopes[:, None]).sum(-1).sort(dim=1)
    whole = len(slopes) // pixels * pixels
    ranks, chosen = [], []
    for effect, corner in zip(effects.T, which.T, strict=True):
        order = effect.argsort(stable=True)[:whole]
        ranks.append(order)
        chosen.append(corners[corner[order]])
        if len(ranks) * whole >= count * pixels:
            break
    return (
        torch.cat(ranks).view(-1, pixels)[:count],
        torch.cat(chosen).view(-1, pixels, slopes.shape[1])[:count],
    )


def _generator(seed: int, image: Tensor) -> torch.Generator:
    # The generator would look at 32 bits of a longer seed only.
    values = image.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return torch.Generator().manual_seed(zlib.crc32(values, seed))


def _others(drawn: Tensor) -> Tensor:
    """Return, for each member of a population, three different others: (..., population, 3) indices."""
    size = drawn.shape[-2]
    taken = torch.arange(size).expand(drawn.shape[:-1])[..., None]
    for index in range(3):
        # The j-th of those not taken yet: counted on past every taken one below it.
        choice = (drawn[..., index] * (size - 1 - index)).long()
        for other in taken.sort(-1).values.unbind(-1):
            choice = choice + (choice >= other)
        taken = torch.cat([taken, choice[..., None]], -1)
    return taken[..., 1:]


def _taken(members: Tensor, indices: Tensor) -> Tensor:
    return members.gather(1, indices[..., None, None].expand(-1, -1, *members.shape[2:]))
