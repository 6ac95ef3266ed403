"""
Compare attacks with Captum's AttackComparator
==============================================

The pixel attacks are Captum perturbations, so Captum's own tools run them side by side.
"""

import matplotlib.pyplot as plt
import torch
from captum.robust import AttackComparator

from erfattr import DeadPixelMap, OnePixelAttack, StrongPixelAttack, demo_model, sample_images
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD

model, images = demo_model(), sample_images(24, size=32)
with torch.no_grad():
    labels = model(images).argmax(1)
R = DeadPixelMap(model).attribute(images)
mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
bounds = {"lower_bound": -mean / std, "upper_bound": (1 - mean) / std}
search = {**bounds, "population_size": 20, "max_generations": 4}
attacks = {
    "one pixel": OnePixelAttack(model, **search),
    "one strong pixel": StrongPixelAttack(model, R, fraction=0.25, **search),
    "three strong pixels": StrongPixelAttack(model, R, fraction=0.25, pixels=3, **search),
}
comparator = AttackComparator(model, metric=lambda y, target: (y.argmax(1) == target).float().mean())
for name, attack in attacks.items():
    comparator.add_attack(attack, name, additional_attack_arg_names=["target"])
with torch.no_grad():
    result = comparator.evaluate(images, target=labels)
rates = {"no attack": result["Original"].item()} | {name: result[name]["mean"].item() for name in attacks}

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.barh(list(rates), [100 * rate for rate in rates.values()])
ax.set_xlabel("images that keep their class (%)")
ax.invert_yaxis()
assert rates["three strong pixels"] < rates["one strong pixel"] < rates["no attack"] == 1.0
