"""Draw the pictures of the methods' pages and of the API: docs/images/methods/*.png, docs/images/api/*.png.

    python scripts/draw_pictures.py                       # all of them, minutes
    python scripts/draw_pictures.py methods/erf api/Tiling   # some of them

A picture below ``api`` has the public name that draws it, and stands in that name's documentation.
Everything is computed from the demo network, networks with random weights and the embedded photographs: no
download. Each picture is for the eye. What was measured properly stands on the pages of measurements.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from captum.attr import Saliency
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn

from erfattr import (
    ERF,
    DeadPixelMap,
    DebiasedAttribution,
    MapStatistics,
    MicroObjectDataset,
    StrongPixelAttack,
    compare_imbalance,
    corrected_imbalance,
    demo_model,
    draw_stages,
    estimate_phase_profile,
    fit_gaussian,
    forecast_map,
    grid_contrast,
    imbalance_index,
    pad_kernels,
    phase_contrast,
    phase_profile,
    plot_map,
    receptive_fields,
    sample_images,
    suggest_tiling,
    theoretical_receptive_field,
    watch_pixels,
)
from erfattr._files import writing_file
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from erfattr.report.pixel_plots import plot_zoom
from erfattr.report.profile_plots import plot_gaussian_fit, plot_phase_profile

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
BLUE, ORANGE = "#0072B2", "#D55E00"
_PICTURES: dict[str, Callable[[], Figure]] = {}


def picture(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    _PICTURES[f"methods/{draw.__name__}"] = draw
    return draw


def row(panels: int, width: float = 9, height: float = 3.2) -> tuple[Figure, list]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def photograph(images: Tensor, index: int) -> Tensor:
    """Return one image as it looks: (H, W, 3), 0 to 1."""
    std, mean = torch.tensor(IMAGENET_STD), torch.tensor(IMAGENET_MEAN)
    return (images[index].permute(1, 2, 0) * std + mean).clamp(0, 1)


def lone_layer(kernel: int) -> Tensor:
    """Return how often each pixel is read by one all-ones layer of stride 2."""
    layer = nn.Conv2d(1, 1, kernel, stride=2, bias=False)
    nn.init.ones_(layer.weight)
    return DeadPixelMap(lambda x: layer(x).sum(dim=(1, 2, 3))).attribute(torch.zeros(1, 1, 24, 24))[
        4:16, 4:16
    ]


@picture
def erf() -> Figure:
    model, images = demo_model(), sample_images(32)
    fields = receptive_fields(model, 224)
    figure, axes = row(3)
    for ax, layer in zip(axes, ("layer1", "layer2", "layer3"), strict=True):
        R, statistics = ERF(model, layer).attribute(images.split(8), return_statistics=True)
        unit = statistics.source.unit
        plot_map(
            R,
            ax,
            center=statistics.source.center,
            bounds=fields[layer].bounds(unit),
            norm="log",
            colorbar=False,
            title=f"unit {unit} of {layer}",
        )
    return figure


@picture
def dead_pixels() -> Figure:
    D = DeadPixelMap(demo_model()).attribute(sample_images(64).split(16))
    figure, (left, right) = row(2, 7.2, 3.2)
    plot_map(D, left, title="dead-pixel map of the demo network")
    plot_zoom(D, (112, 112), 32, right, title="its middle, pixel by pixel")
    return figure


@picture
def receptive_field() -> Figure:
    figure, axes = row(2, 9, 3.4)
    for ax, name in zip(axes, ("resnet18", "vgg16"), strict=True):
        receptive_fields(torchvision.models.get_model(name, weights=None), 224).plot(ax).set_title(name)
    return figure


@picture
def tiling() -> Figure:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 1, 4, stride=4),
    )  # fmt: skip
    plan = suggest_tiling(model, (128, 192), in_channels=1)
    figure, axes = row(1, 6, 3.9)
    ax, kept = axes[0], 32
    ax.add_patch(Rectangle((0, 0), 192, 128, facecolor="0.93", edgecolor="0.4", label="image"))
    for line in range(kept, 192, kept):
        ax.axvline(line, color="0.75", linewidth=0.8)
        if line < 128:
            ax.axhline(line, color="0.75", linewidth=0.8)
    y, x = plan.halo
    ax.add_patch(
        Rectangle((96 - x, 64 - y), kept + 2 * x, kept + 2 * y, facecolor=ORANGE, alpha=0.35, label="read")
    )
    ax.add_patch(Rectangle((96, 64), kept, kept, facecolor=BLUE, alpha=0.6, label="kept"))
    ax.set(xlim=(-6, 198), ylim=(134, -6), aspect="equal", xlabel="column x (pixel)", ylabel="row y (pixel)")
    ax.set_title(f"halo {plan.halo}, tiles begin at multiples of {plan.alignment}")
    ax.legend(loc="upper left", fontsize="small")
    return figure


@picture
def gaussian_fit() -> Figure:
    _, statistics = ERF(demo_model(), "layer2").attribute(sample_images(64).split(16), return_statistics=True)
    figure, axes = row(1, 5.5, 3.6)
    plot_gaussian_fit(statistics.mean, fit_gaussian(statistics), ax=axes[0])
    return figure


@picture
def imbalance() -> Figure:
    figure, axes = row(3)
    for ax, kernel in zip(axes, (1, 3, 4), strict=True):
        counts = lone_layer(kernel)
        index = float(imbalance_index(counts, normalize="mean"))
        plot_map(
            counts,
            ax,
            colorbar=False,
            norm="linear",
            limits=(0, 4),
            title=f"{kernel}x{kernel}, stride 2: L1 = {index:.2f}",
        )
    return figure


@picture
def estimators() -> Figure:
    model, images = demo_model(), sample_images(64)
    counts = (16, 32, 48, 64)
    found = []
    for count in counts:
        _, statistics = DeadPixelMap(model).attribute(images[:count].split(1), return_statistics=True)
        found.append(corrected_imbalance(statistics))
    figure, axes = row(1, 5.5, 3.4)
    ax = axes[0]
    ax.plot(
        counts, [each.uncorrected for each in found], "o-", color="0.5", label="index of the map as it is"
    )
    ax.plot(counts, [each.noise_floor for each in found], "--", color="black", label="noise floor")
    values, errors = [each.value for each in found], [each.standard_error for each in found]
    ax.errorbar(counts, values, errors, marker="o", color=BLUE, capsize=4, label="without the noise")
    ax.set(xlabel="images", ylabel="L1 of R / mean(R)", ylim=(0, None), xticks=counts)
    ax.set_title("demo network, output, embedded photographs")
    ax.legend(frameon=False)
    return figure


@picture
def debias() -> Figure:
    model, images = demo_model(), sample_images(48)
    measured, shown = images[:32], images[32:]
    saliency = Saliency(model)
    debiased = DebiasedAttribution.calibrate(saliency, measured.split(8))
    with torch.no_grad():
        target = model(shown).argmax(1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    for (zoom, grid), method, name in zip(axes, (saliency, debiased), ("raw", "debiased"), strict=True):
        maps = method.attribute(shown, target=target).mean(1)
        plot_zoom(maps[1], (112, 112), 64, zoom, title=f"saliency, {name}", colorbar=False)
        profile = phase_profile(maps.mean(0), period=32)
        plot_phase_profile(
            profile,
            grid,
            title=f"its grid: contrast {phase_contrast(profile):.2f}",
            colorbar=False,
            limits=(0.5, 1.5),
        )
    return figure


@picture
def micro_objects() -> Figure:
    photographs = sample_images(4, size=64, normalize=False)
    items = MicroObjectDataset(photographs, object_size=8, mean=(0, 0, 0), std=(1, 1, 1), seed=3)
    figure, axes = row(4, 9, 2.6)
    for ax, (image, label) in zip(axes, items, strict=True):
        ax.imshow(image.permute(1, 2, 0).clamp(0, 1))
        ax.set(title=("black", "red")[label], xticks=(), yticks=())
    return figure


@picture
def kernel_padding() -> Figure:
    def fresh(model: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return model

    images = sample_images(32, size=160)
    figure, axes = row(2, 7.5, 3.5)
    for ax, change, name in zip(
        axes,
        (demo_model, lambda: pad_kernels(demo_model(), pool="widen")),
        ("odd kernels", "even kernels"),
        strict=True,
    ):
        D = DeadPixelMap(fresh(change())).attribute(images.split(16))
        contrast = phase_contrast(phase_profile(D, 32))
        plot_zoom(D / D.mean(), (80, 80), 48, ax, title=f"{name}: contrast {contrast:.2f}")
    return figure


@picture
def forecast() -> Figure:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    measured = ERF(model, "layer4").attribute(sample_images(48).split(16))
    expected = forecast_map(model, "layer4")
    figure, axes = row(2, 7.5, 3.4)
    for ax, values, name in zip(
        axes, (expected, measured), ("forecast, no image", "measured, 48 images"), strict=True
    ):
        plot_phase_profile(phase_profile(values, 32), ax, title=name, limits=(0.7, 1.3))
    return figure


@picture
def attack() -> Figure:
    model, images = demo_model(), sample_images(64, size=32)
    with torch.no_grad():
        labels = model(images).argmax(1)
    R = DeadPixelMap(model).attribute(images)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    search = StrongPixelAttack(
        model, R, (0 - mean) / std, (1 - mean) / std, population_size=20, max_generations=4
    )
    adversarial, report = search.perturb(images, target=labels, return_report=True)
    figure, axes = row(4, 10, 2.9)
    plot_map(R, axes[0], title="where the network is strong", colorbar=False)
    for ax, index in zip(axes[1:], report.success.nonzero()[:3, 0].tolist(), strict=True):
        y, x = report.positions[index, 0].tolist()
        ax.imshow(photograph(adversarial, index))
        ax.plot(x, y, "o", markersize=16, markerfacecolor="none", markeredgecolor="red", markeredgewidth=2)
        with torch.no_grad():
            after = int(model(adversarial[index : index + 1]).argmax(1))
        ax.set(title=f"class {int(labels[index])} is now {after}", xticks=(), yticks=())
    return figure


@cache
def of_demo(layer: str) -> MapStatistics:
    """Return the statistics of a map of the demo network over the embedded photographs."""
    images = sample_images(64, size=128).split(1)
    if layer == "output":
        return DeadPixelMap(demo_model()).attribute(images, return_statistics=True)[1]
    return ERF(demo_model(), layer).attribute(images, return_statistics=True)[1]


def shown(name: str, result: Callable[[], Any]) -> None:
    """Register the picture that a result makes of itself."""

    def draw() -> Figure:
        figure, (ax,) = row(1, 4.6, 3.6)
        result().plot(ax)
        return figure

    _PICTURES[f"api/{name}"] = draw


def drawn(name: str, draw: Callable[[], Figure]) -> None:
    """Register the picture that a function draws."""
    _PICTURES[f"api/{name}"] = draw


def mapped() -> Figure:
    field = theoretical_receptive_field(demo_model(), "layer2", input_size=(128, 128))
    figure, (ax,) = row(1, 4.6, 3.6)
    source = of_demo("layer2").source
    plot_map(of_demo("layer2"), ax, center=source.center, bounds=field.bounds(source.unit))
    return figure


def staged() -> Figure:
    layers = ("layer1", "layer2", "layer3", "layer4")
    maps = {layer: of_demo(layer) for layer in layers}
    return draw_stages({"demo": maps}, {"demo": receptive_fields(demo_model(), 128)})


def watched() -> Figure:
    return watch_pixels(demo_model(), sample_images(64, size=128)).figure()


shown("MapStatistics", lambda: of_demo("output"))
shown("GaussianFit", lambda: fit_gaussian(of_demo("layer2")))
shown("PhaseEstimate", lambda: estimate_phase_profile(of_demo("output"), 32))
shown("GridContrast", lambda: grid_contrast(of_demo("output").mean, 32))
shown("Estimate", lambda: corrected_imbalance(of_demo("output")))
shown("Comparison", lambda: compare_imbalance(of_demo("output"), of_demo("layer4")))
shown("ReceptiveField", lambda: theoretical_receptive_field(demo_model(), "layer3"))
shown("ReceptiveFields", lambda: receptive_fields(demo_model()))
shown("Tiling", lambda: suggest_tiling(nn.Conv2d(3, 1, 9, padding=4), 96))
drawn("plot_map", mapped)
drawn("draw_stages", staged)
drawn("watch_pixels", watched)


def save(figure: Figure, path: Path) -> None:
    """Write a picture of 128 colours: noise is what PNG cannot pack."""
    with io.BytesIO() as whole:
        figure.savefig(whole, format="png", dpi=100)
        small = Image.open(whole).convert("RGB").quantize(128)
    with writing_file(path) as beside:
        small.save(beside, format="png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(_PICTURES)} (default: all)")
    names = parser.parse_args().names or list(_PICTURES)
    unknown = [name for name in names if name not in _PICTURES]
    if unknown:
        parser.error(f"NAME: expected {', '.join(_PICTURES)}, got {unknown[0]}")
    warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
    for name in names:
        path = FOLDER / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(_PICTURES[name](), path)
        print(f"{name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
