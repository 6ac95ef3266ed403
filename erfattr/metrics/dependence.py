"""Whether the images of a map are independent draws, on which every standard error stands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from erfattr.metrics.statistics import MapStatistics

# Fewer groups cannot be put into enough orders.
_FEWEST_GROUPS = 6
_ORDERS = 5000
# What makes a warning: images that are alike beyond chance and by more than this much; groups whose means
# differ by less than this share of what independent images would make, or by more than so many times that.
_CHANCE = 0.002  # below that eight images in a row cannot be told: they make two blocks of groups
_ALIKE = 0.15
_TOO_EQUAL = 0.25
_TOO_UNEQUAL = 3.0


class DependentImagesWarning(UserWarning):
    """Images of a map resemble each other, so its standard errors are too small."""


class Dependence(NamedTuple):
    """How much the images of a map depend on each other, as their interleaved groups show it.

    Attributes:
        correlation: Of groups that lie ``apart`` from each other, above that of any two: 0 for independent
            images, towards 1 where each image comes several times, as the frames of a video do.
        apart: How far in the sequence they lie apart: the distance at which they are most alike.
        chance: Share of other orders of the groups whose correlation is as large; 1 where it is too small to
            matter.
        spread: Variance of the group means over that which the scatter of single images gives them: 1 for
            independent images, 0 where every group has the same images.
    """

    correlation: float
    apart: int
    chance: float
    spread: float

    @property
    def warning(self) -> str:
        """What to say of it; empty where there is no reason."""
        if self.spread < _TOO_EQUAL:
            seen = f"groups of images are nearly equal (they vary by {self.spread:.2f} of what they should)"
        elif self.chance < _CHANCE and self.correlation > _ALIKE:
            which = "that follow each other" if self.apart == 1 else f"{self.apart} apart in their order"
            seen = f"images {which} are alike (correlation {self.correlation:.2f})"
        elif self.spread > _TOO_UNEQUAL:
            seen = (
                f"images of a group are alike (the groups vary by {self.spread:.1f} times what they should)"
            )
        else:
            return ""
        return (
            f"inputs: {seen}, so standard errors are too small; name what belongs together with group=, such "
            "as the folder of a video's frames"
        )


def dependence(stats: MapStatistics) -> Dependence | None:
    """Measure it; ``None`` where there are fewer than six groups, or all images have the same map."""
    groups = len(stats.group_sizes)
    if groups < _FEWEST_GROUPS or stats.n_images < 2 * groups:
        return None
    sizes = torch.tensor(stats.group_sizes, dtype=torch.float64)
    scaled = ((stats.group_means - stats.mean) * sizes.sqrt()[:, None, None]).flatten(1)
    of_one_image = float(stats.standard_error.square().sum() * stats.n_images)
    if not of_one_image > 1e-12 * float(stats.mean.square().sum()):
        return None
    products = (scaled @ scaled.T).numpy()
    spread = float(np.trace(products)) / (groups - 1) / of_one_image
    if not spread > 1e-12:
        return Dependence(0.0, 1, 1.0, 0.0)
    products /= np.trace(products)
    partners = [np.roll(np.arange(groups), apart) for apart in range(1, groups // 2 + 1)]

    def alike(order: np.ndarray) -> list[float]:
        """Correlation of the groups in this order, by how far they lie apart."""
        return [float(products[order, order[partner]].sum()) for partner in partners]

    seen = alike(np.arange(groups))
    apart = int(np.argmax(seen)) + 1
    correlation = max(seen) + 1 / (groups - 1)
    if correlation <= _ALIKE:
        return Dependence(correlation, apart, 1.0, spread)
    # Independent images make the groups exchangeable, so every order of them is as likely as this one.
    generator = np.random.default_rng(0)
    others = np.array([alike(generator.permutation(groups)) for _ in range(_ORDERS)])
    # Neighbours are asked about by themselves: of all distances, theirs is the one to expect.
    as_alike = min(int((others[:, 0] >= seen[0]).sum()), int((others.max(1) >= max(seen)).sum()))
    return Dependence(correlation, apart, (1 + as_alike) / (1 + _ORDERS), spread)
