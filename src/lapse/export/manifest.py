"""The manifest of an export: its files, with their sizes and checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from lapse.core.clock import iso
from lapse.core.errors import StoreRefusedError
from lapse.core.keys import SessionKey, check_key

MANIFEST: Final = "manifest.json"
_FORMAT: Final = "lapse-export"
_VERSION: Final = 1
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of an export."""

    name: str
    lines: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of an export.

    Attributes:
        user_id: whose it is.
        app_name: the only app that was exported; None: all.
        at: the moment that it shows, by the clock of whoever exported.
        lapse: the version of Lapse that wrote it.
        files: its files.
    """

    user_id: str
    app_name: str | None
    at: datetime
    lapse: str
    files: tuple[FileEntry, ...]

    @property
    def lines(self) -> dict[str, int]:
        """Return how many lines each file has."""
        return {entry.name: entry.lines for entry in self.files}

    def text(self) -> str:
        """Return it as it is written."""
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "userId": self.user_id,
            "appName": self.app_name,
            "exportedAt": iso(self.at),
            "lapse": self.lapse,
            "files": [asdict(entry) for entry in self.files],
        }
        return json.dumps(document, indent=2) + "\n"


@dataclass(slots=True)
class Sum:
    """Counts and checksums what is written to a file."""

    lines: int = 0
    size: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)

    def add(self, lines: Iterable[bytes]) -> bytes:
        """Take lines in, and return them as one text."""
        listed = list(lines)
        data = b"".join(listed)
        self.lines += len(listed)
        self.size += len(data)
        self._digest.update(data)
        return data

    def entry(self, name: str) -> FileEntry:
        """Return what the manifest says of the file."""
        return FileEntry(name, self.lines, self.size, self._digest.hexdigest())


def verified(folder: Path, known: Iterable[str]) -> Manifest:
    """Return the manifest of a folder, after checking every file that it names. Blocks.

    Raises:
        StoreRefusedError: the folder is no whole export, a file is not as it was written, or the
            manifest names a file that is not among `known`, as that of a newer Lapse may.
    """
    path = folder / MANIFEST
    try:
        manifest = _read(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise StoreRefusedError(
            f"{folder}: has no {MANIFEST}; name the folder of an export, or export again if that "
            "was stopped"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreRefusedError(
            f"{path}: is no manifest of an export: {error}; export again"
        ) from error
    unknown = [entry.name for entry in manifest.files if entry.name not in set(known)]
    if unknown:
        raise StoreRefusedError(
            f"{path}: names {unknown[0]!r:.60}, which this Lapse cannot import; use the Lapse that "
            "has exported it, or a newer one"
        )
    for entry in manifest.files:
        try:
            found = _sum_of(folder / entry.name).entry(entry.name)
        except OSError as error:
            raise StoreRefusedError(
                f"{folder / entry.name}: {error.strerror}; export again"
            ) from error
        if found != entry:
            raise StoreRefusedError(
                f"{folder / entry.name}: is not what was exported: {found.lines} lines with "
                f"SHA-256 {found.sha256[:16]}…, and the manifest says {entry.lines} with "
                f"{entry.sha256[:16]}…; copy the export again"
            )
    return manifest


def _read(document: dict[str, Any]) -> Manifest:
    if document.get("format") != _FORMAT or document.get("version") != _VERSION:
        raise ValueError(f"it is not of format {_FORMAT!r}, version {_VERSION}")
    app_name = document["appName"]
    check_key(SessionKey(app_name or "-", document["userId"], "-"))
    return Manifest(
        document["userId"],
        app_name,
        datetime.fromisoformat(document["exportedAt"]),
        document["lapse"],
        tuple(FileEntry(**entry) for entry in document["files"]),
    )


def _sum_of(path: Path) -> Sum:
    found = Sum()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.add([chunk])
            found.lines += chunk.count(b"\n") - 1
    return found
