"""What several commands read: the model, the images, a map from a file."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader
from erfattr.datasets.photographs import sample_images
from erfattr.models.loading import ModelInfo, load_model


@dataclass(frozen=True)
class ChosenImages:
    """The images of a run.

    Attributes:
        loader: Their batches.
        described: What is said of them in the record before they are read.
        files: Where they are read from; ``None``: they are embedded.
    """

    loader: ImageLoader
    described: dict[str, Any]
    files: ImageFiles | None

    def described_once_read(self) -> dict[str, Any]:
        """Return what is said of them, with the files that could not be read and why."""
        return {**self.described, "unreadable": dict(self.files.unreadable) if self.files else {}}


def chosen_model(options: argparse.Namespace, device: str | None = None) -> tuple[nn.Module, ModelInfo]:
    """Load the model on ``device``, by default that of the options."""
    return load_model(options.model, options.weights, device=device or options.device, seed=options.seed)


def chosen_images(options: argparse.Namespace, info: ModelInfo) -> ChosenImages:
    """Find the images, and prepare them as the model wants them."""
    size = options.size or info.size
    described: dict[str, Any] = {"size": size, "seed": options.seed}
    if options.images == "embedded":
        if options.target == "label":
            raise ValueError('--target: "label" needs a folder of images with a subfolder for each class')
        images = sample_images(options.count, size, mean=info.mean, std=info.std)
        described |= {"source": "scikit-image's photographs", "count": len(images), "files": None}
        return ChosenImages(ImageLoader(images, options.batch_size), described, None)
    files = ImageFiles(
        options.images, size, options.count, options.seed, mean=info.mean, std=info.std, strict=options.strict
    )
    root = Path(options.images)
    digest = hashlib.sha256()
    for path in files.paths:
        digest.update(path.read_bytes())
    described |= {
        "source": options.images,
        "count": len(files),
        "files": [str(path.relative_to(root)) for path in files.paths],
        "sha256_of_all_files": digest.hexdigest(),
    }
    return ChosenImages(ImageLoader(files, options.batch_size), described, files)


def read_map(path: Path) -> Tensor:
    """Read a map that ``erfattr map`` wrote as NPY."""
    if not path.is_file():
        raise ValueError(f"--map: there is no file {path}")
    return torch.from_numpy(np.load(path, allow_pickle=False))
