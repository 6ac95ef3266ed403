"""Images that several commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import write_noise


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 images of noise."""
    root = tmp_path_factory.mktemp("images")
    write_noise(root, ("cat", "dog"), 20, (33, 40))
    return root


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures, which take most of a command's time, where a test looks at numbers alone."""
    for module in ("maps", "debias"):
        monkeypatch.setattr(f"erfattr.report.{module}.save_figure", lambda figure, path: None)
