"""Which pixels a pixel attack may change and what they may become, and how both are drawn."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

# Colours nearer than this, on the scale 0 to 1, are one: float32's rounding, far below a step of 8 bits.
_SAME = 1e-6


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
        # Of every pixel the nearest allowed one, as its rank among them: they are in order, and it is there.
        nearest = distance_transform_edt(~allowed.cpu().numpy(), return_distances=False, return_indices=True)
        index = torch.as_tensor(nearest[0] * self.width + nearest[1]).flatten().long()
        self.snapped = torch.searchsorted(self.allowed, index)
        if weights is None:
            chances = torch.ones(len(self.allowed), dtype=torch.float64)
        else:
            chances = weights.cpu().flatten()[self.allowed].double()
        self._shares = chances.cumsum(0) / chances.sum()

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
        turns = math.ceil(count * self.pixels / order.shape[1])
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
            earlier = torch.stack(columns[:index], -1)
            # Each step may run into another of the earlier ones, so as many steps as there are of these.
            for _ in range(index):
                clash = (columns[index][..., None] == earlier).any(-1)
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


def _generator(seed: int, image: Tensor) -> torch.Generator:
    # The generator would look at 32 bits of a longer seed only.
    values = image.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return torch.Generator().manual_seed(zlib.crc32(values, seed))
