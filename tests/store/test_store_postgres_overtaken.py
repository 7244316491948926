"""What another process does between two statements of an operation, on PostgreSQL."""

from shared_statements import a_store

from backends import T0, create, key
from lapse.core.lifecycle import Status
from lapse.store.conversations import Conversations
from parts import Overtaken
from postgres import run

AGAIN = "UPDATE lapse_lobby SET created_at = created_at + interval '1 s'"


async def test_a_delete_leaves_a_session_that_was_created_meanwhile():
    """Seen to fail with a `delete_record` that takes whatever has the key."""
    async with a_store() as (url, store):
        await create(store)

        def act(name):
            if name == "lifecycle":
                run(url, AGAIN)

        await Conversations(Overtaken(store.at(T0), act)).delete(key())
        assert (await store.at(T0).lifecycle(key())).status is Status.WAITING
