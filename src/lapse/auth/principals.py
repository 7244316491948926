"""Who asks: the principal of a request, known to whoever works for it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lapse.core.contexts import Having


class Role(StrEnum):
    """What a principal may do.

    A USER sees and changes what is their own; a SERVICE acts for users; an OPERATOR sees every
    session's life, and may change it.
    """

    USER = "user"
    SERVICE = "service"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who was let in.

    Attributes:
        name: who it is: of a user, the user id.
        role: what it may do.
    """

    name: str
    role: Role = Role.USER

    def may_act_for(self, user_id: str) -> bool:
        """Return whether it may see and change what belongs to a user."""
        return self.role is not Role.USER or self.name == user_id


LONGEST_NAME: Final = 128
"""Characters of a principal's name."""

_principal: ContextVar[Principal | None] = ContextVar("lapse_principal", default=None)


def acting(principal: Principal | None) -> Having[Principal | None]:
    """Have the work inside the block done for a principal."""
    return Having(_principal, principal)


def current_principal() -> Principal | None:
    """Return for whom the work is done; None where nobody is authenticated."""
    return _principal.get()


def current_actor(*roles: Role) -> str | None:
    """Return the name of who asks, to be recorded.

    None where nobody is authenticated, or if `roles` are given and the principal has none of them.
    """
    principal = current_principal()
    if principal is None or (roles and principal.role not in roles):
        return None
    return principal.name


def current_deputy() -> str | None:
    """Return the name of a service or an operator who asks; they act on what is another's.

    None for a user, who acts on their own, and where nobody is authenticated.
    """
    return current_actor(Role.SERVICE, Role.OPERATOR)


def is_foreign(user_id: str) -> bool:
    """Return whether the work is done for somebody who may not act for a user.

    Never where nobody is authenticated: a sweeper, a command, a server without authentication.
    """
    principal = _principal.get()
    return principal is not None and not principal.may_act_for(user_id)
