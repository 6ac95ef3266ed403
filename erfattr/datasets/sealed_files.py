"""Files that a run knows by their contents, so that one which is changed while it goes on is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


class ChangedFileError(ValueError):
    """A file no longer holds what it held when the run began."""


class SealedFiles:
    """The contents of files, by their SHA-256.

    All files are read once, one at a time. `read` reads one of them again, and refuses other contents: what a
    run says that it was computed from is what it was computed from.

    Args:
        paths: The files; one that cannot be read is sealed as such.

    Attributes:
        sha256: Of all contents, one behind the other, as 64 hex digits.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "a.png"
        >>> _ = path.write_bytes(b"first")
        >>> sealed = SealedFiles([path])
        >>> sealed.read(path)
        b'first'
        >>> _ = path.write_bytes(b"second")
        >>> try:
        ...     sealed.read(path)
        ... except ChangedFileError as error:
        ...     print(str(error).replace(str(path), "a.png"))
        the file a.png was changed while the run went on; start it again
        >>> folder.cleanup()
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        of_all = hashlib.sha256()
        self._digests: dict[Path, bytes | None] = {}
        for path in paths:
            try:
                content = path.read_bytes()
            except OSError:
                self._digests[path] = None
            else:
                of_all.update(content)
                self._digests[path] = hashlib.sha256(content).digest()
        self.sha256 = of_all.hexdigest()

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of one file as 64 hex digits, empty if it could not be read."""
        digest = self._digests[path]
        return "" if digest is None else digest.hex()

    def read(self, path: Path) -> bytes:
        """Return the content of one of the files.

        Raises:
            OSError: the file cannot be read, and could not be before.
            ChangedFileError: (a ``ValueError``) its content is another, or it is gone.
        """
        sealed = self._digests[path]
        try:
            content = path.read_bytes()
        except OSError:
            if sealed is None:
                raise
            content = None
        if content is None or hashlib.sha256(content).digest() != sealed:
            raise ChangedFileError(f"the file {path} was changed while the run went on; start it again")
        return content
