"""
How many images do I need?
==========================

A map over N images is known to 1 / sqrt(N). From a few images you can forecast how many more it takes, or let
the run stop by itself.
"""

import matplotlib.pyplot as plt

from erfattr import DeadPixelMap, corrected_imbalance, demo_model, images_needed, sample_images

model, images = demo_model(), sample_images(size=96)
attribution = DeadPixelMap(model)
few = attribution.attribute(images[:16], return_statistics=True)[1]
for tolerance in (0.3, 0.1):
    print(f"to know the median pixel to {tolerance:.0%}: {images_needed(few, tolerance)} images")

# %%
# Or state the tolerance, and let the run find out.

_, enough = attribution.attribute(images.split(8), return_statistics=True, tolerance=0.3)
print(f"stopped after {enough.n_images} images")

# %%
# The plain index falls as images are added: it is mostly noise. The corrected one stays where it is.

counts = (8, 16, 32, 64)
maps = [attribution.attribute(images[:count], return_statistics=True)[1] for count in counts]
found = [corrected_imbalance(statistics) for statistics in maps]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
few.plot(left)
values, errors = [index.value for index in found], [index.standard_error for index in found]
right.plot(counts, [index.uncorrected for index in found], "o--", color="0.6", label="plain")
right.errorbar(counts, values, errors, marker="o", capsize=4, label="corrected")
right.set(xlabel="images", ylabel="imbalance L1", ylim=(0, None))
right.legend()

assert found[0].uncorrected > 1.5 * found[-1].uncorrected
assert abs(found[0].value - found[-1].value) < 2 * found[0].standard_error
