"""What is run on the model and what is counted, seen by a spy in the model's place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erfattr.robust.pixel_attacks import (
    GradientPixelAttack,
    OnePixelAttack,
    RandomPixelAttack,
    StrongPixelAttack,
)

LOWER, UPPER = (-1.0, -2.0, 0.0), (1.0, 3.0, 0.5)
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(4, 3, 7, 6, dtype=torch.float64, generator=GENERATOR)
MAP = torch.rand(7, 6, dtype=torch.float64, generator=GENERATOR) + 0.1
MASK = torch.rand(7, 6, generator=GENERATOR) < 0.5


def some_images(count: int) -> Tensor:
    """Images of which each has one value of its own everywhere, so that a changed row shows whose it is."""
    low, high = (torch.tensor(bound, dtype=torch.float64).view(3, 1, 1) for bound in (LOWER, UPPER))
    shade = torch.linspace(0.2, 0.8, count, dtype=torch.float64).view(-1, 1, 1, 1)
    return (low + (high - low) * shade).expand(-1, -1, 7, 6).clone()


class Spy:
    """A linear model, ``firm`` if class 0 wins whatever one does; keeps all it was asked."""

    def __init__(self, firm: bool = False) -> None:
        self.firm = firm
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        logits = 0.02 * torch.einsum("nchw,kchw->nk", x, WEIGHT)
        return logits + 1e4 * self.firm * torch.tensor([1, 0, 0, 0])

    def rows_of(self, images: Tensor) -> list[Tensor]:
        rows = torch.cat(self.seen)
        owners = rows.flatten(2)[:, 0].median(1).values[:, None] == images[:, 0, 0, 0]
        assert bool((owners.sum(1) == 1).all())
        return [rows[owners[:, index]] for index in range(len(images))]


ATTACKS: dict[str, Any] = {
    "evolution": lambda spy, **options: OnePixelAttack(
        spy, LOWER, UPPER, mask=MASK, population_size=10, max_generations=3, **options
    ),
    "strong": lambda spy, **options: StrongPixelAttack(
        spy, MAP, LOWER, UPPER, fraction=0.6, mask=MASK, population_size=10, max_generations=3, **options
    ),
    "proportional": lambda spy, **options: StrongPixelAttack(
        spy,
        MAP,
        LOWER,
        UPPER,
        sampling="proportional",
        mask=MASK,
        population_size=10,
        max_generations=3,
        **options,
    ),
    "ranked": lambda spy, **options: StrongPixelAttack(
        spy,
        MAP,
        LOWER,
        UPPER,
        sampling="ranked",
        mask=MASK,
        population_size=10,
        max_generations=3,
        **options,
    ),
    "random": lambda spy, **options: RandomPixelAttack(
        spy, LOWER, UPPER, mask=MASK, max_candidates=40, **options
    ),
    "gradient": lambda spy, **options: GradientPixelAttack(
        spy, LOWER, UPPER, mask=MASK, max_candidates=40, **options
    ),
}


@pytest.mark.parametrize("firm", [False, True])
@pytest.mark.parametrize("pixels", [1, 3])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_sample_differs_in_exactly_k_pixels_inside_bounds_and_mask(
    name: str, pixels: int, firm: bool
) -> None:
    images = some_images(5)
    target = Spy(firm)(images).argmax(1)
    spy = Spy(firm)
    attack = ATTACKS[name](spy, pixels=pixels, check_every=4, max_batch_size=16)
    adversarial, report = attack.perturb(images, target, return_report=True)
    lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in (LOWER, UPPER))
    originals = 2 if name == "gradient" else 1
    for index, rows in enumerate(spy.rows_of(images)):
        assert report.queries[index] == len(rows)
        changed = (rows != images[index]).any(1)
        counts = changed.sum((1, 2))
        assert sorted(counts.tolist()) == [0] * originals + [pixels] * (len(rows) - originals)
        assert not bool((changed & ~MASK).any())
        assert bool((rows >= lower.view(3, 1, 1)).all())
        assert bool((rows <= upper.view(3, 1, 1)).all())
        # What comes back is one of the samples, and the report says where and what.
        assert bool((rows == adversarial[index]).flatten(1).all(1).any())
        expected = images[index].clone()
        for (y, x), color in zip(report.positions[index].tolist(), report.colors[index], strict=True):
            expected[:, y, x] = color
        assert torch.equal(adversarial[index], expected)
    after = Spy(firm)(adversarial)
    assert torch.equal(report.predicted_after, after.argmax(1))
    assert torch.equal(report.success, after.argmax(1) != target)
    torch.testing.assert_close(
        report.probability_after, after.softmax(1)[torch.arange(5), target], rtol=1e-9, atol=1e-12
    )
    assert bool(report.success.any()) == (not firm)
    if firm:  # nothing ever succeeds, so everything is tried
        assert report.queries.tolist() == [originals + 40] * 5


@pytest.mark.parametrize("check_every", [1, 7, 1000])
def test_image_is_dropped_at_the_first_look_after_its_success(check_every: int) -> None:
    images = some_images(3)
    target = Spy()(images).argmax(1)
    spy = Spy()
    attack = OnePixelAttack(spy, LOWER, UPPER, population_size=20, max_generations=4, check_every=check_every)
    _, report = attack.perturb(images, target, return_report=True)
    for index, rows in enumerate(spy.rows_of(images)):
        succeeded = (Spy()(rows).argmax(1) != target[index]).nonzero()[:, 0]
        if not report.success[index]:
            assert len(succeeded) == 0
            continue
        first = int(succeeded[0])  # row 0 is the image itself
        generation, member = divmod(first - 1, 20)
        looked = generation * 20 + min((member // check_every + 1) * check_every, 20)
        assert len(rows) == 1 + looked


def test_batches_are_full_and_never_too_large() -> None:
    images = some_images(5)
    spy = Spy(firm=True)
    attack = OnePixelAttack(
        spy, LOWER, UPPER, population_size=10, max_generations=1, check_every=6, max_batch_size=8
    )
    attack.perturb(images, 0)
    # 5 originals; then 5 x 6 and 5 x 4 samples in as few batches of at most 8 as there can be.
    assert [len(rows) for rows in spy.seen] == [5] + 2 * [8, 8, 8, 6, 7, 7, 6]


def test_success_of_the_copy_counts_only_if_the_module_agrees() -> None:
    class Module(nn.Module):
        """Its copy, and only that, finds every image adversarial that is not black."""

        def __init__(self, copied: bool = False) -> None:
            super().__init__()
            self.copied = copied
            self.runs: list[int] = []

        def __deepcopy__(self, _memory: dict[int, Any]) -> Module:
            return Module(copied=True)

        def forward(self, x: Tensor) -> Tensor:
            self.runs.append(len(x))
            wrong = (x.sum((1, 2, 3)) > 0).to(x) * self.copied
            return torch.stack([1 - wrong, wrong], 1)

    model = Module()
    attack = RandomPixelAttack(model, 0.0, 1.0, max_candidates=8, check_every=4)
    _, report = attack.perturb(torch.zeros(2, 1, 3, 3), 0, return_report=True)
    assert report.success.tolist() == [False, False]
    assert report.predicted_after.tolist() == [0, 0]
    # The images themselves, and in each of two looks the best candidate of either.
    assert model.runs == [2, 2, 2]
    assert report.queries.tolist() == [1 + 8 + 2] * 2


def test_progress_shows_successes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erfattr._progress._LINES_EVERY", 0.0)
    images = some_images(3)
    target = Spy()(images).argmax(1)
    target[0] = (target[0] + 1) % 4  # misclassified
    attack = OnePixelAttack(Spy(), LOWER, UPPER, population_size=50, max_generations=10)
    _, report = attack.perturb(images, target, return_report=True, show_progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{int(report.success.sum())} succeeded" in shown.err
    assert "3 of 3 images" in shown.err
