"""
Numbers in continuous integration
=================================

Let a test fail when a change of the architecture makes the grid stronger. Test a number that has its noise
taken out, and give it its error: otherwise the test fails by chance.
"""

import matplotlib.pyplot as plt

from erfattr import DeadPixelMap, blur_downsampling, corrected_imbalance, demo_model, sample_images

LIMIT = 0.15  # agreed on, with a margin
images = sample_images(size=96)  # the same images every time, inside the package


def l1(model):
    """Imbalance of neighbouring pixels, without noise, with its standard error."""
    _, statistics = DeadPixelMap(model).attribute(images.split(16), "mean", return_statistics=True)
    return corrected_imbalance(statistics)


found = {"as it was": l1(demo_model()), "with BlurPool": l1(blur_downsampling(demo_model()))}
for name, index in found.items():
    verdict = "fails" if index.value - 2 * index.standard_error > LIMIT else "passes"
    print(f"{name}: L1 {index.value:.3f} +- {index.standard_error:.3f}: {verdict}")

# %%
# On the command line: `erfattr map -m my_models:build --images photos -q --fail-if 'output: L1 > 0.15'` ends
# with status 3.

values, errors = zip(*((index.value, index.standard_error) for index in found.values()), strict=True)
plt.figure(figsize=(6, 4), layout="constrained")
plt.bar(list(found), values, yerr=[2 * error for error in errors], capsize=6, width=0.5, color="0.8")
plt.axhline(LIMIT, color="C3", label="limit")
plt.ylabel("imbalance L1, two standard errors")
plt.legend()
assert found["with BlurPool"].value + 2 * found["with BlurPool"].standard_error < LIMIT
