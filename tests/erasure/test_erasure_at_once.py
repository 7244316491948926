"""Two erasures of one user at once."""

from functools import partial

from lapse.erasure.store import ErasureStore
from parts import Overtaken, store_with_parts
from postgres import database, run

USER = "zoë"


async def test_an_erasure_begins_although_another_of_the_user_ends_meanwhile():
    """Seen to fail with two statements: what the first one finds, the second finds no more."""
    with database() as url:
        store = store_with_parts(url)
        await store.open()
        try:
            end = partial(run, url, "DELETE FROM lapse_erasures")
            overtaken = ErasureStore(Overtaken(store, lambda _: end()))
            await ErasureStore(store).begin(USER, {"sessions": 2})
            assert await overtaken.begin(USER, {"sessions": 1}) == {"sessions": 2}
            assert await overtaken.begin(USER, {"sessions": 1}) == {"sessions": 1}
        finally:
            await store.close()
