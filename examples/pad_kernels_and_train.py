# %% [markdown]
# Kernel padding makes odd kernels with stride 2 even, by zeros that can be trained. The zeros change nothing,
# the effect comes with training. So a fresh network and its padded copy are trained alike, and their
# dead-pixel maps are compared before and after. Needs `pip install 'erfattr[train]'`.

# %%
from __future__ import annotations

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

from erfattr import DeadPixelMap, compare_imbalance, demo_model, pad_kernels, sample_images
from erfattr.datasets.micro_objects import MicroObjectDataset
from erfattr.models.heads import replace_head
from erfattr.report.curves import plot_curves
from erfattr.training.data import TrainingData
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import find_recipe
from erfattr.training.runs import train

SEED = 2
original = replace_head(demo_model(weights=False, seed=SEED), classes=2)
padded = pad_kernels(original)
odd = sample_images(4, size=33)
with torch.no_grad():
    torch.testing.assert_close(padded(odd), original(odd))

# The paper widens the 3x3 pool as well. That is another function, so it is done only when asked for.
padded, changes = pad_kernels(original, pool="widen", return_changes=True)
print(changes.describe())

# %% [markdown]
# The task is to tell a black square of 4 pixels from a red one, wherever it lies. The squares are laid on the
# embedded photographs; two of the eight photographs are kept for the test. The recipe is the library's for a
# CPU, with fewer epochs. A run ends when it has passed 90 %.

# %%
recipe = find_recipe("micro_object_cpu", epochs=8)
photographs = sample_images(size=recipe.size, normalize=False).unflatten(0, (8, 8))  # crop, photograph
train_on, test_on = photographs[:, :6].flatten(0, 1), photographs[:, 6:].flatten(0, 1)
test = MicroObjectDataset(test_on.repeat(8, 1, 1, 1), recipe.object_size, fixed=True)
train_set = MicroObjectDataset(train_on.repeat(16, 1, 1, 1), recipe.object_size, seed=SEED)
data = TrainingData(train_set, test, test, classes=("black", "red"), fingerprint="embedded photographs")
runs, maps = {}, {}
for name, network in {"original": original, "padded": padded}.items():
    with TemporaryDirectory() as folder:
        runs[name] = train(network, recipe, data, folder, seed=SEED, hardware=Hardware("cpu"))
    for when, model in {"before": network, "after": runs[name].model}.items():
        images = sample_images(size=recipe.map_size).split(16)
        _, maps[name, when] = DeadPixelMap(model).attribute(images, return_statistics=True)

# %% [markdown]
# All four maps are of the same images, so part of their noise is common: `paired=True`. One seed says nothing
# about which network learns faster. `erfattr compare` trains with several.

# %%
changed = {name: compare_imbalance(maps[name, "after"], maps[name, "before"], paired=True) for name in runs}
trained = compare_imbalance(maps["padded", "after"], maps["original", "after"], paired=True)
for name, comparison in changed.items():
    print(f"L1 of {name}, after training against before: {comparison.sentence}")
print(f"L1 after training, padded against original: {trained.sentence}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plot_curves({name: [run.history] for name, run in runs.items()}, left, target=recipe.target)
for name, comparison in changed.items():
    estimates = comparison.second, comparison.first
    values, errors = [index.value for index in estimates], [index.standard_error for index in estimates]
    right.errorbar(("before", "after"), values, errors, marker="o", capsize=4, label=name)
right.set(ylabel="L1 of the dead-pixel map, without noise", ylim=(0, None), xlim=(-0.3, 1.3))
right.legend()
plt.show()

# %% [markdown]
# Trained alike, the padded network uses neighbouring pixels more equally. Other seeds show it too.

# %%
assert trained.difference < -2 * trained.standard_error, trained.sentence
