"""One-pixel attacks: change few pixels of an image so that its class changes, aimed or not."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from torch import Tensor

from erfattr._checks import as_map, check_choice, check_non_negative_int, check_positive_int
from erfattr.metrics.ranking import first_pixels
from erfattr.robust._pixel_attack import PixelAttack
from erfattr.robust.pixel_search import (
    DifferentialEvolution,
    GradientSearch,
    PixelSearch,
    RandomSearch,
)
from erfattr.robust.pixel_space import PixelSpace
from erfattr.robust.pixel_trials import Trials

# Candidates that a search without memory proposes at a time.
_GENERATION = 128


@dataclass(eq=False, repr=False)
class OnePixelAttack(PixelAttack):
    r"""Differential evolution of one pixel, or few, that changes the class (Su et al., black box).

    A candidate is k positions and their colours; what is minimised is the output of the target class less
    the largest other output (targeted: the other way round), below zero where the attack succeeds. Child i
    of a generation is :math:`x_a + 0.5 (x_b - x_c)` of three other candidates, without crossover, and
    replaces candidate i if it is no worse. Population, generations and the rule are those of Su et al. The
    first colours are not: they draw them from a normal distribution; here the first half of the population
    begins with the corner colour (every channel at one of its bounds) that is farthest from the pixel's
    present one, the largest amplitude of eq. 12, and the second half with random corner colours.

    All images of a call are evolved together, in full batches; each stops at its first success. The result
    for an image depends on ``seed`` and the image, not on the other images. Success says nothing about what a
    person would see, and failure does not prove that no such pixel exists.

    Args:
        forward_func: The network, returning logits (N, classes): a module, which is run in evaluation mode
            and comes back as it was, or another callable.
        lower_bound: Smallest value an image may have: a number, or one for each channel.
        upper_bound: Largest value, likewise. Of images normalised by ``mean`` and ``std`` the bounds are
            (0 - mean) / std and (1 - mean) / std.
        pixels: How many pixels to change.
        mask: Pixels that may be changed, bool (H, W); by default all.
        levels: Values a channel may take, evenly between the bounds: 256 for images of 8 bits; by
            default any.
        max_batch_size: Largest number of samples in a forward pass.
        check_every: Candidates of one image between two looks at whether it is done. Fewer save queries; more
            fill the batches when few images are left.
        seed: Of the random numbers, from 0.
        execution: How a module is run; by default on a folded, channels-last copy, and every success once
            more on the module itself.
        population_size: Candidates of each generation, at least 4.
        max_generations: Generations after the first population.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: a number is out of its range, or the lower bound not below the upper one.

    Example:
        Class 1 wins where the left half of an image sums up to more than 0.5: one pixel of 1 is enough.

        >>> import torch
        >>> model = lambda x: torch.stack([x.sum((1, 2, 3)) * 0 + 0.5, x[..., :4].sum((1, 2, 3))], 1)
        >>> attack = OnePixelAttack(model, 0.0, 1.0)
        >>> adversarial, report = attack.perturb(torch.zeros(1, 1, 8, 8), target=0, return_report=True)
        >>> model(adversarial), report.colors.item(), bool(report.positions[0, 0, 1] < 4)
        (tensor([[0.5000, 1.0000]]), 1.0, True)

    References:
        J. Su, D. V. Vargas, K. Sakurai: One Pixel Attack for Fooling Deep Neural Networks, 2019.
    """

    _: KW_ONLY
    population_size: int = 400
    max_generations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_int("population_size", self.population_size)
        if self.population_size < 4:
            raise ValueError(f"population_size: expected at least 4 candidates, got {self.population_size}")
        check_non_negative_int("max_generations", self.max_generations)

    def _search(self, space: PixelSpace, _trials: Trials, /) -> PixelSearch:
        return DifferentialEvolution(space, self.population_size, self.max_generations)


@dataclass(eq=False, repr=False)
class StrongPixelAttack(OnePixelAttack):
    """`OnePixelAttack` on the pixels that a sensitivity map calls strong.

    By eq. 12 a change of a pixel moves the output by amplitude times R, so a strong pixel moves it farther.
    Candidates are restricted to the strongest ``fraction`` of the pixels. A position between these is moved
    to the nearest of them, so neighbours in the search stay neighbours in the image.

    ``sampling`` says what the first population is; its children go where their parents' differences lead:

    - ``"uniform"``: drawn among these pixels with equal chance;
    - ``"proportional"``: drawn in proportion to the map;
    - ``"ranked"``: not drawn, but the pixels of the largest amplitude x R, the most that eq. 12 lets each
      pixel do, in this order and with the corner colour farthest from the present one. With
      ``max_generations=0`` that is a plain list of ``population_size`` candidates and no search.

    Where aiming helps and where it does not is measured in the documentation.

    Args:
        forward_func: As in `OnePixelAttack`, and so all that is not named here.
        sensitivity_map: R, (H, W) of the images' size, such as a `DeadPixelMap`.
        lower_bound: As in `OnePixelAttack`.
        upper_bound: As in `OnePixelAttack`.
        fraction: Share of the allowed pixels to keep, in (0, 1]: the strongest.
        sampling: ``"uniform"``, ``"proportional"`` or ``"ranked"``: the first population, see above.
        mask: Pixels that may be changed, bool (H, W), of which the strongest are kept; by default all.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: as in `OnePixelAttack`; ``fraction`` is outside (0, 1] or keeps no pixel; unknown
            ``sampling``; the map is not (H, W) or not finite, or not positive where it is to be drawn from in
            proportion; map and mask differ in size.

    Example:
        >>> import torch
        >>> model = lambda x: torch.stack([x.sum((1, 2, 3)) * 0 + 0.5, x[..., :4].sum((1, 2, 3))], 1)
        >>> R = torch.tensor([1.0, 0.0]).repeat_interleave(4).repeat(8, 1)
        >>> attack = StrongPixelAttack(model, R, 0.0, 1.0, fraction=0.5)
        >>> attack.perturb(torch.zeros(1, 1, 8, 8), target=0).nonzero()[:, 3] < 4
        tensor([True])
    """

    sensitivity_map: Any
    _: KW_ONLY
    fraction: float = 0.25
    sampling: Literal["uniform", "proportional", "ranked"] = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sensitivity_map = as_map("sensitivity_map", self.sensitivity_map).detach().cpu().double()
        check_choice("sampling", self.sampling, ("uniform", "proportional", "ranked"))
        size = tuple(self.sensitivity_map.shape)
        if self.mask is not None and tuple(self.mask.shape) != size:
            raise ValueError(f"mask: expected the map's {size}, got {tuple(self.mask.shape)}")
        self._strongest = first_pixels(self.sensitivity_map, self.fraction, mask=self.mask)
        if self.sampling == "proportional":
            drawn_from = self.sensitivity_map[self._strongest]
            if not bool((drawn_from >= 0).all()) or not bool((drawn_from > 0).any()):
                raise ValueError(
                    "sensitivity_map: expected values not below zero and some above for "
                    f'sampling="proportional", got {drawn_from.min():g} to {drawn_from.max():g}'
                )
            self._strongest &= self.sensitivity_map > 0

    def _allowed(self, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        if tuple(self.sensitivity_map.shape) != size:
            raise ValueError(
                f"sensitivity_map: expected the images' {size}, got {tuple(self.sensitivity_map.shape)}"
            )
        return self._strongest, self.sensitivity_map if self.sampling == "proportional" else None

    def _search(self, space: PixelSpace, _trials: Trials, /) -> PixelSearch:
        ranked = self.sensitivity_map if self.sampling == "ranked" else None
        return DifferentialEvolution(space, self.population_size, self.max_generations, ranked)


@dataclass(eq=False, repr=False)
class RandomPixelAttack(PixelAttack):
    """The baseline without a search: pixels drawn at random, each with a random corner colour (black box).

    Args:
        forward_func: As in `OnePixelAttack`, and so all that is not named here.
        lower_bound: As in `OnePixelAttack`.
        upper_bound: As in `OnePixelAttack`.
        max_candidates: Candidates for each image.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: a number is out of its range, or the lower bound not below the upper one.

    Example:
        >>> import torch
        >>> model = lambda x: torch.stack([x.sum((1, 2, 3)) * 0 + 0.5, x[..., :4].sum((1, 2, 3))], 1)
        >>> attack = RandomPixelAttack(model, 0.0, 1.0, max_candidates=100)
        >>> attack.perturb(torch.zeros(1, 1, 8, 8), target=0).sum()
        tensor(1.)
    """

    _: KW_ONLY
    max_candidates: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_int("max_candidates", self.max_candidates)

    def _search(self, space: PixelSpace, _trials: Trials, /) -> PixelSearch:
        return RandomSearch(space, self._sizes())

    def _sizes(self) -> list[int]:
        """Return the sizes of generations: small, since drawing what is not tried any more is lost time."""
        starts = range(0, self.max_candidates, _GENERATION)
        return [min(_GENERATION, self.max_candidates - start) for start in starts]


@dataclass(eq=False, repr=False)
class GradientPixelAttack(RandomPixelAttack):
    """The reference that sees the gradient (white box): pixels in the order of the change that it predicts.

    One backward pass gives the linearised model of each image. Every pixel is tried with the corner colour
    that lowers the linearised value most, the best pixel first; then with its second-best corner, and so on.

    The arguments are those of `RandomPixelAttack`; ``seed`` changes nothing. Of the queries, one for each
    image is the pass that gives the gradient.

    Raises:
        TypeError: as in `RandomPixelAttack`.
        ValueError: as in `RandomPixelAttack`.

    Example:
        >>> import torch
        >>> model = lambda x: torch.stack([x.sum((1, 2, 3)) * 0 + 0.5, x[..., :4].sum((1, 2, 3))], 1)
        >>> attack = GradientPixelAttack(model, 0.0, 1.0, check_every=1)
        >>> attack.perturb(torch.zeros(1, 1, 8, 8), target=0, return_report=True)[1].queries
        tensor([3])
    """

    def _search(self, space: PixelSpace, trials: Trials, /) -> PixelSearch:
        return GradientSearch(space, trials.slopes(trials.running()), self._sizes())
