"""The part of training that stands on Lightning; imported only when a run begins."""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from erfattr._files import read_whole, write_whole
from erfattr._model import untouched
from erfattr.datasets.augmented_images import AugmentedDataset
from erfattr.training._cuda_graph import capture
from erfattr.training.data import TrainingData
from erfattr.training.hardware import Hardware
from erfattr.training.recipes import Recipe
from erfattr.training.resident import ResidentBatches, ResidentItems
from erfattr.training.tasks import task_of

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

CHECKPOINT = "last.ckpt"
# Steps on a GPU between two looks at the loss.
_LOOK_AFTER = 32
# Batches of training that an evaluation of images on the device takes at once.
_RESIDENT_BATCHES = 4


class NonFiniteLossError(ValueError):
    """The loss is infinite or not a number; the message names the epoch."""


class Best(TypedDict):
    """The epoch with the best accuracy so far, the first of equals; it lies in the checkpoint as it is."""

    epoch: int
    accuracy: float
    weights: dict[str, Tensor]


class Outcome(NamedTuple):
    """How a run ended: the epoch whose weights were selected, and their test accuracy in percent."""

    epoch: int
    test_accuracy: float


class EpochSampler(DistributedSampler[Any]):
    """The order of an epoch, shared among processes, which tells the data set what epoch begins."""

    dataset: AugmentedDataset

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch, and draw the items anew for it."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)


