"""What the middleware of a request share: the path that routes match, and the body.

A scope is ASGI's dictionary of a request. Nothing here knows a web framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BODY: Final = "lapse.body"
"""Where a request's scope has its `Body`, once the body has been read."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: read whole, measured, and parsed once.

    Attributes:
        raw: its bytes.
        is_document: whether it was parsed, because its route takes JSON and it is not empty.
        document: the JSON in it.
        fields: the top-level fields of a JSON object; if a name comes twice, the last one counts.
            Empty for everything else.
        repeated: the names that come twice at the top level of a JSON object.
        error: the error of the parser: a `json.JSONDecodeError`, or a ValueError for a number that
            is too long. None if the body is JSON or was not parsed.
        values: an upper bound of the number of values in the JSON.
    """

    raw: bytes
    is_document: bool = False
    document: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    error: ValueError | None = None
    values: int = 0


def body_of(scope: Mapping[str, Any]) -> Body | None:
    """Return the body of a request; None if it has none, or if it was not read yet."""
    body: Body | None = scope.get(BODY)
    return body


def fields_of(scope: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the top-level fields of a request's JSON object; empty if it has none."""
    body = body_of(scope)
    return {} if body is None else body.fields


def route_path(scope: Mapping[str, Any]) -> str:
    """Return the path that the application's routes match: `path` below `root_path`.

    ASGI's `path` includes the `root_path` at which an application is mounted; behind a proxy
    that takes it off, it does not. What only begins with the same letters is not below it.
    """
    path, root_path = str(scope["path"]), str(scope.get("root_path", ""))
    below = path.removeprefix(root_path)
    is_below = path.startswith(root_path) and (not below or below.startswith("/"))
    return below if is_below else path
