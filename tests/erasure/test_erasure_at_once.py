"""Two erasures of one user at once."""

from lapse.erasure.store import ErasureStore
from parts import Intercepted, store_with_parts
from postgres import database, run

USER = "zoë"


class Overtaken(Intercepted):
    """A database on which another erasure ends after each statement of this one."""

    def __init__(self, database, url):
        super().__init__(database)
        self.url = url

    async def run(self, asking, **options):
        def overtaken():
            begun = asking()
            try:
                request = next(begun)
                while True:
                    answer = yield request
                    run(self.url, "DELETE FROM lapse_erasures")
                    request = begun.send(answer)
            except StopIteration as ended:
                return ended.value

        return await self._database.run(overtaken, **options)


async def test_an_erasure_begins_although_another_of_the_user_ends_meanwhile():
    """Seen to fail with two statements: what the first one finds, the second finds no more."""
    with database() as url:
        store = store_with_parts(url)
        await store.open()
        try:
            overtaken = ErasureStore(Overtaken(store, url))
            await ErasureStore(store).begin(USER, {"sessions": 2})
            assert await overtaken.begin(USER, {"sessions": 1}) == {"sessions": 2}
            assert await overtaken.begin(USER, {"sessions": 1}) == {"sessions": 1}
        finally:
            await store.close()
