"""Images that several commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 images of noise."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for index in range(20):
            pixels = torch.randint(0, 256, (33, 40, 3), generator=generator).byte()
            Image.fromarray(pixels.numpy()).save(root / name / f"{index}.png")
    return root


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures, which take most of a command's time, where a test looks at numbers alone."""
    for module in ("maps", "debias"):
        monkeypatch.setattr(f"erfattr.report.{module}.save_figure", lambda figure, path: None)
