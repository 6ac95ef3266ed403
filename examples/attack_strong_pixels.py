"""
Attack the pixels that my network listens to
============================================

A changed pixel moves the output by its size times the network's sensitivity there. So a one-pixel attack does
more on strong pixels than on weak ones.
"""

import matplotlib.pyplot as plt
import torch

from erfattr import DeadPixelMap, OnePixelAttack, StrongPixelAttack, demo_model, sample_images, weak_pixels
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD

model, images = demo_model(), sample_images(64, size=32)
with torch.no_grad():
    labels = model(images).argmax(1)  # the network's own answers are what is to change
R = DeadPixelMap(model).attribute(images)
# The images are normalised, so the bounds are black and white after the same normalisation.
mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
bounds = {"lower_bound": -mean / std, "upper_bound": (1 - mean) / std}
search = {**bounds, "population_size": 20, "max_generations": 4}
attacks = {
    "strongest quarter": StrongPixelAttack(model, R, fraction=0.25, **search),
    "all pixels": OnePixelAttack(model, **search),
    "weakest quarter": OnePixelAttack(model, mask=weak_pixels(R, 0.25), **search),
}
found = {name: attack.perturb(images, labels, return_report=True) for name, attack in attacks.items()}
successes = {name: int(report.success.sum()) for name, (_, report) in found.items()}
print(f"of {len(images)} images change their class: {successes}")
adversarial, report = found["strongest quarter"]
index = int(report.success.nonzero()[0])
y, x = report.positions[index, 0].tolist()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.barh(list(successes), list(successes.values()))
left.set(xlabel=f"images of {len(images)} that change their class by one pixel")
right.imshow((adversarial[index].permute(1, 2, 0) * std + mean).clamp(0, 1))
right.plot(x, y, "o", markersize=16, markerfacecolor="none", markeredgecolor="white", markeredgewidth=2)
assert successes["strongest quarter"] > successes["weakest quarter"]
