# %%
"""Attack one pixel of each image: where the network is strong, where it is weak, and anywhere.

By eq. 12 a changed pixel moves the output by amplitude times sensitivity R. The demo network is small and the
images are few, so that this runs in seconds; docs/methods/attack.md has the measurement over hundreds.
"""

import matplotlib.pyplot as plt
import torch

from erfattr import DeadPixelMap, OnePixelAttack, StrongPixelAttack, demo_model, sample_images, weak_pixels
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD

model = demo_model()
images = sample_images(64, size=32)
with torch.no_grad():
    labels = model(images).argmax(1)  # the network's own answers are what is to change
R = DeadPixelMap(model).attribute(images)

# %%
# Images are normalised, so the bounds are those of black and white after the same normalisation.

mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
bounds = {"lower_bound": (0 - mean) / std, "upper_bound": (1 - mean) / std}
search = {"population_size": 20, "max_generations": 4, "check_every": 5}
attacks = {
    "strongest quarter": StrongPixelAttack(model, R, fraction=0.25, **bounds, **search),
    "all pixels": OnePixelAttack(model, **bounds, **search),
    "weakest quarter": OnePixelAttack(model, mask=weak_pixels(R, 0.25), **bounds, **search),
}
reports = {}
for name, attack in attacks.items():
    adversarial, reports[name] = attack.perturb(images, labels, return_report=True)
    print(f"{name}: {int(reports[name].success.sum())} of {len(images)} changed their class")

# %%
# Every success is another answer of the network itself, by one pixel.

adversarial, report = attacks["strongest quarter"].perturb(images, labels, return_report=True)
with torch.no_grad():
    answers = model(adversarial).argmax(1)
assert torch.equal(answers != labels, report.success)

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, report in reports.items():
    queries = torch.where(report.success, report.queries.double(), torch.inf).sort().values
    left.step(queries, 100 * torch.arange(1, len(images) + 1) / len(images), where="post", label=name)
left.set(xlim=(0, 105), xlabel="queries of an image", ylabel="images whose class changed (%)")
left.set_title("one-pixel attack, by pixels tried")
left.legend()
index = int(reports["strongest quarter"].success.nonzero()[0])
y, x = reports["strongest quarter"].positions[index, 0].tolist()
right.imshow((adversarial[index].permute(1, 2, 0) * std + mean).clamp(0, 1))
right.plot(x, y, "o", markersize=16, markerfacecolor="none", markeredgecolor="red")
right.set_title(f"class {int(labels[index])} became {int(answers[index])} by pixel ({y}, {x})")
figure.savefig("attack_strong_pixels.png", dpi=120)

# %%
# Weak pixels are harder to use.

assert reports["strongest quarter"].success.sum() > reports["weakest quarter"].success.sum()
