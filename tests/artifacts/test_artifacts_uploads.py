"""The quota of uploaded artifacts, on every store."""

import asyncio
from datetime import timedelta

import pytest

from backends import HOUR, T0, TICK, create, key
from lapse.artifacts.outbox import Outbox
from lapse.artifacts.uploads import Upload, Uploads
from lapse.core.errors import TooManyArtifactsError

LEAST = 4096
QUOTA = 10 * LEAST


async def uploaded(store, where=key(), name="a.txt", size=1, now=T0):
    """Save an artifact; return whether the quota let it in."""
    try:
        async with Uploads(store.at(now), QUOTA).saving(where, name, size):
            return True
    except TooManyArtifactsError:
        return False


async def free(store, user="ann"):
    """Return how many of the smallest artifacts the quota still has room for."""
    probes = [Upload.of(key("probe", user), "probe", 1)]
    while await store.at(T0).take_room(probes[-1], QUOTA):
        probes.append(Upload.of(key("probe", user), "probe", 1))
    await store.forget_uploads([probe.upload for probe in probes])
    return len(probes) - 1


async def deleted(store, where=key(), name="a.txt"):
    async with Uploads(store.at(T0), QUOTA).deleting(where, name):
        pass


async def test_a_users_artifacts_in_all_apps_and_sessions_count_together(store):
    assert await uploaded(store, size=4 * LEAST)
    assert await uploaded(store, key("s2", app="other"), "user:b.txt", size=5 * LEAST)
    assert not await uploaded(store, key("s3"), size=LEAST + 1)
    assert await uploaded(store, key("s3"), size=1), "the smallest counts for a block"
    assert not await uploaded(store, size=1)
    assert await uploaded(store, key(user="bob"), size=QUOTA)


async def test_a_refusal_says_how_much_is_allowed(store):
    with pytest.raises(TooManyArtifactsError, match="at most 2 MiB together"):
        async with Uploads(store, 2 * 1024 * 1024).saving(key(), "a", 3 * 1024 * 1024):
            raise AssertionError("it was let in")


async def test_a_deleted_artifact_gives_its_room_back_with_all_its_versions(store):
    for _ in range(3):
        assert await uploaded(store, size=2 * LEAST)
    assert await uploaded(store, name="other.txt", size=LEAST)
    assert await free(store) == 3
    await deleted(store, key("s2"))
    await deleted(store, key(user="bob"))
    assert await free(store) == 3
    await deleted(store)
    assert await free(store) == 9


async def test_an_artifact_of_the_user_is_the_same_in_every_session(store):
    assert await uploaded(store, key("s1"), "user:a", size=QUOTA)
    await deleted(store, key("s2"), "user:a")
    assert await free(store) == 10


async def test_an_artifact_that_could_not_be_saved_counts_for_nothing(store):
    with pytest.raises(ConnectionError):
        async with Uploads(store, QUOTA).saving(key(), "a", QUOTA):
            raise ConnectionError
    assert await free(store) == 10


async def test_a_version_that_is_saved_while_its_artifact_is_deleted_goes_on_counting(store):
    """Seen to fail when a deletion forgets uploads that are not saved yet.

    A client that saves and deletes at once could otherwise fill the disk uncounted.
    """
    uploads = Uploads(store.at(T0), QUOTA)
    assert await uploaded(store, size=2 * LEAST)
    async with uploads.saving(key(), "a.txt", LEAST):
        await deleted(store)
    assert await free(store) == 9


async def test_an_upload_that_no_process_finished_is_forgotten_with_its_artifact(store):
    assert await store.at(T0).take_room(Upload.of(key(), "a.txt", QUOTA), QUOTA)
    await deleted(store)
    assert await free(store) == 0
    async with Uploads(store.at(T0 + HOUR), QUOTA).deleting(key(), "a.txt"):
        pass
    assert await free(store) == 10


async def test_the_same_upload_takes_room_once(store):
    """A statement that broke off may be repeated."""
    upload = Upload.of(key(), "a.txt", QUOTA)
    if store.database.__class__.__name__ == "PostgresDatabase":
        assert [await store.take_room(upload, QUOTA) for _ in range(2)] == [True, True]
    await store.keep_upload(upload, counted=True)
    await store.keep_upload(upload, counted=True)
    await deleted(store)
    assert await free(store) == 10


async def test_uploads_at_once_never_exceed_the_quota(two_stores):
    """Seen to fail on PostgreSQL without `lock_uploads`."""
    attempts = (uploaded(two_stores[n % 2], key(f"s{n}"), now=T0) for n in range(30))
    assert sum(await asyncio.gather(*attempts)) == 10


async def ended(store, now=T0):
    """Delete the artifacts of the ended sessions, as a server does."""
    outbox = Outbox(store.at(now))
    for entry in await outbox.take_outbox(10):
        await outbox.settle_outbox(entry)


async def test_the_end_of_a_session_gives_its_room_back_and_none_of_its_users(open_store):
    store = await open_store(artifacts=True)
    await create(store)
    assert await uploaded(store, size=4 * LEAST)
    assert await uploaded(store, name="user:a", size=2 * LEAST)
    await store.at(T0).delete(key())
    assert await free(store) == 4, "its artifacts are there until they are deleted"
    await ended(store)
    assert await free(store) == 8


async def test_what_a_new_session_of_the_id_has_saved_goes_on_counting(open_store):
    store = await open_store(artifacts=True)
    await create(store)
    assert await uploaded(store, size=4 * LEAST)
    await store.at(T0).delete(key())
    await create(store, now=T0 + TICK)
    assert await uploaded(store, size=LEAST, now=T0 + TICK)
    await ended(store, T0 + HOUR)
    assert await free(store) == 9


@pytest.mark.parametrize("most", [QUOTA, None])
async def test_a_session_that_ends_while_it_is_uploaded_to_is_noted_again(open_store, most):
    """Seen to fail when nobody looks whether the session still lives: the file stays for good."""
    store = await open_store(artifacts=True)
    await create(store)
    async with Uploads(store.at(T0 + TICK), most).saving(key(), "a", LEAST):
        await store.at(T0).delete(key())
        await ended(store)
    (entry,) = await Outbox(store.at(T0 + HOUR)).take_outbox(10)
    assert (entry.key, entry.ended_at) == (key(), T0 + TICK)
    await Outbox(store).settle_outbox(entry)
    assert await free(store) == 10


async def test_uploads_to_a_session_that_lives_note_nothing(open_store):
    store = await open_store(artifacts=True)
    await create(store)
    assert await uploaded(store)
    assert await uploaded(store, name="user:a")
    assert not await Outbox(store.at(T0 + timedelta(days=1))).take_outbox(10)
