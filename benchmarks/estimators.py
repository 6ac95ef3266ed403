"""Which estimator takes the noise out of an imbalance index? A known truth, known noise, and every candidate.

    python benchmarks/estimators.py                              # candidates, a few minutes
    python benchmarks/estimators.py --section all --repeats 8    # every synthetic number of the docs page
    python benchmarks/estimators.py --section photographs --images caltech101   # pretrained MobileNetV2

Maps are drawn group by group: the mean of n independent gamma variables is a gamma variable, so 1,600 images
cost what 16 cost.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.stats import norm

from erfattr import (
    corrected_imbalance,
    dead_pixels,
    estimate_phase_profile,
    imbalance_index,
    weak_phases,
)
from erfattr.metrics.statistics import MapStatistics, StreamingStatistics

SIZE = 224
COUNTS = (25, 50, 100, 200, 400, 800, 1600)
TRUTH = 0.085  # L1 of the true map over its mean; the noise makes it 2.4 times that at 100 images


# Every truth is an envelope times a pattern: for chains the kernels of their layers, all of stride 2.
KINDS = {
    "3-3-3-3-3": "five 3x3",
    "3": "one 3x3",
    "1": "every other row and column unused",
    "3+1-3+1-3+1": "three blocks, 3x3 beside 1x1",
    "7-3-1-1-1": "lone strong pixels (kernels 7, 3, 1, 1, 1)",
    "concentrated": "two 3x3 under a bell of 8 pixels, 0 beyond 24",
    "texture": "random texture",
    "tiles-14": "tiles of 14 pixels with dark margins",
    "tiles-11": "tiles of 11 pixels with dark margins",
    # Not looked at when the estimator was made.
    "tiles-7": "tiles of 7 pixels with dark margins",
    "tiles-12": "tiles of 12 pixels with dark margins",
    "random-32": "random profile of period 32",
    "smooth": "none (a bell)",
}


def pattern(chain: str) -> np.ndarray:
    """Return how often a chain of all-ones kernels with stride 2 uses each pixel, away from the border.

    Kernels joined by + lie side by side, as in a residual block, and contribute the same.
    """
    stages = chain.split("-")
    uses = torch.ones(1, 1, *[2 * SIZE // 2 ** len(stages) + 32] * 2, dtype=torch.float64)
    for stage in reversed(stages):
        branches = []
        for side in map(int, stage.split("+")):
            kernel = torch.ones(1, 1, side, side, dtype=torch.float64) / side**2
            branches.append(F.conv_transpose2d(uses, kernel, stride=2, padding=side // 2, output_padding=1))
        uses = torch.stack(branches).sum(0)
    start = (uses.shape[2] - SIZE) // 64 * 32
    middle = uses[0, 0, start : start + SIZE, start : start + SIZE].numpy()
    return middle / middle.mean()


def index(truth: np.ndarray, order: int = 1) -> float:
    return imbalance_index(torch.from_numpy(truth), order, "mean").item()


def truth_map(kind: str, order: int = 1) -> np.ndarray:
    """Return a Gaussian envelope times a pattern, as strong as makes the index TRUTH; mean 1."""
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    radius = np.hypot(axis[:, None], axis[None])
    if kind == "concentrated":  # the envelope alone exceeds TRUTH: the pattern has a fixed strength
        result = np.exp(-(radius**2) / (2 * 8.0**2)) * (radius < 24) * (0.6 + 0.4 * pattern("3-3"))
        return result / result.mean()
    if kind == "texture":
        relief = 0.25 * ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((SIZE, SIZE)), 0.6)
    elif kind.startswith("tiles-"):
        side = int(kind.removeprefix("tiles-"))
        row = np.minimum(np.arange(SIZE) % side, side - 1 - np.arange(SIZE) % side).clip(max=2) / 2
        relief = np.outer(row, row) / np.outer(row, row).mean() - 1
    elif kind.startswith("random-"):
        side = int(kind.removeprefix("random-"))
        tile = np.random.default_rng(11).standard_normal((side, side))
        relief = 0.3 * np.tile(tile, (-(-SIZE // side), -(-SIZE // side)))[:SIZE, :SIZE]
    elif kind == "smooth":
        relief = np.zeros((SIZE, SIZE))
    else:
        relief = pattern(kind) - 1
    envelope = np.exp(-(radius**2) / (2 * 60.0**2))

    def built(strength: float) -> np.ndarray:
        result = envelope * (1 + strength * relief)
        return result / result.mean()

    low, high = 0.0, 3.0
    for _ in range(50 if kind != "smooth" else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if index(built(middle), order) < TRUTH else (low, middle)
    return built(low)


def group_means(
    noise: str, truth: np.ndarray, sizes: list[int], spread: float, rng: np.random.Generator
) -> torch.Tensor:
    """Draw the mean maps of groups of images; ``spread`` is the noise of one image."""
    maps = []
    for size in sizes:
        if noise == "gaussian":  # as strong everywhere, also where the map is small
            maps.append(truth + spread * rng.standard_normal(truth.shape) / math.sqrt(size))
            continue
        # Not negative, heavy-tailed, as strong as the map, correlated between neighbours.
        shape = 1 / spread**2
        field = rng.standard_gamma(shape * size, truth.shape) / (shape * size)
        side = 0.08 if noise == "gradients" else 0.5
        kernel = np.array([side, 1, side]) / (1 + 2 * side)
        for axis in (0, 1):
            field = ndimage.convolve1d(field, kernel, axis, mode="wrap")
        maps.append(truth * field)
    return torch.from_numpy(np.array(maps))


def spread_of(noise: str, truth: np.ndarray, order: int = 1) -> float:
    low, high = 0.01, 30.0
    for _ in range(14):
        middle = math.sqrt(low * high)
        drawn = group_means(noise, truth, [100], middle, np.random.default_rng(3))[0]
        value = imbalance_index(drawn, order).item()
        low, high = (middle, high) if value < 2.4 * index(truth, order) else (low, middle)
    return low


def sizes_of(images: int, groups: int) -> list[int]:
    return [size for size in (len(range(group, images, groups)) for group in range(groups)) if size]


def statistics(means: torch.Tensor, sizes: list[int]) -> MapStatistics:
    weights = torch.tensor(sizes, dtype=torch.float64)[:, None, None]
    mean = (weights * means).sum(0) / sum(sizes)
    return MapStatistics(mean, torch.zeros_like(mean), sum(sizes), means, tuple(sizes))


def root(square: float) -> float:
    return math.copysign(math.sqrt(abs(square)), square)


def candidates(stats: MapStatistics, order: int = 1) -> dict[str, float]:
    """Estimate the index in every way that was tried, erfattr's last."""
    scale = stats.mean.mean().item()
    differences = np.concatenate(
        [
            np.diff(stats.group_means.numpy() / scale, n=order, axis=axis).reshape(len(stats.group_sizes), -1)
            for axis in (1, 2)
        ],
        axis=1,
    )
    sizes = np.array(stats.group_sizes, dtype=float)
    n, groups = sizes.sum(), len(sizes)
    sums = differences * sizes[:, None]
    total = sums.sum(0)
    whole = np.abs(total).mean() / n
    rest = [(total - one) / (n - size) for one, size in zip(sums, sizes, strict=True)]
    without = np.mean([np.abs(one).mean() for one in rest])
    crossed = sum(
        size * (np.sign(one) * own).mean() for one, own, size in zip(rest, differences, sizes, strict=True)
    )
    estimate = corrected_imbalance(stats, order)
    power = [None, *((sums**k).sum(0) for k in (1, 2, 3, 4))]
    count = [None, *((sizes**k).sum() for k in (1, 2, 3, 4))]

    def product(p: list, four: bool) -> float:
        if four:
            return p[1] ** 4 - 6 * p[1] ** 2 * p[2] + 3 * p[2] ** 2 + 8 * p[1] * p[3] - 6 * p[4]
        return p[1] ** 2 - p[2]

    pairs = product(power, False).mean() / product(count, False)
    quadruples = product(power, True).mean() / product(count, True)
    kurtosis = np.clip(quadruples / pairs**2, 1, 30) if pairs > 0 else 3
    slope = ((np.abs(differences).mean(1) ** 2).mean() - whole**2) / (groups - 1)
    return {
        "uncorrected": whole,
        "jackknife of L": groups * whole - (groups - 1) * without,
        "slope from groups": root(whole**2 - slope),
        "L2 - floor2": root(whole**2 - estimate.noise_floor**2),
        "upper x lower": root(crossed / n * without),
        "pairs, Gaussian": root(pairs) * math.sqrt(2 / math.pi),
        "pairs, kurtosis": root(pairs) * kurtosis ** -(math.log(math.pi / 2) / (2 * math.log(3))),
        "deconvolution": deconvolved(stats, order) / scale,
        "erfattr": estimate.value,
    }


