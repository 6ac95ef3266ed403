"""Train a network by a recipe, on Lightning: resumed where it was stopped, and the same to the last bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from erfattr._checks import check_non_negative_int, describe
from erfattr._files import (
    StateFile,
    environment,
    make_folder,
    plain,
    read_sealed_json,
    write_sealed_json,
    writing,
)
from erfattr._model import untouched, weights_hash
from erfattr._processes import is_first_process
from erfattr.training.data import TrainingData
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import Recipe
from erfattr.training.tasks import task_of


@dataclass(frozen=True)
class TrainingRun:
    """A finished run.

    Attributes:
        recipe: What it followed.
        seed: Of its random numbers.
        history: For each epoch ``epoch`` (from 1), ``loss`` (mean over training images), ``accuracy`` in
            percent, ``seconds`` and ``images_per_second`` of training. The accuracy is that of the
            validation images, for a micro-object run that of the test images (`Task.watched`).
        epoch: Whose weights the model has: the best one, for a micro-object run the last (`Task.keeps_best`).
        test_accuracy: Of these weights, in percent.
        epochs_to_target: The first epoch whose accuracy exceeds the recipe's target, and the recipe's number
            of epochs if none did; ``None`` for classification.
        model: The trained network, in evaluation mode, on the CPU.
    """

    recipe: Recipe
    seed: int
    history: tuple[dict[str, float], ...]
    epoch: int
    test_accuracy: float
    epochs_to_target: int | None
    model: nn.Module = field(repr=False)

    def numbers(self) -> dict[str, Any]:
        """Return all but the model as what JSON can hold."""
        numbers: dict[str, Any] = plain(
            {name: value for name, value in vars(self).items() if name != "model"}
        )
        return numbers


def train(
    model: nn.Module,
    recipe: Recipe,
    data: TrainingData,
    folder: str | Path,
    *,
    seed: int = 0,
    hardware: Hardware | None = None,
    show_progress: bool = False,
) -> TrainingRun:
    """Train a copy of a network by a recipe, or go on with a run that was stopped.

    After each epoch a checkpoint is written to ``folder``, so a run that was killed loses one epoch at most;
    started again with the same arguments it ends with the same weights as one that was never stopped, to the
    last bit on one machine. A run that is finished is read and not repeated. On one CPU with one number of
    threads two runs of a seed are equal to the last bit; a GPU's sums may differ in their last digits.

    Args:
        model: One output for each class of ``data``; it comes back as it was.
        recipe: How to train.
        data: On what, from `TrainingImages`.
        folder: For the checkpoint (``last.ckpt``), Lightning's log (``log/``), and in the end the weights
            (``weights.pt``, a state dict) and the numbers (``result.json``).
        seed: Of the order of the images and of random numbers inside the network.
        hardware: Where; by default one device, a GPU if there is one.
        show_progress: Show Lightning's progress bar.

    Returns:
        `TrainingRun`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the network does not give one number for each class; fewer training images than a batch;
            a batch that the devices cannot share equally; a folder that holds another run (what differs is
            named); a loss that is not finite (the epoch is named).
        ImportError: Lightning is not installed.
        KeyboardInterrupt: Ctrl-C was pressed; the next call goes on.
        OSError: the folder cannot be written to.
    """
    for name, value, kind in (
        ("model", model, nn.Module),
        ("recipe", recipe, Recipe),
        ("data", data, TrainingData),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected a {kind.__name__}, got {describe(value)}")
    check_non_negative_int("seed", seed)
    hardware = Hardware() if hardware is None else hardware
    hardware.check_available()
    try:
        from erfattr.training import _fitting as fitting
    except ImportError as error:
        raise ImportError(
            f"training needs Lightning, which is not installed ({error}): pip install 'erfattr[train]'"
        ) from error
    _check_fit(model, recipe, data, hardware)
    folder = Path(folder)
    make_folder(folder)
    identity = _identity(model, recipe, data, seed, hardware)
    run = StateFile(folder / "run.pt", identity)
    begun = run.load() is not None
    model = copy.deepcopy(model).train()
    if begun and (folder / "result.json").exists():
        return _finished(folder, model, recipe, seed)
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices), fitting.quiet():
        trainer = fitting.make_trainer(folder, recipe.epochs, hardware, show_progress=show_progress)
        if not begun and is_first_process():
            run.save({})
        module = fitting.Fitting(model, recipe, data, seed, hardware)
        checkpoint = folder / fitting.CHECKPOINT
        with fitting.interruptible(trainer), fitting.fastest_convolutions():
            trainer.fit(module, ckpt_path=checkpoint if checkpoint.exists() else None)
            outcome = module.finish()
    result = TrainingRun(
        recipe=recipe,
        seed=seed,
        history=tuple(module.history),
        epoch=outcome.epoch,
        test_accuracy=outcome.test_accuracy,
        epochs_to_target=task_of(recipe).epochs_to_target(module.history),
        model=model.cpu().eval(),
    )
    if is_first_process():
        with writing(folder) as stage:
            torch.save(model.state_dict(), stage / "weights.pt")
            record = {**result.numbers(), "weights_sha256": weights_hash(model), "run": identity}
            record |= {"hardware": hardware, "environment": environment()}
            write_sealed_json(stage / "result.json", record)
    return result


def _check_fit(model: nn.Module, recipe: Recipe, data: TrainingData, hardware: Hardware) -> None:
    if recipe.batch_size % hardware.devices:
        raise ValueError(
            f"devices: expected a number that divides the batch of {recipe.batch_size}, "
            f"got {hardware.devices}"
        )
    if len(data.train) < recipe.batch_size:
        raise ValueError(
            f"data: expected at least a batch of {recipe.batch_size} training images, got {len(data.train)}"
        )
    image = data.test[0][0][None]
    with untouched(model), torch.no_grad():
        parameter = next(model.parameters())
        output = model(image.to(parameter))
    if not isinstance(output, torch.Tensor) or output.shape != (1, len(data.classes)):
        raise ValueError(
            f"model: expected outputs of shape (1, {len(data.classes)}) for an image, one for each class, "
            f"got {describe(output)}"
        )


def _identity(
    model: nn.Module, recipe: Recipe, data: TrainingData, seed: int, hardware: Hardware
) -> dict[str, Any]:
    settings = {f"recipe's {key}": plain(value) for key, value in recipe.numbers().items()}
    return {
        "model": type(model).__name__,
        "weights": weights_hash(model),
        "images": data.fingerprint,
        "seed": seed,
        "devices": hardware.devices,
        "precision": hardware.precision,
        **({"images on the device": True} if hardware.resident else {}),
        **settings,
    }


def _finished(folder: Path, model: nn.Module, recipe: Recipe, seed: int) -> TrainingRun:
    try:
        numbers = read_sealed_json(folder / "result.json")
        model.load_state_dict(torch.load(folder / "weights.pt", map_location="cpu", weights_only=True))
        if weights_hash(model) != numbers["weights_sha256"]:
            raise ValueError("weights.pt does not fit the SHA-256 in result.json")
        return TrainingRun(
            recipe=recipe,
            seed=seed,
            history=tuple(numbers["history"]),
            epoch=numbers["epoch"],
            test_accuracy=numbers["test_accuracy"],
            epochs_to_target=numbers["epochs_to_target"],
            model=model.cpu().eval(),
        )
    except Exception as error:  # damaged bytes make torch's reader raise nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"folder: the finished run in {str(folder)!r} is damaged ({type(error).__name__}: {reason}); "
            "remove it to train again"
        ) from error
