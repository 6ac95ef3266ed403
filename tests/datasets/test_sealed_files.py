"""A file that is changed while a run goes on is refused, and what is sealed is told by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from erfattr.datasets.image_files import ImageFiles
from erfattr.datasets.image_loader import ImageLoader
from erfattr.datasets.sealed_files import ChangedFileError, SealedFiles
from erfattr.training.data import find_images


def test_digests_are_those_of_the_contents(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("b", "a", "gone")]
    paths[0].write_bytes(b"one")
    paths[1].write_bytes(b"two")
    sealed = SealedFiles(paths)
    assert sealed.sha256 == hashlib.sha256(b"onetwo").hexdigest()
    assert sealed.digest(paths[1]) == hashlib.sha256(b"two").hexdigest()
    assert sealed.digest(paths[2]) == ""
    assert sealed.read(paths[0]) == b"one"
    with pytest.raises(FileNotFoundError):
        sealed.read(paths[2])


def test_every_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    sealed, none = SealedFiles([path]), SealedFiles([tmp_path / "b"])
    path.write_bytes(b"onE")
    (tmp_path / "b").write_bytes(b"new")
    for files, changed in ((sealed, path), (none, tmp_path / "b")):
        with pytest.raises(ChangedFileError, match="was changed while the run went on; start it again"):
            files.read(changed)
    path.unlink()
    with pytest.raises(ChangedFileError):
        sealed.read(path)
    path.write_bytes(b"one")
    assert sealed.read(path) == b"one"


def test_an_image_replaced_during_a_run_ends_it(folder: Path, noise: Callable[..., Path]) -> None:
    files = ImageFiles(folder, 8)
    plain = [image for image, _ in files]
    files.seal()
    assert all((a == b).all() for a, (b, _) in zip(plain, files, strict=True))
    batches = iter(ImageLoader(files, 2))
    next(batches)
    noise(folder / "dog" / "5.png", seed=99)
    with pytest.raises(ChangedFileError, match=r"5\.png was changed"):
        list(batches)
    assert files.unreadable == {}


def test_training_knows_its_images_by_their_contents(folder: Path, noise: Callable[..., Path]) -> None:
    before = find_images(folder).fingerprint
    assert find_images(folder).fingerprint == before
    noise(folder / "dog" / "5.png", seed=99)
    assert find_images(folder).fingerprint != before
    noise(folder / "dog" / "5.png", seed=5)
    assert find_images(folder).fingerprint == before