def deconvolved(stats: MapStatistics, order: int) -> float:
    """Fit the distribution of differences by maximum likelihood under Gaussian noise of known size."""
    n, groups = stats.n_images, len(stats.group_sizes)
    means = stats.group_means.numpy()
    sizes = np.array(stats.group_sizes, dtype=float)[:, None, None]
    values, errors = [], []
    for axis in (1, 2):
        differences = np.diff(means, n=order, axis=axis)
        mean = (sizes * differences).sum(0) / n
        variance = (sizes * (differences - mean) ** 2).sum(0) / ((groups - 1) * n)
        errors.append(np.sqrt(ndimage.uniform_filter(variance, 15, mode="nearest")).ravel())
        values.append(mean.ravel())
    error = np.concatenate(errors)
    ratio = np.abs(np.concatenate(values)) / error
    top = max(np.quantile(ratio, 0.99999), 3)
    grid, edges = np.linspace(0, top, 81), np.linspace(0, top * 1.0001, 400)
    middle = (edges[1:] + edges[:-1]) / 2
    bins = np.clip(np.digitize(ratio, edges) - 1, 0, len(middle) - 1)
    share = np.bincount(bins, minlength=len(middle)) / len(bins)
    likelihood = norm.pdf(middle[:, None] - grid) + norm.pdf(middle[:, None] + grid)
    weights = np.full(len(grid), 1 / len(grid))
    for _ in range(300):
        weights = weights * (likelihood.T @ (share / (likelihood @ weights + 1e-300)))
    return float((error * ((likelihood @ (weights * grid)) / (likelihood @ weights))[bins]).mean())


