"""Files that are whole or not there, the state of a long run, and what a run's record says of its machine."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import platform
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erfattr import __version__
from erfattr._checks import check_positive_int, describe

# What files of `write_whole` begin with; another number means another content.
_MAGIC = b"erfattr 2\n"
_SEAL = "sha256_of_the_rest"
_PACKAGES = ("torch", "torchvision", "captum", "lmfit", "numpy", "scipy", "scikit-image", "pillow")


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
            file is no state, damaged, or that of another run; the first thing that differs is named.

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
        sweep(self.path.parent, f".{self.path.name}.")
        if not self.path.exists():
            return None
        saved = read_whole(self.path, "state")
        if not isinstance(saved, dict) or not {"identity", "state"} <= saved.keys():
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
        write_whole(self.path, {"identity": self.identity, "state": state})


@contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """Give a place beside ``path``; what was written there becomes ``path`` when the block ends.

    So the file is whole or as it was before, whenever the process is killed.
    """
    sweep(path.parent, f".{path.name}.")
    beside = path.with_name(f".{path.name}.{_this_process()}")
    try:
        yield beside
        with beside.open("rb+") as file:
            # Or the name could reach the disk before the content does.
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.filename is not None or error.strerror is None:
            raise
        # A write that fails does not know the name of its file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write as `write_json` does, with the SHA-256 of the rest as a last entry, for `read_sealed_json`."""
    content = plain(value)
    write_json(path, {**content, _SEAL: _sealed(content)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read what `write_sealed_json` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or does not fit its SHA-256.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.pop(_SEAL, None) != _sealed(content):
        raise ValueError(f"{path.name} does not fit its SHA-256")
    return content


def _sealed(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder for results, if it is not there.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: Exception) -> OSError:
    reason = getattr(error, "strerror", None) or error
    return OSError(f"folder: output folder {str(folder)!r} cannot be written to: {reason}")


def _this_process() -> str:
    """Return what tells this process from others, also of other machines that share a folder."""
    return f"{zlib.crc32(platform.node().encode()):08x}-{os.getpid()}"


def sweep(folder: Path, begin: str) -> None:
    """Remove what processes of this machine that were killed left unfinished in a folder.

    Args:
        folder: Where.
        begin: What the names begin with, before the process: ``".NAME."`` of `writing_file`.
    """
    machine, _, _ = _this_process().partition("-")
    pattern = re.compile(re.escape(begin) + rf"{machine}-(\d+)(?:-\w+)?")
    with suppress(OSError):  # a folder that is not there holds nothing
        for path in folder.iterdir():
            match = pattern.fullmatch(path.name)
            if match is None or _is_alive(int(match[1])):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and does nothing
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def write_whole(path: Path, content: Any) -> None:
    """Write what ``torch.save`` makes of the content behind its SHA-256; see `writing_file`.

    PyTorch's reader looks at no checksum: one flipped bit on a disk would be taken for a number.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getbuffer()
    with writing_file(path) as beside, beside.open("wb") as file:
        file.write(_MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)


def read_whole(path: Path, kind: str, map_location: Any = None) -> Any:
    """Read what `write_whole` wrote: tensors, numbers, texts and containers of them, nothing that runs.

    Args:
        path: The file.
        kind: What messages call it: a ``"state"``.
        map_location: As of ``torch.load``.

    Raises:
        ValueError: the file cannot be read, is none of ours, or its content does not fit its SHA-256.
    """
    name = repr(str(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"path: {name} cannot be read as a {kind}: {error}") from error
    digest, payload = content[len(_MAGIC) : len(_MAGIC) + 65], content[len(_MAGIC) + 65 :]
    if not content.startswith(_MAGIC):
        raise ValueError(f"path: {name} is no {kind} that this version of erfattr wrote")
    if digest != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise ValueError(
            f"path: {name} is damaged: its content does not fit its SHA-256; remove the file to begin anew"
        )
    try:
        return torch.load(io.BytesIO(payload), weights_only=True, map_location=map_location)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"path: {name} cannot be read as a {kind}: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write as JSON what `plain` makes of a value; see `writing_file`.

    Raises:
        TypeError: JSON cannot hold the value.
    """
    text = json.dumps(plain(value), indent=1, allow_nan=False)
    with writing_file(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


@contextmanager
def writing(folder: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside the files' final place; move its files there when the block ends.

    When the block raises, nothing of it stays, nor does ``folder`` if it was not there before. Entering it
    early is how a run learns that it cannot write before its long part.

    Raises:
        OSError: ``folder`` cannot be made or written to.
    """
    target = Path(folder)
    sweep(target, ".erfattr-")
    stage = target / f".erfattr-{_this_process()}-{secrets.token_hex(4)}"
    missing: list[Path] = []
    try:
        try:
            missing += [path for path in (target, *target.parents) if not path.exists()]
            target.mkdir(parents=True, exist_ok=True)
            stage.mkdir(mode=0o700)
        except (OSError, ValueError) as error:
            raise _not_writable(target, error) from error
        yield stage
        for path in sorted(stage.iterdir()):
            os.replace(path, target / path.name)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise
    stage.rmdir()


def plain(value: Any) -> Any:
    """Return what JSON can hold; numbers that are not finite become ``None``."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"record: expected what JSON can hold, got {describe(value)}")


def environment() -> dict[str, Any]:
    """Return versions and machine, as a run's record needs them."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "torch_threads": torch.get_num_threads(),
        # Ours not from the metadata, which a checkout on PYTHONPATH does not have.
        "versions": {"erfattr": __version__, **{name: version(name) for name in _PACKAGES}},
    }
