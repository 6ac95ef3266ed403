"""Pixel attacks as a user calls them: goals, reports, Captum's tools, bad input."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.robust import AttackComparator, MinParamPerturbation, Perturbation
from torch import Tensor, nn

from erfattr import Execution
from erfattr.models.demo import DemoNet
from erfattr.robust.pixel_attacks import (
    GradientPixelAttack,
    OnePixelAttack,
    RandomPixelAttack,
    StrongPixelAttack,
)

MAP = torch.arange(20.0).view(4, 5)
ATTACKS: dict[str, Callable[..., Any]] = {
    "evolution": OnePixelAttack,
    "strong": lambda model, lower_bound, upper_bound, **options: StrongPixelAttack(
        model, MAP, lower_bound, upper_bound, fraction=0.5, **options
    ),
    "random": RandomPixelAttack,
    "gradient": GradientPixelAttack,
}
every_attack = pytest.mark.parametrize("make", ATTACKS.values(), ids=list(ATTACKS))


def needle(x: Tensor) -> Tensor:
    """Class 1 wins where pixel (2, 3) is at least 0.9 in channel 0 and at most 0.1 in channel 1."""
    found = (x[:, 0, 2, 3] - x[:, 1, 2, 3]).clamp(min=0)
    return torch.stack([torch.full_like(found, 0.8), found], 1)


def brightness(x: Tensor) -> Tensor:
    """Class 1 wins where the mean of the image is above a half."""
    mean = x.mean((1, 2, 3))
    return torch.stack([torch.full_like(mean, 0.5), mean], 1)


# Arguments


@pytest.mark.parametrize(
    ("attack", "positional", "own"),
    [
        (OnePixelAttack, [], {"population_size": 400, "max_generations": 100}),
        (
            StrongPixelAttack,
            ["sensitivity_map"],
            {"population_size": 400, "max_generations": 100, "fraction": 0.25, "sampling": "uniform"},
        ),
        (RandomPixelAttack, [], {"max_candidates": 400}),
        (GradientPixelAttack, [], {"max_candidates": 400}),
    ],
)
def test_every_attack_shows_its_own_arguments_and_the_shared_ones(
    attack: type, positional: list[str], own: dict[str, Any]
) -> None:
    shared = {
        "pixels": 1,
        "mask": None,
        "levels": None,
        "max_batch_size": 64,
        "check_every": 32,
        "seed": 0,
        "execution": None,
    }
    named: dict[str, list[Any]] = {"POSITIONAL_OR_KEYWORD": [], "KEYWORD_ONLY": []}
    for parameter in inspect.signature(attack).parameters.values():
        named[parameter.kind.name].append(parameter)
    required = [parameter.name for parameter in named["POSITIONAL_OR_KEYWORD"]]
    assert required == ["forward_func", *positional, "lower_bound", "upper_bound"]
    assert {parameter.name: parameter.default for parameter in named["KEYWORD_ONLY"]} == shared | own


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'pixel'"):
        StrongPixelAttack(brightness, MAP, 0.0, 1.0, pixel=2)  # type: ignore[call-arg]


# What comes out


@every_attack
def test_the_one_pixel_that_can_succeed_is_found(make: Callable[..., Any]) -> None:
    images = torch.full((2, 2, 4, 5), 0.5, dtype=torch.float64)
    adversarial, report = make(needle, 0.0, 1.0).perturb(images, 0, return_report=True)
    assert report.success.tolist() == [True, True]
    assert report.positions.tolist() == [[[2, 3]]] * 2
    assert needle(adversarial).argmax(1).tolist() == [1, 1]
    assert report.predicted_before.tolist() == [0, 0]
    assert report.predicted_after.tolist() == [1, 1]
    before = 1 / (1 + torch.tensor(-0.8, dtype=torch.float64).exp())
    torch.testing.assert_close(report.probability_before, before.expand(2), rtol=1e-9, atol=0)
    assert bool((report.probability_after < 0.5).all())


def test_gradient_finds_at_once_what_is_linear() -> None:
    images = torch.full((1, 2, 4, 5), 0.5, dtype=torch.float64)
    images[0, :, 2, 3] = torch.tensor([0.6, 0.5])
    attack = GradientPixelAttack(needle, 0.0, 1.0, check_every=1)
    adversarial, report = attack.perturb(images, 0, return_report=True)
    assert adversarial[0, :, 2, 3].tolist() == [1.0, 0.0]
    assert report.queries.tolist() == [3]  # the image, its gradient, the first candidate


@every_attack
def test_targeted_attack_reaches_the_class_and_the_other_way_round_leaves_it(
    make: Callable[..., Any],
) -> None:
    images = torch.full((2, 1, 4, 5), 0.48, dtype=torch.float64)
    up = make(brightness, 0.0, 1.0).perturb(images, 1, targeted=True)
    assert brightness(up).argmax(1).tolist() == [1, 1]
    assert bool((up >= images).all())
    down = make(brightness, 0.0, 1.0).perturb(1 - images, [1, 1])
    assert brightness(down).argmax(1).tolist() == [0, 0]


@pytest.mark.parametrize("targeted", [False, True])
def test_images_at_the_goal_already_are_no_successes_and_come_back_unchanged(targeted: bool) -> None:
    images = torch.full((3, 1, 4, 5), 0.48)
    images[1] = 0.9
    goal = 1 if targeted else 0
    attack = OnePixelAttack(brightness, 0.0, 1.0, population_size=8)
    adversarial, report = attack.perturb(images, goal, targeted=targeted, return_report=True)
    assert report.already_adversarial.tolist() == [False, True, False]
    assert report.success.tolist() == [True, False, True]
    assert report.success_rate == 1.0
    assert report.queries[1] == 1
    assert torch.equal(adversarial[1], images[1])
    assert report.positions[1].tolist() == [[-1, -1]]
    assert bool(report.colors[1].isnan().all())
    assert report.probability_after[1] == report.probability_before[1]


def test_success_rate_counts_attacked_images_only() -> None:
    images = torch.tensor([0.49, 0.2, 0.9]).view(3, 1, 1, 1).expand(3, 1, 4, 5)
    attack = OnePixelAttack(brightness, 0.0, 1.0, population_size=20, max_generations=2)
    assert attack.perturb(images, 0, return_report=True)[1].success_rate == 0.5
    report = attack.perturb(images[2:], 0, return_report=True)[1]
    assert report.success_rate != report.success_rate  # nothing was attacked: no number


def test_failed_attack_returns_the_best_change_found() -> None:
    image = torch.full((1, 1, 4, 5), 0.2)
    attack = OnePixelAttack(brightness, 0.0, 1.0, population_size=40, max_generations=1)
    adversarial, report = attack.perturb(image, 0, return_report=True)
    assert not report.success
    assert int((adversarial != image).sum()) == 1
    assert adversarial.max() == 1.0
    assert report.probability_after < report.probability_before


def test_several_pixels_reach_what_one_cannot() -> None:
    image = torch.full((1, 1, 4, 5), 0.46)  # one pixel lifts the mean by at most 0.027, two by 0.054
    attack = OnePixelAttack(brightness, 0.0, 1.0, max_generations=2, population_size=40)
    assert not attack.perturb(image, 0, return_report=True)[1].success
    adversarial, report = attack.perturb(image, 0, pixels=2, return_report=True)
    assert report.success
    assert int((adversarial != image).sum()) == 2
    assert report.positions.shape == (1, 2, 2)


def test_bounds_of_each_channel_serve_normalised_images() -> None:
    mean, std = torch.tensor([0.3, 0.6]).view(2, 1, 1), torch.tensor([0.2, 0.5]).view(2, 1, 1)
    bounds = ((0 - mean) / std).flatten().tolist(), ((1 - mean) / std).flatten().tolist()
    images = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    attack = RandomPixelAttack(lambda x: brightness(x * std + mean) * 0, *bounds, levels=256)
    adversarial = attack.perturb((images - mean) / std, 0) * std + mean
    colors = adversarial[(adversarial - images).abs() > 1e-5]
    # Corner colours of the image before its normalisation, to the rounding of undoing that.
    assert len(colors) > 0
    assert (colors * (1 - colors)).abs().max() < 1e-6


def test_dtype_and_device_of_the_images_stay_also_where_the_model_has_others() -> None:
    model = DemoNet(5).eval()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    attack = RandomPixelAttack(model, 0.0, 1.0, max_candidates=3)
    adversarial = attack.perturb(images, model(images.float()).argmax(1))
    assert adversarial.dtype == torch.float64
    assert (adversarial != images).any(1).sum((1, 2)).tolist() == [1, 1]


# Aim


def test_restricted_to_the_strongest_of_the_mask() -> None:
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1:3] = True  # values 5 to 14, the strongest fifth of which are 13 and 14
    attack = StrongPixelAttack(
        lambda x: brightness(0 * x), MAP, 0.0, 1.0, fraction=0.2, mask=mask, max_generations=0
    )
    tried = set()
    for shade in (0.1, 0.3, 0.4, 0.6):
        image = torch.full((1, 1, 4, 5), shade)
        tried.add(int((attack.perturb(image, 0) - image).abs().argmax()))
    assert tried <= {13, 14}


def test_half_a_pixel_of_the_mask_is_rounded_up() -> None:
    mask = torch.arange(20).view(4, 5) < 9
    attack = StrongPixelAttack(model_that_must_not_run, MAP, 0.0, 1.0, fraction=0.5, mask=mask, pixels=6)
    # 4.5 of 9 pixels are 5.
    with pytest.raises(ValueError, match="pixels: expected at most the 5 pixels that may be changed, got 6"):
        attack.perturb(torch.zeros(1, 1, 4, 5), 0)


def test_proportional_sampling_draws_the_first_population_by_the_map() -> None:
    seen: list[Tensor] = []

    def spy(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return brightness(0 * x)

    sensitivity = torch.zeros(4, 5)
    sensitivity[0, 0], sensitivity[3, 4] = 1, 3
    attack = StrongPixelAttack(
        spy,
        sensitivity,
        0.0,
        1.0,
        fraction=1.0,
        sampling="proportional",
        population_size=40,
        max_generations=0,
    )
    attack.perturb(torch.zeros(1, 1, 4, 5), 0)
    changed = (torch.cat(seen)[1:] != 0).sum((0, 1))
    assert changed.nonzero().tolist() == [[0, 0], [3, 4]]
    assert abs(int(changed[3, 4]) - 30) <= 1


def test_ranked_sampling_lists_pixels_by_amplitude_times_sensitivity() -> None:
    """Of eq. 12, in float64 written out: the largest |epsilon| R first, each with its farthest corner."""
    seen: list[Tensor] = []

    def spy(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return brightness(0 * x)

    images = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lower, upper = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([1.0, 3.0, 2.0])
    attack = StrongPixelAttack(
        spy,
        MAP + 1,
        lower,
        upper,
        fraction=1.0,
        sampling="ranked",
        population_size=20,
        max_generations=0,
        check_every=20,
        max_batch_size=20,
    )
    attack.perturb(images, 0)
    for index, image in enumerate(images):
        effects = []
        for y in range(4):
            for x in range(5):
                reach = [
                    max(float(image[c, y, x] - lower[c]), float(upper[c] - image[c, y, x])) for c in range(3)
                ]
                effects.append((-sum(reach) * float(MAP[y, x] + 1), (y, x)))
        expected = [pixel for _, pixel in sorted(effects)]
        rows = seen[1 + index]
        tried = [tuple((row != image).any(0).nonzero()[0].tolist()) for row in rows]
        assert tried == expected
        changed = torch.stack([row[:, y, x] for row, (y, x) in zip(rows, tried, strict=True)])
        ends = torch.stack([lower, upper]).double()
        assert all(value in ends[:, c] for color in changed for c, value in enumerate(color))
        before = torch.stack([image[:, y, x] for y, x in tried])
        middle = ends.mean(0)
        assert torch.equal(changed > middle, before < middle)


def test_ranked_search_goes_on_from_its_list(resnet: nn.Module, images: Tensor) -> None:
    images = images[:, :, :32, :32].clamp(-2, 2)
    target = resnet.eval()(images).argmax(1)
    common = {"fraction": 0.5, "population_size": 12, "check_every": 12}
    listed = StrongPixelAttack(
        resnet, torch.rand(32, 32), -2.0, 2.0, sampling="ranked", max_generations=0, **common
    )
    longer = StrongPixelAttack(
        resnet, listed.sensitivity_map, -2.0, 2.0, sampling="ranked", max_generations=3, **common
    )
    first, second = (attack.perturb(images, target, return_report=True)[1] for attack in (listed, longer))
    kept = ~(first.success | first.already_adversarial)
    assert bool(kept.any())
    # What the list found stays; the search tries its 3 generations more on the others and is no worse.
    assert torch.equal(second.queries[~kept], first.queries[~kept])
    assert bool((second.probability_after <= first.probability_after + 1e-12).all())
    assert bool((second.queries[kept] > first.queries[kept]).all())


# What it must not depend on


@pytest.mark.parametrize("name", ["evolution", "random", "gradient"])
def test_result_does_not_depend_on_the_batch(name: str, resnet: nn.Module, images: Tensor) -> None:
    images = images[:, :, :32, :32].clamp(-2, 2)
    attack = ATTACKS[name](resnet, -2.0, 2.0, pixels=2, check_every=5, max_batch_size=7)
    if name == "evolution":
        attack.population_size, attack.max_generations = 8, 2
    else:
        attack.max_candidates = 24
    target = resnet.eval()(images).argmax(1)
    together, report = attack.perturb(images, target, return_report=True)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(attack.perturb(images[order], target[order]), together[order])
    for index in range(5):
        alone, its = attack.perturb(images[index : index + 1], target[index], return_report=True)
        assert torch.equal(alone[0], together[index])
        assert its.queries == report.queries[index]
        torch.testing.assert_close(
            its.probability_after[0], report.probability_after[index], rtol=1e-9, atol=0
        )


def test_seed_changes_the_search_and_nothing_else_does(resnet: nn.Module, images: Tensor) -> None:
    images = images[:, :, :32, :32].clamp(-2, 2)
    first, second, other = (
        OnePixelAttack(resnet, -2.0, 2.0, population_size=8, max_generations=1, seed=seed).perturb(images, 0)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_folded_copy_finds_what_the_plain_model_finds(resnet: nn.Module, images: Tensor) -> None:
    images = images[:, :, :32, :32].clamp(-2, 2)
    options: dict[str, Any] = {"population_size": 8, "max_generations": 2}
    folded = OnePixelAttack(resnet, -2.0, 2.0, **options).perturb(images, 0)
    plain = OnePixelAttack(resnet, -2.0, 2.0, execution=Execution.plain(), **options).perturb(images, 0)
    assert torch.equal(folded, plain)


def test_further_arguments_go_with_their_images() -> None:
    def shifted(x: Tensor, shift: Tensor, scale: float) -> Tensor:
        return brightness(x + shift.view(-1, 1, 1, 1) * scale)

    images = torch.full((3, 1, 4, 5), 0.3)
    shift = torch.tensor([0.0, 0.19, 0.5])  # hopeless, nearly there, misclassified
    attack = OnePixelAttack(shifted, 0.0, 1.0, population_size=20, max_generations=2, max_batch_size=7)
    report = attack.perturb(images, 0, (shift, 1.0), return_report=True)[1]
    assert report.success.tolist() == [False, True, False]
    assert report.already_adversarial.tolist() == [False, False, True]


# Captum's tools


@every_attack
def test_attacks_are_captums_perturbations(make: Callable[..., Any]) -> None:
    attack = make(brightness, 0.0, 1.0)
    assert isinstance(attack, Perturbation)
    assert attack.forward_func is brightness
    image = torch.full((1, 1, 4, 5), 0.49)
    assert torch.equal(attack(image, target=0), attack.perturb(image, target=0))


def test_attack_comparator_measures_the_accuracy_under_attack() -> None:
    def accuracy(outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs.argmax(1) == target).float().mean()

    comparator = AttackComparator(forward_func=brightness, metric=accuracy)
    for pixels in (1, 2):
        attack = OnePixelAttack(brightness, 0.0, 1.0, pixels=pixels, population_size=20, max_generations=2)
        comparator.add_attack(attack, f"{pixels} pixels", additional_attack_arg_names=["target"])
    images = torch.tensor([0.49, 0.46, 0.2, 0.49]).view(4, 1, 1, 1).expand(4, 1, 4, 5)
    result = comparator.evaluate(images, target=torch.zeros(4, dtype=torch.int64))
    assert result["Original"].item() == 1.0
    assert result["1 pixels"]["mean"].item() == 0.5
    assert result["2 pixels"]["mean"].item() == 0.25


def test_min_param_perturbation_finds_how_many_pixels_it_takes() -> None:
    attack = OnePixelAttack(brightness, 0.0, 1.0, population_size=20, max_generations=2)
    search = MinParamPerturbation(
        brightness, attack, arg_name="pixels", arg_min=1, arg_max=6, arg_step=1, mode="linear"
    )
    image = torch.full((1, 1, 4, 5), 0.42)  # a white pixel lifts the mean by 0.029, so three are needed
    adversarial, pixels = search.evaluate(image, target=0, attack_kwargs={"target": 0})
    assert pixels == 3
    assert int((adversarial != image).sum()) == 3


# Bad input


def model_that_must_not_run(x: Tensor) -> Tensor:
    raise AssertionError("the model ran")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"lower_bound": 1.0},
            ValueError,
            r"upper_bound: expected values above lower_bound \[1.0\], got \[1.0\]",
        ),
        ({"lower_bound": "low"}, TypeError, "lower_bound: expected"),
        (
            {"lower_bound": [0, 0], "upper_bound": [1, 1, 1]},
            ValueError,
            "upper_bound: expected 2 channels .* got 3",
        ),
        ({"pixels": 0}, ValueError, "pixels: expected a positive integer, got 0"),
        ({"pixels": 1.5}, TypeError, "pixels: expected a positive integer, got 1.5"),
        ({"max_batch_size": 0}, ValueError, "max_batch_size: expected a positive integer"),
        ({"check_every": 0}, ValueError, "check_every: expected a positive integer"),
        ({"levels": 1}, ValueError, "levels: expected at least 2 values of a channel or None, got 1"),
        ({"seed": -1}, ValueError, "seed: expected an integer from 0"),
        ({"seed": 0.5}, TypeError, "seed: expected an integer, got 0.5"),
        ({"execution": "fast"}, TypeError, "execution: expected an Execution or None, got 'fast'"),
        ({"mask": torch.ones(4, 5)}, TypeError, "mask: expected booleans of shape"),
        ({"mask": torch.ones(1, 4, 5).bool()}, ValueError, "mask: expected booleans of shape"),
        ({"mask": torch.zeros(4, 5).bool()}, ValueError, "mask: expected at least one pixel .* got none"),
    ],
)
@every_attack
def test_bad_settings(
    make: Callable[..., Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    bounds = {"lower_bound": 0.0, "upper_bound": 1.0}
    with pytest.raises(error, match=message):
        make(model_that_must_not_run, **(bounds | options))


def test_bad_model() -> None:
    with pytest.raises(
        TypeError, match=r"forward_func: expected a torch\.nn\.Module or another callable, got 3"
    ):
        OnePixelAttack(3, 0.0, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 3}, "population_size: expected at least 4 candidates, got 3"),
        ({"max_generations": -1}, "max_generations: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_population(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnePixelAttack(model_that_must_not_run, 0.0, 1.0, **options)


def test_bad_number_of_candidates() -> None:
    with pytest.raises(ValueError, match="max_candidates: expected a positive integer, got 0"):
        RandomPixelAttack(model_that_must_not_run, 0.0, 1.0, max_candidates=0)


@pytest.mark.parametrize(
    ("sensitivity", "options", "error", "message"),
    [
        (MAP, {"fraction": 0.02}, ValueError, "fraction: expected at least one of 20 pixels, got 0.02"),
        (MAP, {"fraction": 0.0}, ValueError, "fraction: expected a number in"),
        (MAP, {"fraction": "half"}, TypeError, "fraction: expected a number in"),
        (
            MAP,
            {"sampling": "sorted"},
            ValueError,
            "sampling: expected one of 'uniform', 'proportional', 'ranked'",
        ),
        (
            MAP,
            {"mask": torch.ones(5, 4).bool()},
            ValueError,
            r"mask: expected the map's \(4, 5\), got \(5, 4\)",
        ),
        (-MAP, {"sampling": "proportional"}, ValueError, "sensitivity_map: expected values not below zero"),
        (0 * MAP, {"sampling": "proportional"}, ValueError, "sensitivity_map: expected .* some above"),
        (MAP[None], {}, ValueError, "sensitivity_map: expected a map of shape"),
        (MAP / 0, {}, ValueError, "sensitivity_map: expected finite values"),
        ("map", {}, TypeError, "sensitivity_map: expected a map"),
    ],
)
def test_bad_aim(sensitivity: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        StrongPixelAttack(model_that_must_not_run, sensitivity, 0.0, 1.0, **options)


@pytest.mark.parametrize(
    ("inputs", "target", "error", "message"),
    [
        (torch.zeros(2, 1, 4, 5).int(), 0, TypeError, "inputs: expected floating-point images"),
        ((torch.zeros(2, 1, 4, 5),), 0, TypeError, "inputs: expected floating-point images"),
        (
            torch.zeros(1, 4, 5),
            0,
            ValueError,
            r"inputs: expected floating-point images .* got shape \(1, 4, 5\)",
        ),
        (torch.zeros(0, 1, 4, 5), 0, ValueError, "inputs: expected floating-point images"),
        (torch.full((2, 1, 4, 5), torch.nan), 0, ValueError, "inputs: expected finite images"),
        (
            torch.full((2, 1, 4, 5), 1.1),
            0,
            ValueError,
            "inputs: expected 0 to 1 in channel 0, got 1.1 to 1.1",
        ),
        (torch.full((2, 1, 4, 5), -0.1), 0, ValueError, "inputs: expected 0 to 1 in channel 0, got -0.1"),
        (torch.zeros(2, 1, 4, 5), [0, 1, 0], ValueError, "target: expected an integer or 2 integers"),
        (torch.zeros(2, 1, 4, 5), [[0, 1]], ValueError, "target: expected an integer or 2 integers"),
        (torch.zeros(2, 1, 4, 5), 0.5, TypeError, "target: expected an integer or 2 integers"),
        (torch.zeros(2, 1, 4, 5), "cat", TypeError, "target: expected an integer or 2 integers"),
        (torch.zeros(2, 1, 4, 5), None, TypeError, "target: expected an integer or 2 integers"),
        (torch.zeros(2, 1, 4, 5), -1, ValueError, "target: expected classes from 0, got -1"),
    ],
)
def test_bad_images_and_targets(inputs: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OnePixelAttack(model_that_must_not_run, 0.0, 1.0).perturb(inputs, target)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (OnePixelAttack(model_that_must_not_run, [0, 0], 1.0), "lower_bound: expected one value or 1"),
        (OnePixelAttack(model_that_must_not_run, 0.0, [1, 1, 1]), "upper_bound: expected one value or 1"),
        (
            OnePixelAttack(model_that_must_not_run, 0.0, 1.0, mask=torch.ones(3, 5).bool()),
            r"mask: expected the images' \(4, 5\), got \(3, 5\)",
        ),
        (
            StrongPixelAttack(model_that_must_not_run, torch.rand(5, 4), 0.0, 1.0),
            r"sensitivity_map: expected the images' \(4, 5\), got \(5, 4\)",
        ),
        (
            StrongPixelAttack(model_that_must_not_run, MAP, 0.0, 1.0, fraction=0.1, pixels=3),
            "pixels: expected at most the 2 pixels that may be changed, got 3",
        ),
    ],
)
def test_settings_that_do_not_fit_the_images(attack: OnePixelAttack, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack.perturb(torch.zeros(2, 1, 4, 5), 0)


def test_bad_further_arguments() -> None:
    attack = OnePixelAttack(model_that_must_not_run, 0.0, 1.0)
    with pytest.raises(ValueError, match="additional_forward_args: expected tensors of 2 entries"):
        attack.perturb(torch.zeros(2, 1, 4, 5), 0, torch.zeros(3))


def test_model_whose_images_see_each_other_is_refused() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(20, 2))
    with pytest.raises(ValueError, match="layer '0' normalises with the statistics of the batch"):
        OnePixelAttack(model, 0.0, 1.0).perturb(torch.zeros(2, 1, 4, 5), 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda x: x,
            r"forward_func: expected outputs of shape \(2, classes\), got a tensor of shape \(2, 1, 4, 5\)",
        ),
        (lambda x: x.mean((2, 3)), r"forward_func: expected outputs of shape \(2, classes\)"),
        (lambda x: (brightness(x),), r"forward_func: expected outputs of shape \(2, classes\), got"),
        (lambda x: brightness(x) / 0, "forward_func: expected finite outputs"),
    ],
)
def test_bad_outputs(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnePixelAttack(model, 0.0, 1.0).perturb(torch.zeros(2, 1, 4, 5), 0)


def test_class_that_the_model_does_not_have() -> None:
    with pytest.raises(ValueError, match="target: expected classes from 0 to 1, got 2"):
        OnePixelAttack(brightness, 0.0, 1.0).perturb(torch.zeros(2, 1, 4, 5), [0, 2])


# The caller's things


@pytest.mark.parametrize("name", ATTACKS)
def test_model_images_and_random_state_come_back_as_they_were(
    name: str,
    images: Tensor,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    model = DemoNet(10).double().train()
    model.layer1.eval()
    model.conv1.weight.requires_grad_(False)
    before = snapshot(model)
    images = images[:, :, :4, :5].clamp(-2, 2).requires_grad_(True)
    copied = images.detach().clone()
    attack = ATTACKS[name](nn.Sequential(nn.Upsample((32, 32)), model), -2.0, 2.0, check_every=10)
    if name in ("evolution", "strong"):
        attack.population_size, attack.max_generations = 8, 1
    else:
        attack.max_candidates = 16
    adversarial = attack.perturb(images, 0)
    assert_same(before, snapshot(model))
    assert torch.equal(images.detach(), copied)
    assert images.grad is None
    assert not adversarial.requires_grad


def test_model_comes_back_as_it_was_also_after_an_error(
    resnet: nn.Module,
    images: Tensor,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    before = snapshot(resnet)
    with pytest.raises(ValueError, match="target: expected classes from 0 to 9"):
        OnePixelAttack(resnet, -9.0, 9.0).perturb(images, 99)
    assert_same(before, snapshot(resnet))


def test_model_that_writes_on_its_input_does_no_harm() -> None:
    def writing(x: Tensor) -> Tensor:
        return needle(x.mul_(0.5).add_(0.25).sub_(0.25).mul_(2))

    def spoiling(x: Tensor) -> Tensor:
        outputs = needle(x)
        x.zero_()
        return outputs

    images = torch.full((2, 2, 4, 5), 0.5, dtype=torch.float64)
    copied = images.clone()
    for model in (writing, spoiling):
        adversarial, report = OnePixelAttack(model, 0.0, 1.0).perturb(images, 0, return_report=True)
        assert torch.equal(images, copied)
        assert report.success.tolist() == [True, True]
        assert (adversarial != images).any(1).sum((1, 2)).tolist() == [1, 1]