def compare_candidates(repeats: int, kinds: list[str], noises: list[str], order: int = 1) -> None:
    for kind in kinds:
        truth = truth_map(kind, order)
        for noise in noises:
            spread = spread_of(noise, truth, order)
            print(f"\nL{order} / truth: {kind}, {noise} noise; mean of {repeats} (spread)")
            for number, images in enumerate(COUNTS):
                rng = np.random.default_rng(images)
                sizes = sizes_of(images, 16)
                rows = [
                    candidates(statistics(group_means(noise, truth, sizes, spread, rng), sizes), order)
                    for _ in range(repeats)
                ]
                if number == 0:
                    print("| images | " + " | ".join(rows[0]) + " |")
                table = np.array([list(row.values()) for row in rows]) / index(truth, order)
                cells = zip(table.mean(0), table.std(0, ddof=1), strict=True)
                print(
                    f"| {images} | " + " | ".join(f"{m:.2f} ({s:.2f})" for m, s in cells) + " |", flush=True
                )


def check_errors(
    repeats: int,
    kinds: list[str],
    noises: list[str],
    counts: tuple[int, ...] = COUNTS,
    orders: tuple[int, ...] = (1, 2),
    groups: int = 16,
) -> None:
    """Compare bias and spread of erfattr's estimate with the error it states."""
    print(f"\n{groups} groups, mean of {repeats}: value (spread) +- stated error, in units of the truth")
    print("| index | truth | noise | " + " | ".join(map(str, counts)) + " | largest bias / error |")
    for order, kind, noise in itertools.product(orders, kinds, noises):
        truth = truth_map(kind, order)
        # Where the envelope decides the index, one image is as noisy as under the first checkerboard.
        enveloped = kind in ("smooth", "concentrated")
        reference = truth_map("3-3-3-3-3", order) if enveloped else truth
        spread = spread_of(noise, reference, order)
        unit = index(truth if kind != "smooth" else reference, order)
        expected = index(truth, order) / unit
        cells, biases = [], []
        for images in counts:
            rng = np.random.default_rng(images)
            sizes = sizes_of(images, groups)
            drawn = [
                corrected_imbalance(statistics(group_means(noise, truth, sizes, spread, rng), sizes), order)
                for _ in range(repeats)
            ]
            value = np.array([one.value for one in drawn]) / unit
            error = np.mean([one.standard_error for one in drawn]) / unit
            cells.append(f"{value.mean():.3f} ({value.std(ddof=1):.3f}) +- {error:.3f}")
            biases.append((value.mean() - expected) / error)
        note = f" ({expected:.3f})" if kind == "smooth" else ""
        print(
            f"| L{order} | {KINDS[kind]}{note} | {noise} | " + " | ".join(cells),
            f"| {max(biases, key=abs):+.2f} |",
            flush=True,
        )