class Fitting(LightningModule):
    """A network on its way through a recipe.

    All that a run depends on is in the checkpoint, or is a function of seed and epoch: a run that goes on
    from the checkpoint of an epoch ends as one that was never stopped.

    Args:
        model: Trained in place.
        recipe: How.
        data: On what.
        seed: Of the order of the images, and of random numbers inside the network.
        hardware: Says how images are prepared.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, data: TrainingData, seed: int, hardware: Hardware
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.data = data
        self.seed = seed
        self.hardware = hardware
        self.task = task_of(recipe)
        self.history: list[dict[str, float]] = []
        # By hand: Lightning's ModelCheckpoint(monitor=...) forgets the best of a folder that was moved.
        self.best: Best | None = None
        self.accuracy = math.nan
        self._metric = self.task.metric()
        self._step: Callable[[Tensor], Tensor] | None = None
        self._losses: list[Tensor] = []
        # The first step at which the accuracy exceeded the target, where it is looked at within epochs.
        self._first_step_above: int | None = None
        self._begun = 0.0
        self._seconds = math.nan

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        output = self.model(images)
        # torchvision's Inception and GoogLeNet add auxiliary outputs in training mode.
        logits: Tensor = getattr(output, "logits", output)
        return logits

    def configure_model(self) -> None:
        """Lay the weights out as a GPU's convolutions want them; the numbers are the same."""
        if self._root.type == "cuda":
            self.model.to(memory_format=torch.channels_last)

    @property
    def _root(self) -> torch.device:
        """The device of this process; the module itself is put there later."""
        device: torch.device = self.trainer.strategy.root_device
        return device

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Stochastic gradient descent, its rate on a cosine over the epochs."""
        recipe = self.recipe
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True if self._root.type == "cuda" else None,
        )
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine}}

    # Data. A loader's own generator draws the seeds of its workers, which nothing here depends on; without it
    # they would come out of the global state, more of them in a run that was resumed.

    def train_dataloader(self) -> DataLoader[Any] | ResidentBatches:
        """Return the training batches; incomplete ones are left out."""
        if self.hardware.resident:
            batches = ResidentBatches(
                self.data.train, self.recipe, self._root, seed=_number(self.seed), share=self._share
            )
            batches.set_epoch(len(self.history))
            return batches
        sampler = EpochSampler(
            self.data.train,
            self.trainer.world_size,
            self.trainer.global_rank,
            seed=_number(self.seed),
            drop_last=True,
        )
        # Lightning tells the sampler about epochs only after the workers have begun with the first, and its
        # own count of them is not yet that of the checkpoint.
        sampler.set_epoch(len(self.history))
        return self._loader(self.data.train, sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any] | ResidentItems:
        """Return what is looked at after each epoch."""
        part: AugmentedDataset = getattr(self.data, self.task.watched)
        return self.evaluation_loader(part)

    def evaluation_loader(self, part: AugmentedDataset) -> DataLoader[Any] | ResidentItems:
        """Return batches of a part whose items are fixed."""
        if self.hardware.resident:
            return ResidentItems(
                part,
                self.recipe,
                self._root,
                batch_size=_RESIDENT_BATCHES * self._batch_size,
                num_workers=self.hardware.num_workers,
                share=self._share,
            )
        sampler = None
        if self.trainer.world_size > 1:
            sampler = EpochSampler(
                part, self.trainer.world_size, self.trainer.global_rank, shuffle=False, drop_last=False
            )
        return self._loader(part, sampler, drop_last=False)

    @property
    def _share(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    @property
    def _batch_size(self) -> int:
        return self.recipe.batch_size // self.trainer.world_size

    def _loader(
        self, part: AugmentedDataset, sampler: EpochSampler | None, drop_last: bool
    ) -> DataLoader[Any]:
        return DataLoader(
            part,
            self._batch_size,
            sampler=sampler,
            num_workers=self.hardware.num_workers,
            persistent_workers=self.hardware.num_workers > 0,
            pin_memory=self.device.type == "cuda",
            drop_last=drop_last,
            generator=torch.Generator(),
        )

    # Steps.

    def on_train_start(self) -> None:
        """Stop at once where the run that is resumed had reached its end."""
        self._stop_if_settled()

    def on_train_epoch_start(self) -> None:
        """Seed what the network draws itself, such as dropout."""
        torch.manual_seed(_number(self.seed, self.current_epoch, self.global_rank))
        self._begun = time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        if self._step is None:
            graphed = self.hardware.cuda_graph and images.is_cuda
            self._step = capture(self.model, self.forward, images) if graphed else self.forward
        loss = F.cross_entropy(self._step(images), labels)
        self._losses.append(loss.detach())
        # A GPU works on while the next steps are queued; to look at a loss is to wait for it.
        if loss.device.type != "cuda" or len(self._losses) >= _LOOK_AFTER:
            self._refuse_non_finite()
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def _refuse_non_finite(self) -> None:
        losses = torch.stack(self._losses).tolist()
        self._losses.clear()
        bad = next((loss for loss in losses if not math.isfinite(loss)), None)
        if bad is not None:
            raise NonFiniteLossError(
                f"loss: {bad} in epoch {self.current_epoch + 1} of {self.recipe.name}; a smaller "
                f"learning rate than {self.recipe.learning_rate} may do"
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Look at the accuracy within the epoch where the recipe says so; Lightning looks at its end."""
        # Of n looks the k-th is after the share k / n of the steps.
        steps, looks, done = int(self.trainer.num_training_batches), self.recipe.looks, batch_idx + 1
        if done < steps and done * looks // steps > batch_idx * looks // steps:
            self._look()

    def _look(self) -> None:
        begun, mixed = time.perf_counter(), self.trainer.precision_plugin.forward_context
        with untouched(self.model), torch.no_grad(), mixed():
            self.model.eval()
            for images, labels in self.val_dataloader():
                self._metric.update(self(images.to(self.device)), labels.to(self.device))
        self._note_step(float(self._metric.compute()))
        self._metric.reset()
        self._begun += time.perf_counter() - begun  # which is no training

    def _note_step(self, accuracy: float) -> None:
        target = self.task.target
        if target is not None and self._first_step_above is None and accuracy > target:
            self._first_step_above = self.trainer.global_step

    def on_validation_start(self) -> None:
        """Note how long training took."""
        if self._losses:
            self._refuse_non_finite()
        self._seconds = time.perf_counter() - self._begun

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Count what is right in a batch."""
        images, labels = batch
        self._metric.update(self(images), labels)

    def on_validation_epoch_end(self) -> None:
        """Compute the accuracy, over all processes."""
        self.accuracy = float(self._metric.compute())
        self._metric.reset()
        self.log("accuracy", self.accuracy, sync_dist=True)

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def on_train_epoch_end(self) -> None:
        """Add the epoch to the history; this runs before the checkpoint is written."""
        images = len(self.data.train) // self.recipe.batch_size * self.recipe.batch_size
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "loss": self.trainer.callback_metrics["loss"].item(),
                "accuracy": self.accuracy,
                "seconds": self._seconds,
                "images_per_second": images / self._seconds,
            }
        )
        if self.recipe.looks > 1:
            self._note_step(self.accuracy)
            self.history[-1]["steps"] = self.trainer.global_step
            if self._first_step_above is not None:
                self.history[-1]["first_step_above"] = self._first_step_above
        better = self.best is None or self.accuracy > self.best["accuracy"]
        if self.task.keeps_best and better:
            weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            self.best = {"epoch": self.current_epoch + 1, "accuracy": self.accuracy, "weights": weights}
        self._stop_if_settled()

    def _stop_if_settled(self) -> None:
        if self.task.is_over(self.history):
            self.trainer.should_stop = True

    def finish(self) -> Outcome:
        """Give the network the weights that the task selects, and measure them on the test images."""
        epoch = len(self.history)
        self._step = None  # the graph's memory
        if self.task.keeps_best and self.best is not None:
            epoch = self.best["epoch"]
            self.model.load_state_dict(self.best["weights"])
        elif self.task.watched == "test":  # the last epoch has measured them
            return Outcome(epoch, self.history[-1]["accuracy"])
        self.trainer.test(self, self.evaluation_loader(self.data.test), verbose=False)
        return Outcome(epoch, self.accuracy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know of."""
        checkpoint["erfattr"] = {"history": self.history, "best": self.best}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        self.history, self.best = checkpoint["erfattr"]["history"], checkpoint["erfattr"]["best"]
        for record in self.history[-1:]:
            if "first_step_above" in record:
                self._first_step_above = int(record["first_step_above"])


