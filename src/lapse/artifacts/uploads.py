"""The artifacts that a user's requests save: the quota, and the sessions that hold an upload."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from typing import Final

from lapse.core.artifacts import OF_THE_USER
from lapse.core.errors import StoreUnavailableError, TooManyArtifactsError
from lapse.core.keys import SessionKey
from lapse.store.database import Database
from lapse.store.locking import locked
from lapse.store.operation import Asking, Part, first, operation, rows

MIB: Final = 1024 * 1024

_LEAST: Final = 4096
"""Bytes that the smallest artifact counts for: files take whole blocks, and each has metadata."""

_ABANDONED: Final = timedelta(hours=1)
"""An upload that is not saved after this time never will be."""


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Upload:
    """A version of an artifact that a request saves.

    Attributes:
        key: the session; its id is empty for an artifact of the user.
        artifact: a digest of the artifact's name.
        size: the bytes that it counts for.
        upload: its own id.
    """

    key: SessionKey
    artifact: str
    size: int
    upload: str = field(default_factory=_new_id)

    @classmethod
    def of(cls, key: SessionKey, filename: str, size: int) -> Upload:
        """Return the upload of an artifact of this size to a session."""
        where, artifact = _place(key, filename)
        return cls(where, artifact, max(size, _LEAST))


class UploadStore(Part):
    """The artifacts that requests have saved: one record for each version that is kept."""

    @operation(together=True)
    def take_room(self, upload: Upload, most: int) -> Asking[bool]:
        """Record an upload that begins, unless its user would then have more than `most` bytes.

        Returns whether it was recorded. Uploads that are not saved yet count, too. A repeat is
        recognised by the upload's id.
        """
        # One upload of a user after the other: the next statement sees what the last one took.
        yield from locked(f"lapse_uploads {upload.key.user_id}")
        taken = yield from first("take_room", upload.key, **_recorded(upload), most_bytes_kept=most)
        return taken is not None

    @operation()
    def note_upload(self, upload: Upload) -> Asking[None]:
        """Record an upload that begins, if its session waits: no creation may return that session.

        There is no quota. A repeat records the same again.
        """
        yield from rows("note_upload", upload.key, **_recorded(upload))

    @operation()
    def keep_upload(self, upload: Upload, *, counted: bool) -> Asking[None]:
        """Record that an upload is saved; if its session has ended, note it in the outbox again.

        Without `counted` only an upload that `note_upload` has recorded is. A repeat records the
        same again.
        """
        if counted:
            yield from rows("keep_upload", upload.key, **_recorded(upload))
        else:
            yield from rows("keep_noted", upload=upload.upload)
        yield from rows("note_late_artifacts", upload.key)

    @operation(writes=False)
    def saved_uploads(self, key: SessionKey, filename: str) -> Asking[Sequence[str]]:
        """Return the ids of the saved uploads of one artifact."""
        where, artifact = _place(key, filename)
        found = yield from rows("saved_uploads", where, artifact=artifact, abandoned=_ABANDONED)
        return [row["upload"] for row in found]

    @operation()
    def forget_uploads(self, uploads: Sequence[str]) -> Asking[None]:
        """Delete the records of uploads whose versions are deleted, or were never saved.

        A repeat deletes what is left of them.
        """
        yield from rows("forget_uploads", uploads=list(uploads))


class Uploads:
    """Lets requests save artifacts, within a quota for each user.

    Args:
        database: the store that keeps count, for all servers.
        most: how many bytes the uploaded artifacts of one user may have, in all apps; None: there
            is no quota, and only uploads to waiting sessions are recorded.
    """

    def __init__(self, database: Database, most: int | None) -> None:
        self.most = most
        self._store = UploadStore(database)

    @asynccontextmanager
    async def saving(self, key: SessionKey, filename: str, size: int) -> AsyncIterator[None]:
        """Count an artifact of so many bytes, which the block saves in a session.

        If the session ends before the block does, the artifact is deleted like the others of it.

        Raises:
            TooManyArtifactsError: the user's artifacts would exceed the quota.
        """
        upload = Upload.of(key, filename, size)
        if self.most is None:
            await self._store.note_upload(upload)
        elif not await self._store.take_room(upload, self.most):
            raise TooManyArtifactsError(
                f"artifact: this user's artifacts may have at most {self.most / MIB:g} MiB "
                "together (LAPSE_ARTIFACTS_MIB_PER_USER); delete some of them, or sessions that "
                "have some"
            )
        try:
            yield
        except Exception:
            with suppress(StoreUnavailableError):  # it counts until it is abandoned
                await self._store.forget_uploads([upload.upload])
            raise
        await self._store.keep_upload(upload, counted=self.most is not None)

    @asynccontextmanager
    async def deleting(self, key: SessionKey, filename: str) -> AsyncIterator[None]:
        """Give room back for an artifact that the block deletes, with all its versions.

        A version that is saved meanwhile goes on counting.
        """
        uploads = await self._store.saved_uploads(key, filename)
        yield
        if uploads:
            await self._store.forget_uploads(uploads)


def _place(key: SessionKey, filename: str) -> tuple[SessionKey, str]:
    """Return where an artifact of a session is kept, and a digest of its name."""
    where = key._replace(session_id="") if filename.startswith(OF_THE_USER) else key
    digest = blake2b(filename.encode(errors="surrogatepass"), digest_size=16)
    return where, digest.hexdigest()


def _recorded(upload: Upload) -> dict[str, str | int]:
    return {"upload": upload.upload, "artifact": upload.artifact, "bytes": upload.size}
