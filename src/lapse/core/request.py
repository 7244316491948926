"""What the middleware of a request share: the path that routes match, and the body.

A scope is ASGI's dictionary of a request. Nothing here knows a web framework.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

BODY: Final = "lapse.body"
"""Where a request's scope has its `Body`, once the body has been read."""

KNOWN: Final = "lapse.known"
"""The ASGI extension, a function without arguments, that tells the server that the caller of a
request is known. Its connection then waits for no stranger's requests (`limits/turns.py`)."""

SLASH: Final = "\x1f"
"""Stands in a scope's path for a slash inside a part, which came as `%2F`.

No path that is passed on contains this control character otherwise: see `limits/head.py`."""

_ENCODED: Final = re.compile(rb"%2[fF]")
_WITH_IDS: Final = re.compile(r"/(?:apps|users|dev/apps)/")


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


def tell_known(scope: Mapping[str, Any]) -> None:
    """Tell the server that the caller of a request is known, if the server asks for it."""
    known: Callable[[], None] | None = scope.get("extensions", {}).get(KNOWN)
    if known is not None:
        known()


def root_of(scope: Mapping[str, Any]) -> str:
    """Return the prefix below which an application is served; a path that is told begins with it.

    It is empty at the root, and has no slash at its end.
    """
    return str(scope.get("root_path", "")).rstrip("/")


def route_path(scope: Mapping[str, Any]) -> str:
    """Return the path that the application's routes match: `path` below `root_path`.

    ASGI's `path` includes the `root_path` at which an application is mounted; behind a proxy
    that takes it off, it does not. What only begins with the same letters is not below it.
    """
    path, root_path = str(scope["path"]), str(scope.get("root_path", ""))
    below = path.removeprefix(root_path)
    is_below = path.startswith(root_path) and (not below or below.startswith("/"))
    return below if is_below else path


def keeping_slashes(scope: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the scope with SLASH in its path for each slash that came encoded in an id.

    ASGI's `path` is decoded, and routes are matched with it: an encoded slash, as in the id of a
    user who is named by a URL, would end the id there. Only paths of ADK's and Lapse's routes with
    ids are changed. A scope without a `raw_path` that fits its path is left as it is.
    """
    raw = scope.get("raw_path") or b""
    if not _ENCODED.search(raw):
        return scope
    path = unquote(_ENCODED.sub(SLASH.encode(), raw).decode("latin-1"))
    kept = {**scope, "path": path}
    fits = path.replace(SLASH, "/") == scope["path"]
    return kept if fits and _WITH_IDS.match(route_path(kept)) else scope


def parts_of(path: str) -> list[str]:
    """Return the parts of a path between its slashes, each as it was before it was encoded."""
    parts = path.split("/")
    return list(map(decoded, parts)) if SLASH in path else parts


def decoded(part: str) -> str:
    """Return a part of a path as it was before it was encoded, such as a route's parameter."""
    return part.replace(SLASH, "/")


def decode_parameters(scope: MutableMapping[str, Any]) -> None:
    """Put back the slashes in the parameters that a route has taken from its path."""
    if SLASH in scope["path"]:
        scope["path_params"] = {
            name: decoded(value) if isinstance(value, str) else value
            for name, value in scope.get("path_params", {}).items()
        }
