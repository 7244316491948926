"""Options of the session service that apply to one session, inside a `with` block.

Whoever runs an agent calls ADK's runner, and the runner calls the session service. The options
reach the service through context variables, because the runner does not pass them on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from lapse.core.contexts import Having
from lapse.core.errors import AnswerLostError, StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause

if TYPE_CHECKING:
    from google.adk.events.event import Event

_reviving: ContextVar[tuple[SessionKey, Cause] | None] = ContextVar("lapse_reviving", default=None)

_UNOBSERVED: Final = nullcontext(False)


class AppendObserver(Protocol):
    """Is called before and after each event that is appended to one session.

    Attributes:
        message_stored: whether the first event, the user's message, is stored.
    """

    message_stored: bool

    async def before_append(self, event: Event) -> bool:
        """Prepare for an event that will be stored next; may set its timestamp or id, or raise.

        The session's append lock is held, so events arrive in the order in which they are stored.
        An error keeps the event from being stored. Returns whether the event may be stored already,
        by an earlier attempt of the same request.
        """
        ...

    def after_append(self, event: Event) -> None:
        """Note that the event is stored."""
        ...


_observed: ContextVar[tuple[SessionKey, AppendObserver] | None] = ContextVar(
    "lapse_observed", default=None
)


def reviving(
    key: SessionKey, *, cause: Cause | None = None
) -> Having[tuple[SessionKey, Cause] | None]:
    """Let a read inside the block resurrect this session if it has expired.

    A runner reads its session before it appends the message that would resurrect it.

    Args:
        key: the session.
        cause: why the session is resurrected. By default it is that of the block around this one,
            if that is about the same session, and else RUN: a run, which brings a message. With
            REQUEST the resurrection counts like a creation.
    """
    return Having(_reviving, (key, cause or revival_cause(key) or Cause.RUN))


def revival_cause(key: SessionKey) -> Cause | None:
    """Return why a read may resurrect this session; None if it may not."""
    revived = _reviving.get()
    return revived[1] if revived is not None and revived[0] == key else None


def observing_appends(
    key: SessionKey, observer: AppendObserver
) -> Having[tuple[SessionKey, AppendObserver] | None]:
    """Call `observer` for each event that is appended to this session inside the block.

    Tasks that are created inside the block inherit this and keep it after the block has ended.
    """
    return Having(_observed, (key, observer))


def observe_appends(key: SessionKey, observer: AppendObserver) -> None:
    """Observe this session for the rest of the block of `observing_appends` around the call."""
    _observed.set((key, observer))


def observed_append(key: SessionKey, event: Event) -> AbstractAsyncContextManager[bool]:
    """Call the session's observer, if there is one, before and after the block.

    The block stores `event`, unless it is told that the event may be stored already and finds it.
    If the block raises, `after_append` is not called.

    Raises:
        AnswerLostError: the store does not answer, and the message is stored already.
    """
    observed = _observed.get()
    if observed is None or observed[0].stripped != key.stripped:
        return _UNOBSERVED
    return _observed_by(observed[1], event)


@asynccontextmanager
async def _observed_by(observer: AppendObserver, event: Event) -> AsyncIterator[bool]:
    is_repeat = await observer.before_append(event)
    try:
        yield is_repeat
    except StoreUnavailableError as error:
        if observer.message_stored:
            raise AnswerLostError(str(error)) from error
        raise
    observer.after_append(event)