class _WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and refused when they are damaged."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError(f"storage_options: expected none, got {storage_options}")
        write_whole(Path(path), checkpoint)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: ARG002 (never anything but tensors and plain values)
    ) -> dict[str, Any]:
        checkpoint: dict[str, Any] = read_whole(Path(path), "checkpoint", map_location)
        return checkpoint


def make_trainer(folder: Path, epochs: int, hardware: Hardware, *, show_progress: bool) -> Trainer:
    """Return Lightning's trainer, with a checkpoint after each epoch and a CSV log in ``folder``."""
    callbacks: list[Callback] = [
        ModelCheckpoint(
            folder, Path(CHECKPOINT).stem, save_on_train_epoch_end=True, enable_version_counter=False
        )
    ]
    if show_progress:
        callbacks.append(TQDMProgressBar(leave=True))
    checkpoints: CheckpointIO = _WholeCheckpoints()
    if hardware.cuda_graph:  # a GPU that is this busy does not wait for the disk
        checkpoints = AsyncCheckpointIO(checkpoints)
    return Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        precision=hardware.precision,
        max_epochs=epochs,
        callbacks=callbacks,
        logger=CSVLogger(folder, name="log"),
        plugins=[checkpoints],
        default_root_dir=folder,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # of nothing: epochs are logged, steps are not
        enable_progress_bar=show_progress,
        enable_model_summary=False,
    )


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN try which of its kernels is fastest: all batches have one shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notes on hardware, worker counts and folders to itself; warnings of torch stay."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                "The '.*dataloader' does not have many workers",
                "GPU available but not used",
                "Checkpoint directory .* exists",
                "The dirpath has changed",  # which ModelCheckpoint minds, and a run that is resumed does not
                "Experiment logs directory",
                ".*LeafSpec",
                # Of a CUDA graph, whose capture began with a stream of its own.
                "The AccumulateGrad node's stream does not match",
                "Attempting to run cuBLAS, but there was no current CUDA context",
            ):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Make Ctrl-C a KeyboardInterrupt, as it is everywhere else.

    Lightning ends the process with status 1 instead, and leaves SIGINT ignored: in a notebook the next cell
    could not be stopped any more.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from ended


def _number(*parts: int) -> int:
    """Return a number of 31 bits that stands for all of these, as a seed."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)
