"""Image files: noise, two classes of it, and files that are cut short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def write_noise(
    path: Path, size: tuple[int, int] = (12, 9), mode: str = "RGB", seed: int = 0, **options: Any
) -> Path:
    """Write a noise image of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "RGBA": 4, "LA": 2}.get(mode)
    shape = (size[1], size[0]) if channels is None else (size[1], size[0], channels)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values, mode=mode if mode == "LA" else None).save(path, **options)
    return path


@pytest.fixture
def noise() -> Callable[..., Path]:
    """Write a noise image of (width, height)."""
    return write_noise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three PNG images each, 0 to 2 and 3 to 5."""
    for index in range(6):
        write_noise(tmp_path / ("cat", "dog")[index // 3] / f"{index}.png", seed=index)
    return tmp_path


@pytest.fixture
def truncated() -> Callable[[Path], Path]:
    """Write the first half of an image's file."""

    def write(path: Path) -> Path:
        write_noise(path, size=(64, 64))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path

    return write
