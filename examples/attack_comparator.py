# %%
"""Pixel attacks in Captum's own tools: AttackComparator and MinParamPerturbation.

The first measures the accuracy under several attacks side by side, the second how many pixels an image takes.
"""

import matplotlib.pyplot as plt
import torch
from captum.robust import AttackComparator, MinParamPerturbation

from erfattr import (
    DeadPixelMap,
    OnePixelAttack,
    RandomPixelAttack,
    StrongPixelAttack,
    demo_model,
    sample_images,
)
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD

model = demo_model()
images = sample_images(24, size=32)
with torch.no_grad():
    labels = model(images).argmax(1)
R = DeadPixelMap(model).attribute(images)
mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
bounds = {"lower_bound": (0 - mean) / std, "upper_bound": (1 - mean) / std}
search = {"population_size": 20, "max_generations": 4}

# %%
# The comparator hands the attacks what their names ask for: here the classes to leave.


def accuracy(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of the images whose answer is still the target."""
    return (outputs.argmax(1) == target).float().mean()


attacks = {
    "random pixel": RandomPixelAttack(model, max_candidates=100, **bounds),
    "one pixel": OnePixelAttack(model, **bounds, **search),
    "one strong pixel": StrongPixelAttack(model, R, fraction=0.25, **bounds, **search),
    "three strong pixels": StrongPixelAttack(model, R, fraction=0.25, pixels=3, **bounds, **search),
}
comparator = AttackComparator(forward_func=model, metric=accuracy)
for name, attack in attacks.items():
    comparator.add_attack(attack, name, additional_attack_arg_names=["target"])
with torch.no_grad():
    result = comparator.evaluate(images, target=labels)
rates = {"no attack": result["Original"].item()} | {name: result[name]["mean"].item() for name in attacks}
for name, rate in rates.items():
    print(f"{name}: {100 * rate:.0f} % keep their class")

# %%
# How many strong pixels does each of eight images take? ``pixels`` is an argument of ``perturb``.

minimum = MinParamPerturbation(
    model, attacks["one strong pixel"], arg_name="pixels", arg_min=1, arg_max=9, arg_step=1, mode="linear"
)
needed = []
with torch.no_grad():
    for image, label in zip(images[:8, None], labels[:8].tolist(), strict=True):
        _, pixels = minimum.evaluate(image, target=label, attack_kwargs={"target": label})
        needed.append(pixels or 9)  # none up to 8 did it

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.barh(list(rates), [100 * rate for rate in rates.values()])
left.invert_yaxis()
left.set_xlabel("images that keep their class (%)")
right.bar([f"{index}" for index in range(8)], needed)
right.set(xlabel="image", ylabel="strong pixels needed", title="9: more than 8")
figure.savefig("attack_comparator.png", dpi=120)

# %%
# More pixels change more answers.

assert rates["three strong pixels"] < rates["one strong pixel"] < rates["no attack"] == 1.0