def check_calibration(repeats: int) -> None:
    """Compare stated errors with the spread, on truths that the estimator was not made on."""
    print(
        "\nimages: bias; spread / sampling error; share of |z| > 2: of the sampling error about the mean"
        "\nvalue, of the whole error about the truth"
    )
    for order in (1, 2):
        for kind, noise in itertools.product(("tiles-7", "tiles-12", "random-32"), ("gradients", "heavy")):
            truth = truth_map(kind, order)
            spread, true = spread_of(noise, truth, order), index(truth, order)
            for images in (100, 400):
                rng = np.random.default_rng(images)
                sizes = sizes_of(images, 16)
                drawn = [
                    corrected_imbalance(
                        statistics(group_means(noise, truth, sizes, spread, rng), sizes), order
                    )
                    for _ in range(repeats)
                ]
                value = np.array([one.value for one in drawn])
                sampling = np.array([one.sampling_error for one in drawn])
                whole = np.array([one.standard_error for one in drawn])
                far = np.abs(value - value.mean()) > 2 * sampling
                wrong = np.abs(value - true) > 2 * whole
                cells = f"{value.mean() / true - 1:+.3f} | {value.std(ddof=1) / sampling.mean():.2f}"
                print(
                    f"| L{order} | {KINDS[kind]} | {noise} | {images} | {cells} | {far.mean():.3f} "
                    f"| {wrong.mean():.3f} |",
                    flush=True,
                )


def check_weak_phases(repeats: int) -> None:
    """Count weak phases, falsely marked ones, and hold the ends of the profile against the truth."""
    print("\nperiod: kind, noise, images: marked, falsely; weakest 5 %: true, found (spread), stated error")
    for period, kind, noise in itertools.product((8, 32), ("smooth", "3-3-3-3-3"), ("gradients", "heavy")):
        truth = truth_map(kind)
        same = statistics(torch.from_numpy(truth)[None].repeat(16, 1, 1), [1] * 16)
        profile = estimate_phase_profile(same, period).profile
        # Under the bell alone phases differ by what its curvature leaves.
        weak = profile < (1 if kind != "smooth" else 0)
        end = profile.flatten().sort().values[: max(round(0.05 * profile.numel()), 1)].mean()
        spread = spread_of(noise, truth_map("3-3-3-3-3"))
        for images in (64, 100, 400):
            rng = np.random.default_rng(images)
            sizes = sizes_of(images, 16)
            drawn = [
                weak_phases(statistics(group_means(noise, truth, sizes, spread, rng), sizes), period)
                for _ in range(repeats)
            ]
            marked = np.mean([int(one.mask.sum()) for one in drawn])
            false = np.mean([int((one.mask & ~weak).sum()) for one in drawn])
            weakest = np.array([one.weakest for one in drawn])
            error = np.mean([one.weakest_error for one in drawn])
            cells = (
                f"{marked:.1f} | {false:.2f} | {end:.3f} | {weakest.mean():.3f} ({weakest.std(ddof=1):.3f})"
            )
            print(f"| {period} | {kind} | {noise} | {images} | {cells} | {error:.3f} |", flush=True)


def check_dead_pixels(repeats: int) -> None:
    """Count false marks on maps without dead pixels, and find one pixel in 16 weakened to a fifth."""
    print("\nnoise, images: falsely marked (ratio 1; ratio 0.5) a map; found; false among the marked")
    balanced, weakened = truth_map("smooth"), truth_map("smooth")
    weakened[::4, ::4] *= 0.2
    weak = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    weak[::4, ::4] = True
    for noise in ("gradients", "heavy"):
        spread = spread_of(noise, truth_map("3-3-3-3-3"))
        for images in (25, 100, 400, 1600):
            rng = np.random.default_rng(images)
            sizes = sizes_of(images, 16)
            false = np.zeros(2)
            found, wrong = [], []
            for _ in range(repeats):
                stats = statistics(group_means(noise, balanced, sizes, spread, rng), sizes)
                false += [int(dead_pixels(stats, ratio).sum()) for ratio in (1.0, 0.5)]
                mask = dead_pixels(statistics(group_means(noise, weakened, sizes, spread, rng), sizes))
                found.append(mask[weak].double().mean().item())
                wrong.append((mask & ~weak).sum().item() / max(int(mask.sum()), 1))
            cells = f"{false[0] / repeats:.1f}; {false[1] / repeats:.1f} | {np.mean(found):.3f}"
            print(f"| {noise} | {images} | {cells} | {np.mean(wrong):.4f} |", flush=True)


