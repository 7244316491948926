"""URLs of stores as they may be shown: no password, and no parameter that could hold one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

MEMORY: Final = ":memory:"

_PORTS: Final = re.compile(r"[0-9,]+")


def without_password(url: str) -> str:
    """Return a store's URL without its password and its parameters, except for the host's."""
    scheme, slashes, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        return url.partition("?")[0]
    user, at, place = rest.rpartition("@")
    name = re.split("[:/?]", user)[0]
    return f"{scheme}{slashes}{name}{at}{_plain(place)}"


def place_of(url: str) -> str:
    """Return a store's URL as messages name it: also without the user, and a file's path whole."""
    scheme, slashes, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        path = rest.partition("?")[0].removeprefix("/")
        return f"{scheme}:///{path if path in {'', MEMORY} else Path(path).absolute()}"
    return f"{scheme}{slashes}{_plain(rest.rpartition('@')[2])}"


def _plain(place: str) -> str:
    path, _, query = place.partition("?")
    kept = [f"{name}={value}" for name, value in parse_qsl(query) if _is_place(name, value)]
    return f"{path}?{'&'.join(kept)}" if kept else path


def _is_place(name: str, value: str) -> bool:
    """Return whether a parameter says where a server is; a folder as host holds its socket."""
    return name == "host" or (name == "port" and _PORTS.fullmatch(value) is not None)
