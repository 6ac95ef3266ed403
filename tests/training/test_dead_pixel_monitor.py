"""The callback in real, short trainings: what the loggers' files hold, and a training that is the same."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("lightning")
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from erfattr import DeadPixelMonitor, demo_model, sample_images

IMAGES = sample_images(16, 64)


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = demo_model().train()
        self.drop = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.drop(self.net(images))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def train(folder: Path, logger: list[Logger] | bool, monitor: DeadPixelMonitor | None) -> Module:
    module = Module()
    data = torch.utils.data.TensorDataset(IMAGES, torch.arange(16) % 10)
    torch.manual_seed(1)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=logger,
        callbacks=[] if monitor is None else [monitor],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, 8, shuffle=True))
    return module


NAMES = {
    f"dead_pixels/{name}{end}"
    for name in ("L1", "phase_contrast", "sigma_y", "sigma_x", "centroid_y", "centroid_x")
    for end in ("", "_error")
}


@pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers")
def test_loggers_hold_numbers_and_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [TensorBoardLogger(tmp_path, name="board"), CSVLogger(tmp_path, name="table")]
    with_monitor = train(tmp_path, loggers, DeadPixelMonitor(IMAGES, share=1.0, network="net"))
    without = train(tmp_path, False, None)

    events = EventAccumulator(str(tmp_path / "board" / "version_0"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) >= NAMES
    written = {name: [event.value for event in events.Scalars(name)] for name in NAMES}
    assert all(len(values) == 2 for values in written.values())  # one for each epoch
    assert written["dead_pixels/L1"][0] != written["dead_pixels/L1"][1]  # the network has learnt something
    assert 0 < written["dead_pixels/centroid_y"][0] < 63
    pictures = events.Images("dead_pixels/map")
    assert [picture.step for picture in pictures] == [2, 4]
    with Image.open(io.BytesIO(pictures[1].encoded_image_string)) as picture:
        assert min(picture.size) > 600

    with (tmp_path / "table" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("dead_pixels/L1")]
    assert [float(row["dead_pixels/L1"]) for row in rows] == pytest.approx(
        written["dead_pixels/L1"], rel=1e-6
    )
    assert len(list((tmp_path / "table" / "version_0").glob("dead_pixels-epoch*.png"))) == 2

    # Dropout and the order of the images are drawn from the random state: the training is the same.
    for mine, its in zip(with_monitor.state_dict().values(), without.state_dict().values(), strict=True):
        assert torch.equal(mine, its)
    assert with_monitor.net.training


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_holds_numbers_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, project="pixels", offline=True)
    train(tmp_path, [logger], DeadPixelMonitor(IMAGES, share=1.0, network="net"))
    assert set(logger.experiment.summary.keys()) >= NAMES
    logger.experiment.finish()
    assert len([*tmp_path.rglob("media/images/dead_pixels/map*.png")]) == 2


def test_network_that_is_not_there_is_refused_before_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no layer 'nett'; nearest: net"):
        train(tmp_path, False, DeadPixelMonitor(IMAGES, network="nett"))