def check_phases(repeats: int) -> None:
    print(
        "\nphase contrast, period 32: kind, noise, images: no noise, uncorrected, corrected (spread), error"
    )
    for kind, noise in itertools.product(("smooth", "3-3-3-3-3", "random-32"), ("gradients", "heavy")):
        truth = truth_map(kind)
        spread = spread_of(noise, truth_map("3-3-3-3-3"))
        same = statistics(torch.from_numpy(truth)[None].repeat(16, 1, 1), [1] * 16)
        true = estimate_phase_profile(same, 32).contrast
        for images in (25, 100, 400, 1600):
            rng = np.random.default_rng(images)
            sizes = sizes_of(images, 16)
            drawn = [
                estimate_phase_profile(statistics(group_means(noise, truth, sizes, spread, rng), sizes), 32)
                for _ in range(repeats)
            ]
            plain = np.mean([one.contrast for one in drawn])
            values = np.array([one.corrected_contrast for one in drawn])
            error = np.mean([one.contrast_standard_error for one in drawn])
            cells = f"{true:.4f} | {plain:.4f} | {values.mean():.4f} ({values.std(ddof=1):.4f}) | {error:.4f}"
            print(f"| {kind} | {noise} | {images} | {cells} |", flush=True)


def photographs(folder: str, count: int) -> None:
    """Map growing parts of one random choice of photographs, output of the pretrained MobileNetV2."""
    import torchvision

    from erfattr import DeadPixelMap, ImageFiles, ImageLoader

    model = torchvision.models.mobilenet_v2(weights="IMAGENET1K_V1")
    maps = DeadPixelMap(model).attribute(
        ImageLoader(ImageFiles(folder, count=count)), "mean", reduction="none"
    )
    for order in (1, 2):
        print(f"\nMobileNetV2, L{order}: images, uncorrected, noise floor, corrected")
        for images in (n for n in COUNTS if n <= count):
            stream = StreamingStatistics()
            stream.update(maps[:images])
            one = corrected_imbalance(stream.result(), order)
            cells = (
                f"{one.uncorrected:.3f} | {one.noise_floor:.3f} | {one.value:.3f} +- {one.standard_error:.3f}"
            )
            print(f"| {images} | {cells} |")


def weak_on_photographs(folder: str, count: int) -> None:
    """Say which phases of the pretrained MobileNetV2 are weak, over growing parts of shuffled photographs."""
    import torchvision

    from erfattr import DeadPixelMap, ImageFiles, ImageLoader

    model = torchvision.models.mobilenet_v2(weights="IMAGENET1K_V1")
    maps = DeadPixelMap(model).attribute(ImageLoader(ImageFiles(folder, count=count), 8), reduction="none")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    print("\nMobileNetV2, predicted class")
    for images in (n for n in (64, 100, 200, 400) if n <= count):
        stream = StreamingStatistics()
        stream.update(maps[order[:images]])
        print(f"{images} images: {weak_phases(stream.result(), 32).sentence}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    sections = ("candidates", "errors", "groups", "limits", "dead", "phases", "weak", "calibration", "all")
    sections += ("photographs",)
    parser.add_argument("--section", choices=sections, default="candidates")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--images", help="folder of photographs")
    parser.add_argument("--count", type=int, default=400, help="how many of them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()

    def wanted(section: str) -> bool:
        return arguments.section in (section, "all")

    checkerboards, repeats = ["3-3-3-3-3", "3"], arguments.repeats
    if wanted("candidates"):
        compare_candidates(repeats, checkerboards, ["gaussian", "gradients"])
    if wanted("errors"):
        kinds = [*checkerboards, "1", "3+1-3+1-3+1", "7-3-1-1-1"]
        check_errors(repeats, kinds, ["gaussian", "gradients", "heavy"])
    if wanted("groups"):
        for groups in (8, 16, 32):
            check_errors(repeats, ["3-3-3-3-3"], ["gradients"], (50, 200, 800), (1,), groups)
    if wanted("limits"):
        kinds = ["concentrated", "texture", "tiles-14", "tiles-11", "smooth"]
        check_errors(repeats, kinds, ["gaussian", "gradients"], (25, 100, 400, 1600))
    if wanted("dead"):
        check_dead_pixels(repeats)
    if wanted("phases"):
        check_phases(repeats)
    if wanted("weak"):
        check_weak_phases(repeats)
    if wanted("calibration"):
        check_calibration(repeats)
    if arguments.section == "photographs":
        photographs(arguments.images, arguments.count)
        weak_on_photographs(arguments.images, arguments.count)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
