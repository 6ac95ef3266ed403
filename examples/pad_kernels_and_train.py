"""
Pad the kernels and train again
===============================

Kernel padding makes odd kernels with stride 2 even, by zeros that can be trained. The zeros change nothing.
The training does. Train a network and its padded copy alike. Needs `pip install 'erfattr[train]'`.
"""

from tempfile import TemporaryDirectory

from erfattr import DeadPixelMap, compare_imbalance, demo_model, pad_kernels, sample_images
from erfattr.datasets.micro_objects import MicroObjectDataset
from erfattr.models.heads import replace_head
from erfattr.report.map_plots import plot_map_row
from erfattr.training.data import TrainingData
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import find_recipe
from erfattr.training.runs import train

original = replace_head(demo_model(weights=False, seed=2), classes=2)
padded, changes = pad_kernels(original, pool="widen", return_changes=True)
print(changes.describe())

# %%
# Tell a black square of 4 pixels from a red one. Two of the eight photographs are kept for the test.

recipe = find_recipe("micro_object_cpu", epochs=4)
photographs = sample_images(size=recipe.size, normalize=False).unflatten(0, (8, 8))
test = MicroObjectDataset(photographs[:, 6:].flatten(0, 1), recipe.object_size, fixed=True)
squares = MicroObjectDataset(photographs[:, :6].flatten(0, 1).repeat(12, 1, 1, 1), recipe.object_size, seed=2)
data, maps = TrainingData(squares, test, test, classes=("black", "red"), fingerprint="photographs"), {}
images = sample_images(32, size=recipe.map_size)
for name, network in {"original": original, "padded": padded}.items():
    with TemporaryDirectory() as folder:
        model = train(network, recipe, data, folder, seed=2, hardware=Hardware("cpu")).model
    _, maps[name] = DeadPixelMap(model).attribute(images, return_statistics=True)
trained = compare_imbalance(maps["padded"], maps["original"], paired=True)
print(f"L1 after training, padded against original: {trained.sentence}")
plot_map_row(list(maps.values()), titles=list(maps), shared_scale=True)
assert trained.difference < -2 * trained.standard_error, trained.sentence
