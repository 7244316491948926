"""Where an export is written: a new folder, or a ZIP archive that is sent while it is made."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from lapse.core.errors import InvalidValueError

_OWN: Final = 0o600
_OWN_FOLDER: Final = 0o700


class Sink(Protocol):
    """Takes the files of an export, one after the other. Every method blocks."""

    def begin(self, name: str) -> None:
        """Begin a file."""
        ...

    def write(self, data: bytes) -> None:
        """Write to the file that was begun."""
        ...

    def end(self) -> None:
        """End the file that was begun."""
        ...

    def release(self) -> None:
        """Let go of a file that was begun and not ended, because the export was stopped."""
        ...


class Folder:
    """A `Sink` that writes files that only their owner may read, into a folder of their own.

    Args:
        path: the folder. It is made if it does not exist.

    Raises:
        InvalidValueError: the folder is not empty, is no folder, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        try:
            path.mkdir(mode=_OWN_FOLDER, parents=True, exist_ok=True)
            is_empty = not any(path.iterdir())
        except OSError as error:
            raise InvalidValueError("--out", f"{path}: {error.strerror}") from error
        if not is_empty:
            raise InvalidValueError("--out", f"{path} is not empty; name a new folder")

    def begin(self, name: str) -> None:
        """Make a file; it must not exist."""
        descriptor = os.open(self._path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWN)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        """Write to it."""
        assert self._file is not None
        self._file.write(data)

    def end(self) -> None:
        """Have the disk keep it."""
        assert self._file is not None
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())

    def release(self) -> None:
        """Close the file; without a manifest nobody takes it for whole."""
        if self._file is not None:
            self._file.close()


class Archive:
    """A `Sink` that makes a ZIP archive, of which `take` returns what is ready so far."""

    def __init__(self) -> None:
        self._ready = _Outgoing()
        self._zip = zipfile.ZipFile(self._ready, "w", zipfile.ZIP_DEFLATED)
        self._entry: Any = None

    def begin(self, name: str) -> None:
        """Begin an entry."""
        self._entry = self._zip.open(name, "w", force_zip64=True)

    def write(self, data: bytes) -> None:
        """Write to it."""
        self._entry.write(data)

    def end(self) -> None:
        """End it."""
        self._entry.close()

    def release(self) -> None:
        """No-op: nothing but memory is held."""

    def close(self) -> None:
        """Write the archive's end."""
        self._zip.close()

    def take(self) -> bytes:
        """Return what is ready, and forget it."""
        return self._ready.take()


class _Outgoing(io.RawIOBase):
    """What an archive writes, until it is taken; it cannot seek."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken
