"""Hand-overs that are broken on purpose, so that a proof is seen to fail."""

BREAKS = ("no fence", "no re-read", "settle before put")


def break_on_purpose(process, broken):
    """Break the hand-overs of a process."""
    made = process.hand_overs
    match broken:
        case "no fence":
            made.store = _Unfenced(made.store)
        case "no re-read":
            made._putting.find = _seeing_nothing(made._putting.find)
        case "settle before put":
            made._putting.put = _after_settling(made, made._putting.put)


class _Unfenced:
    """Steps of the lobby that any process may take, whoever has taken the hand-over over since."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def renew(self, *_args, **_more):
        return True

    async def settle(self, key, token, **more):
        return await self._store.settle(key, await self._newest(key, token), **more)

    async def note_refusal(self, key, token):
        return await self._store.note_refusal(key, await self._newest(key, token))

    async def end_delete(self, key, token):
        return await self._store.end_delete(key, await self._newest(key, token))

    async def _newest(self, key, token):
        return (await self._store.place(key)).token or token


def _seeing_nothing(find):
    async def blind(work, lease):
        found = await find(work, lease)
        return None if found is None else found.model_copy(update={"events": []})

    return blind


def _after_settling(made, put):
    async def hasty(work, lease, *, is_new):
        await made.store.settle(work.key, work.token, service_id=None)
        return await put(work, lease, is_new=is_new)

    return hasty
