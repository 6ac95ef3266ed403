"""Train a network and its changed selves with several seeds, and compare what came of them, pair by pair."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from erfattr._checks import check_positive_int, describe
from erfattr._files import environment, plain, read_sealed_json, write_json, write_sealed_json, writing
from erfattr._model import weights_hash
from erfattr._processes import is_first_process
from erfattr.remedies.variants import make_variant
from erfattr.report.figures import draw_figures
from erfattr.report.text_table import text_table
from erfattr.training.data import TrainingImages
from erfattr.training.hardware import Hardware
from erfattr.training.pixel_use import PixelUse, SmallImagesError, measure_pixel_use
from erfattr.training.recipes import Recipe
from erfattr.training.runs import TrainingRun, train
from erfattr.training.tasks import task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEFORE, _AFTER = "pixel_use_before.json", "pixel_use_after.json"
# Differences that differ by less than this share of the values are equal.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Mean:
    """A mean over runs.

    Attributes:
        value: The mean.
        standard_error: Standard deviation over runs divided by the square root of their number.
        values: Of each run, in the order of the seeds.
    """

    value: float
    standard_error: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return the mean of two or more values."""
        from scipy.stats import sem

        array = np.asarray(values, dtype=np.float64)
        return cls(float(array.mean()), float(sem(array)), tuple(array.tolist()))

    def __str__(self) -> str:
        """Value and standard error."""
        return f"{_short(self.value, 3)} +- {_short(self.standard_error, 2)}"


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two variants, seed by seed.

    Attributes:
        difference: The variant minus the first one; each pair shares its seed.
        p_value: Of the two-sided paired t-test against no difference; ``None`` where all differences are
            equal, so that there is nothing to test with.
        rank_p_value: Of Wilcoxon's signed-rank test, which looks at the order of the differences alone: a few
            very long runs, or ones cut off by the last epoch, do not decide it. Fewer than six pairs cannot
            bring it below 0.05.
    """

    difference: Mean
    p_value: float | None
    rank_p_value: float | None

    @classmethod
    def of(cls, variant: Sequence[float], first: Sequence[float]) -> PairedDifference:
        """Return the difference of two sequences of values, pair by pair."""
        from scipy.stats import ttest_rel, wilcoxon

        difference = Mean.of([a - b for a, b in zip(variant, first, strict=True)])
        if difference.standard_error <= _ROUNDING * max(map(abs, (*variant, *first))):
            return cls(difference, None, None)
        t_test, by_ranks = ttest_rel(variant, first), wilcoxon(difference.values)
        return cls(difference, float(t_test.pvalue), float(by_ranks.pvalue))

    def __str__(self) -> str:
        """Difference, standard error and p-values."""
        if self.p_value is None:
            said = "all equal"
        else:
            said = f"p = {self.p_value:.2g}, by ranks {self.rank_p_value:.2g}"
        return f"{'+' * (self.difference.value >= 0)}{self.difference} ({said})"


@dataclass(frozen=True)
class VariantRuns:
    """The runs of one variant, in the order of the seeds.

    Attributes:
        name: Of the variant.
        parameters: Number of trainable weights.
        runs: Finished runs.
        before: Its pixel use before training.
        after: And after.
    """

    name: str
    parameters: int
    runs: tuple[TrainingRun, ...]
    before: tuple[PixelUse, ...]
    after: tuple[PixelUse, ...]


@dataclass(frozen=True)
class TrainingComparison:
    """Several variants of a network, trained alike with the same seeds.

    Attributes:
        recipe: What all runs followed.
        seeds: Of the runs; every variant has all of them.
        variants: The first one is what the others are compared with.
    """

    recipe: Recipe
    seeds: tuple[int, ...]
    variants: tuple[VariantRuns, ...]

    @property
    def outcome(self) -> str:
        """What the runs are compared by, in words."""
        return task_of(self.recipe).outcome()

    def rows(self) -> dict[str, dict[str, Mean]]:
        """Return for each quantity, by its name with the unit, the mean of each variant."""
        result = task_of(self.recipe).result
        rows = {
            self.outcome: {
                variant.name: Mean.of([result(run) for run in variant.runs]) for variant in self.variants
            }
        }
        uses: dict[str, Callable[[PixelUse], float]] = {
            "L1": lambda use: use.l1.value,
            "L2": lambda use: use.l2.value,
            "phase contrast": lambda use: use.phase_contrast,
            "centroid y - image centre (px)": lambda use: use.offset[0],
            "centroid x - image centre (px)": lambda use: use.offset[1],
        }
        for name, read in uses.items():
            for when in ("before", "after"):
                rows[f"{name}, {when} training"] = {
                    variant.name: Mean.of([read(use) for use in getattr(variant, when)])
                    for variant in self.variants
                }
        rows["images a second"] = {variant.name: Mean.of(_speeds(variant)) for variant in self.variants}
        return rows

    def differences(self) -> dict[str, dict[str, PairedDifference]]:
        """Return for each quantity the paired difference of each variant after the first from the first."""
        first = self.variants[0].name
        return {
            quantity: {
                name: PairedDifference.of(mean.values, means[first].values)
                for name, mean in means.items()
                if name != first
            }
            for quantity, means in self.rows().items()
        }

    def table(self) -> str:
        """Return the table that a person reads: mean +- standard error, paired differences."""
        return text_table(self.table_rows())

    def table_rows(self) -> list[list[str]]:
        """Return the same as cells, headings first."""
        names = [variant.name for variant in self.variants]
        differences = self.differences()
        rows = [["", *names, *(f"{name} - {names[0]}" for name in names[1:])]]
        for quantity, means in self.rows().items():
            rows.append(
                [
                    quantity,
                    *(str(means[name]) for name in names),
                    *(str(differences[quantity][name]) for name in names[1:]),
                ]
            )
        return rows

    def numbers(self) -> dict[str, Any]:
        """Return everything but the networks as what JSON can hold."""
        numbers: dict[str, Any] = plain(
            {
                "recipe": self.recipe,
                "seeds": self.seeds,
                "means": self.rows(),
                "differences": self.differences(),
                "variants": {
                    variant.name: {
                        "parameters": variant.parameters,
                        "runs": [run.numbers() for run in variant.runs],
                        "before": variant.before,
                        "after": variant.after,
                    }
                    for variant in self.variants
                },
            }
        )
        return numbers

    def draw(self) -> Figure:
        """Draw the accuracy of every run over its epochs."""
        from matplotlib.figure import Figure

        from erfattr.report.curves import plot_curves

        figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
        task = task_of(self.recipe)
        ax = plot_curves(
            {variant.name: [run.history for run in variant.runs] for variant in self.variants},
            figure.subplots(),
            target=task.target,
            title=self.recipe.name,
        )
        ax.set_ylabel(f"{task.watched} accuracy (%)")
        return figure


def compare_training(
    build: Callable[[int], nn.Module],
    variants: Sequence[str],
    images: TrainingImages,
    seeds: Sequence[int],
    folder: str | Path,
    *,
    n_map_images: int = 256,
    hardware: Hardware | None = None,
    progress: Callable[[str, TrainingRun], None] | None = None,
    show_progress: bool = False,
) -> TrainingComparison:
    """Train each variant of a network once for each seed, and measure its pixel use before and after.

    The runs of one seed begin with the same weights (as far as the variants share them) and see the same
    images in the same order, so their differences are taken seed by seed. Every run has a folder of its own,
    ``VARIANT/seed-N``: started again, the comparison goes on where it was, and more seeds or variants can be
    added later.

    Args:
        build: Returns the original network for a seed: one output for each class.
        variants: Names of ``VARIANTS``, two or more; the first is what the others are compared with.
        images: With the recipe.
        seeds: Two or more different ones: a single pair has no error.
        folder: For the runs, ``comparison.json`` and ``curves.png``.
        n_map_images: Test images that the maps are computed over.
        hardware: Where to train.
        progress: Called with the variant's name when a run is finished.
        show_progress: Show Lightning's progress bar.

    Returns:
        `TrainingComparison`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: fewer than two variants or seeds, or one twice; an unknown variant (the nearest names are
            suggested); a ``map_size`` of fewer than three strides; or as `erfattr.training.runs.train` and
            `measure_pixel_use`.
        ImportError: Lightning is not installed.
        OSError: the folder cannot be written to.
    """
    if isinstance(variants, str):
        raise TypeError(f"variants: expected a list of names, got {describe(variants)}")
    for name, values in (("variants", variants), ("seeds", seeds)):
        if len(values) < 2 or len(set(values)) < len(values):
            raise ValueError(f"{name}: expected two or more different ones, got {describe(list(values))}")
    check_positive_int("n_map_images", n_map_images)
    hardware = Hardware() if hardware is None else hardware
    on_gpu = hardware.accelerator != "cpu" and torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    original = build(seeds[0])
    parameters = {name: _parameters(make_variant(name, original, seeds[0])) for name in variants}
    with writing(folder) as stage:
        maps = images.maps(n_map_images)
        # What cannot be measured shows before anything is trained.
        try:
            first = {
                name: _measured(
                    _run_folder(folder, name, seeds[0]) / _BEFORE,
                    make_variant(name, original, seeds[0]),
                    maps,
                    device,
                )
                for name in variants
            }
        except SmallImagesError as error:  # they are as large as the recipe says
            raise ValueError(f"map_size: {str(error).removeprefix('images: ')}") from error
        runs: dict[str, list[TrainingRun]] = {name: [] for name in variants}
        before: dict[str, list[PixelUse]] = {name: [] for name in variants}
        after: dict[str, list[PixelUse]] = {name: [] for name in variants}
        for seed in seeds:
            data = images.prepared(seed)
            original = build(seed)
            for name in variants:
                run_folder = _run_folder(folder, name, seed)
                model = make_variant(name, original, seed)
                run = train(
                    model,
                    images.recipe,
                    data,
                    run_folder,
                    seed=seed,
                    hardware=hardware,
                    show_progress=show_progress,
                )
                runs[name].append(run)
                known = first[name] if seed == seeds[0] else None
                before[name].append(_kept(run_folder / _BEFORE, model, maps, device, known))
                after[name].append(_kept(run_folder / _AFTER, run.model, maps, device))
                if progress is not None:
                    progress(name, run)
        comparison = TrainingComparison(
            recipe=images.recipe,
            seeds=tuple(seeds),
            variants=tuple(
                VariantRuns(
                    name, parameters[name], tuple(runs[name]), tuple(before[name]), tuple(after[name])
                )
                for name in variants
            ),
        )
        if is_first_process():
            record = {**comparison.numbers(), "hardware": hardware, "environment": environment()}
            write_json(stage / "comparison.json", record)
    if is_first_process():
        draw_figures(Path(folder), {"curves.png": lambda path: comparison.draw().savefig(path)})
    return comparison


def _short(value: float, digits: int) -> str:
    """Return a number of so many significant digits, never as a power of ten where it is large."""
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _speeds(variant: VariantRuns) -> list[float]:
    """Return the median over epochs for each run: the first epoch of a process is slower."""
    return [float(np.median([record["images_per_second"] for record in run.history])) for run in variant.runs]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _run_folder(folder: str | Path, name: str, seed: int) -> Path:
    return Path(folder) / name / f"seed-{seed}"


def _identity(model: nn.Module, images: Tensor) -> dict[str, Any]:
    content = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    return {"weights": weights_hash(model), "images": list(images.shape), "sha256_of_images": content}


def _measured(path: Path, model: nn.Module, images: Tensor, device: str) -> PixelUse:
    """Read the pixel use from its file, or measure it."""
    identity = _identity(model, images)
    if path.exists():
        # What cannot be read is measured again.
        with suppress(ValueError, KeyError, TypeError):
            saved = read_sealed_json(path)
            if saved["identity"] == identity:
                return PixelUse.from_numbers(saved["pixel_use"])
    use = measure_pixel_use(model.to(device), images)
    model.cpu()
    return use


def _kept(
    path: Path, model: nn.Module, images: Tensor, device: str, known: PixelUse | None = None
) -> PixelUse:
    """Return the pixel use, and write it to its file."""
    use = _measured(path, model, images, device) if known is None else known
    write_sealed_json(path, {"identity": _identity(model, images), "pixel_use": use})
    return use
