"""`DeadPixelMonitor`: how a network's pixels change in the course of a training, as a Lightning callback."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from erfattr._files import writing_file
from erfattr._model import find_layer
from erfattr.attr.targets import OutputTarget
from erfattr.training.monitor import PixelWatch, PixelWatcher

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_missing: ImportError | None = None
try:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.utilities import rank_zero_warn
except ImportError as error:  # every public name can be looked up without the extras
    _missing, Callback = error, object  # type: ignore[assignment,misc]


class DeadPixelMonitor(Callback):
    """Map fixed images every few epochs, and log the numbers and a figure to whatever logger is there.

    Logged are, each with its standard error over images, ``L1`` and ``phase_contrast`` of the output's
    dead-pixel map, and ``sigma_y``, ``sigma_x``, ``centroid_y``, ``centroid_x`` of the last layer's middle
    unit. The network comes back in the mode it was in, the random state too, so a training with the monitor
    is the training without it. Of several processes the first one works and the others wait.

    Args:
        images: (N, C, H, W), normalised as the network's are; 16 or more for standard errors.
        every: Map after every so many epochs.
        share: Spend at most this share of the training's time, in (0, 1]; a map that would cost more is left
            out, with a warning. 1: map whatever it costs.
        network: Name of the network inside the Lightning module; ``None``: the module itself.
        name: What the logged names begin with.
        figure: Log a figure too: to TensorBoard, Weights & Biases, and as PNG beside a CSV log.
        batch_size: Images a forward pass.
        target: Which output is mapped; ``"mean"`` for a network that does not classify yet.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: fewer than two images, ``every`` below 1, ``share`` outside (0, 1].

    Example:
        >>> from erfattr import sample_images
        >>> monitor = DeadPixelMonitor(sample_images(16, 64), every=5, share=0.02)
        >>> # Trainer(callbacks=[monitor]).fit(module, loader)
    """

    def __init__(
        self,
        images: Tensor,
        *,
        every: int = 1,
        share: float = 0.05,
        network: str | None = None,
        name: str = "dead_pixels",
        figure: bool = True,
        batch_size: int = 16,
        target: OutputTarget = "predicted",
    ) -> None:
        if _missing is not None:
            raise ImportError(
                f"DeadPixelMonitor needs Lightning, which is not installed ({_missing}): "
                "pip install 'erfattr[train]'"
            ) from _missing
        super().__init__()
        self.watcher = PixelWatcher(
            images,
            every=every,
            share=share,
            batch_size=batch_size,
            target=target,
            say=lambda words: rank_zero_warn(f"DeadPixelMonitor: {words}"),
        )
        self.network = network
        self.name = name
        self.figure = figure

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the network, and count the time."""
        self._network_in(pl_module)  # raises here, before an epoch has been trained
        self.watcher.begin()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Map the network, if it is due."""
        if not trainer.is_global_zero:
            return
        found = self.watcher.after_epoch(trainer.current_epoch, self._network_in(pl_module))
        if found is None:
            return
        scalars = {f"{self.name}/{key}": value for key, value in found.scalars().items()}
        pl_module.log_dict(scalars, rank_zero_only=True, sync_dist=False)
        if self.figure:
            self._log_figure(trainer, found)

    def _network_in(self, module: nn.Module) -> nn.Module:
        return module if self.network is None else find_layer(module, self.network)[1]

    def _log_figure(self, trainer: Trainer, found: PixelWatch) -> None:
        for logger in trainer.loggers:
            figure = found.figure()
            experiment = getattr(logger, "experiment", None)
            if experiment is not None and hasattr(experiment, "add_figure"):  # TensorBoard
                experiment.add_figure(f"{self.name}/map", figure, trainer.global_step)
            elif hasattr(logger, "log_image"):  # Weights & Biases
                logger.log_image(f"{self.name}/map", [_pixels(figure)])
            elif logger.log_dir is not None:
                path = Path(logger.log_dir) / f"{self.name}-epoch{trainer.current_epoch:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                with writing_file(path) as beside:
                    figure.savefig(beside, format="png")


def _pixels(figure: Figure) -> Any:
    held = io.BytesIO()
    figure.savefig(held, format="png")
    with Image.open(held) as picture:
        picture.load()
    return picture
