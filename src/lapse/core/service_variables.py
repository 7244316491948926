"""Variables that Kubernetes and Docker set for services; some are named like settings.

In Kubernetes every container gets them for each service of its namespace: a service `lapse` gives
`LAPSE_SERVICE_HOST`, `LAPSE_SERVICE_PORT_HTTP`, `LAPSE_PORT`, `LAPSE_PORT_8000_TCP_ADDR` and more.
Docker gives them to the containers of a link.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def is_service_address(value: str) -> bool:
    """Return whether a value is a service's address, such as `tcp://10.0.0.7:8000`."""
    return _ADDRESS.fullmatch(value) is not None


def _is_host(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and int(value) < 1 << 16


def _is_protocol(value: str) -> bool:
    return value in {"tcp", "udp", "sctp"}


def _is_link(value: str) -> bool:
    return re.fullmatch(r"(/[\w.-]+){2,}", value) is not None


_PORT: Final = r"_PORT_\d+_(?:TCP|UDP|SCTP)"
_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]] = (
    (re.compile(r"(.+)_SERVICE_HOST"), _is_host),
    (re.compile(r"(.+?)_SERVICE_PORT(?:_[A-Z0-9_]+)?"), _is_port),
    (re.compile(r"(.+)_PORT"), is_service_address),
    (re.compile(rf"(.+){_PORT}(?:_START|_END)?"), is_service_address),
    (re.compile(rf"(.+){_PORT}_PROTO"), _is_protocol),
    (re.compile(rf"(.+){_PORT}_PORT(?:_START|_END)?"), _is_port),
    (re.compile(rf"(.+){_PORT}_ADDR"), _is_host),
    (re.compile(r"(.+)_NAME"), _is_link),
)


def service_variables(environment: Mapping[str, str]) -> set[str]:
    """Return the names of the variables that Kubernetes or Docker have set for a service.

    Both the name and the value must have the form of such a variable. Docker's copies of the
    variables of a linked container, `ALIAS_ENV_…`, may have any value; they count where the link
    has its `ALIAS_NAME`.
    """
    found, links = set(), set()
    for name, value in environment.items():
        for form, fits in _FORMS:
            if (match := form.fullmatch(name)) and fits(value):
                found.add(name)
                if fits is _is_link:
                    links.add(f"{match[1]}_ENV_")
    return found | {name for name in environment if name.startswith(tuple(links))}
