"""The state that sessions share: that of an app, and that of a user in an app.

It is as large as `Rules.shared_state` at most. The statements that change it see to that: they do
nothing where there is no room.
"""

from __future__ import annotations

import json

from lapse.core.documents import APP_PREFIX, USER_PREFIX, StateDelta
from lapse.core.errors import SharedStateFullError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules
from lapse.store.operation import Asking, only, rows


def shared_state_changed(key: SessionKey, delta: StateDelta) -> Asking[None]:
    """Let a change of app and user state take effect, in the transaction of what caused it."""
    if delta.app:
        yield from rows("update_app_state", key, delta=json.dumps(delta.app))
    if delta.user:
        yield from rows("update_user_state", key, delta=json.dumps(delta.user))


def refuse_without_room(key: SessionKey, delta: StateDelta, rules: Rules) -> Asking[None]:
    """Find out whether a statement did nothing because there was no room for a change of state.

    Raises:
        SharedStateFullError: there is none.
    """
    if not (delta.app or delta.user):
        return
    row = yield from only(
        "room",
        key,
        app_delta=json.dumps(delta.app) if delta.app else None,
        user_delta=json.dumps(delta.user) if delta.user else None,
    )
    room = {APP_PREFIX: row["app_has_room"], USER_PREFIX: row["user_has_room"]}
    if full := [prefix for prefix, has_room in room.items() if not has_room]:
        raise SharedStateFullError(full, rules.shared_state)
