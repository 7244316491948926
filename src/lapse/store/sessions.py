"""The sessions of a store: the lobby's half, and the half that ADK sees."""

from __future__ import annotations

from lapse.store.conversations import Conversations
from lapse.store.lobby import Lobby


class Sessions(Lobby, Conversations):
    """The fifteen core operations on sessions, in two halves.

    The lobby is always Lapse's own. Another session service can take the place of conversations.
    """
