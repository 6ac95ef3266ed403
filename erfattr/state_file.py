"""The state of a long run in a file: saved every so many images, found when the run is started again."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from erfattr._checks import check_positive_int, describe

_FORMAT = 1


class StateFile:
    """A checkpoint for `SensitivityMaps.attribute` in a file.

    The file is written beside its place and then renamed: it holds one whole state at any moment, whenever
    the process is killed. A state belongs to one run, told by ``identity``; the statistics' own settings are
    compared by `SensitivityMaps`.

    Args:
        path: The file; its folder must be there.
        identity: What the run is made of (model, hash of the weights, images): texts, numbers, lists of them.
        interval: Save after this many images: so much is lost at most.

    Raises:
        TypeError: ``interval`` is not an integer.
        ValueError: ``interval`` is not positive; the folder is missing, or ``path`` is one. When loading: the
            file is no state, or that of another run; the first thing that differs is named.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> state = StateFile(Path(folder.name) / "state.pt", {"model": "demo"})
        >>> state.load()
        >>> state.save({"next_index": 256})
        >>> StateFile(Path(folder.name) / "state.pt", {"model": "demo"}).load()
        {'next_index': 256}
        >>> folder.cleanup()
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], interval: int = 256) -> None:
        check_positive_int("interval", interval)
        self.path = Path(path)
        self.identity = dict(identity)
        self.interval = interval
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise ValueError(f"path: expected a file in a folder that is there, got {str(self.path)!r}")

    def load(self) -> dict[str, Any] | None:
        """Return the state saved last, or ``None`` where the file is not there."""
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise ValueError(f"path: {str(self.path)!r} cannot be read as a state: {error}") from error
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
            raise ValueError(f"path: {str(self.path)!r} is no state that this version of erfattr wrote")
        for key in sorted({*self.identity, *saved["identity"]}):
            mine, its = self.identity.get(key), saved["identity"].get(key)
            if mine != its:
                raise ValueError(
                    f"path: {str(self.path)!r} is the state of another run: expected {key} {describe(mine)}, "
                    f"got {describe(its)}; remove the file to begin anew"
                )
        state: dict[str, Any] = saved["state"]
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state."""
        write_whole(self.path, {"format": _FORMAT, "identity": self.identity, "state": state})


def write_whole(path: Path, content: Any) -> None:
    """Write with ``torch.save`` beside the file's place, then rename: the file is whole or not there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
