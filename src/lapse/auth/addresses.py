"""From which address a request comes: its peer's, or what trusted proxies say of it.

`X-Forwarded-For` is written by whoever sends a request; only what a trusted proxy has added to
it, at its right end, is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import lru_cache
from hashlib import blake2b
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, TypeAlias

from lapse.core.contexts import Having
from lapse.core.errors import InvalidValueError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_ONE_SITE: Final = 64
"""The length of the prefix that all IPv6 addresses of one site share."""

_LONGEST: Final = 64
"""Characters of an address with its brackets, zone and port."""

_MOST_HOPS: Final = 32


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on this address is reached from this machine only."""
    address = parse_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def parse_address(text: str) -> Address | None:
    """Read an address as proxies write it: bare, `1.2.3.4:80`, `[::1]` or `[::1]:80`.

    An IPv4-mapped IPv6 address is read as the IPv4 address, and the zone of an IPv6 address is left
    out. None if the text is not an address.
    """
    text = text.strip()
    return None if len(text) > _LONGEST else _parsed(text)


@lru_cache(maxsize=1024)  # each request has one, mostly that of the proxy
def _parsed(text: str) -> Address | None:
    host = text
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            return None
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def parse_networks(texts: Iterable[str], *, field: str) -> tuple[Network, ...]:
    """Read addresses and networks such as `10.0.0.7`, `10.0.0.0/8` or `fd00::/8`.

    Raises:
        InvalidValueError: one is neither. The error names `field`.
    """
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ip_network(text.strip()))
        except ValueError as error:
            reason = f"must be addresses or networks such as 10.0.0.0/8, not {text!r:.60}: {error}"
            raise InvalidValueError(field, reason) from error
    return tuple(found)


def is_among(address: Address, networks: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks."""
    return any(address in network for network in networks)


def client_address(
    peer: str | None, forwarded: Sequence[str], proxies: Sequence[Network]
) -> Address | None:
    """Return the address from which a request comes.

    The list is read from the right. While an address is a trusted proxy's, the next address to the
    left counts, because that proxy has seen it. If that one cannot be read, the proxy's own counts.

    Args:
        peer: the address at the other end of the connection; None where it has none.
        forwarded: the values of all `X-Forwarded-For` headers, in their order.
        proxies: the addresses of the trusted proxies.

    Returns:
        The address; None if the connection has none.
    """
    address = parse_address(peer or "")
    if address is None or not is_among(address, proxies):
        return address
    for hop in _from_the_right(forwarded):
        seen = parse_address(hop)
        if seen is None:
            break
        address = seen
        if not is_among(address, proxies):
            break
    return address


def site_of(address: Address) -> str:
    """Return a digest of an address, or of the network that an IPv6 site has for itself.

    It tells sites apart without naming them in the store; who holds an address can compare.
    """
    network: object = address
    if isinstance(address, IPv6Address):
        network = IPv6Network((int(address) >> _ONE_SITE << _ONE_SITE, _ONE_SITE))
    return blake2b(str(network).encode(), digest_size=8, person=b"lapse-site").hexdigest()


_address: ContextVar[Address | None] = ContextVar("lapse_address", default=None)


def coming_from(address: Address | None) -> Having[Address | None]:
    """Have the work inside the block done for somebody at an address."""
    return Having(_address, address)


def current_address() -> Address | None:
    """Return the address from which the work was asked for; None where that is not known."""
    return _address.get()


def current_site() -> str | None:
    """Return the digest of where the work was asked for; None where that is not known."""
    address = _address.get()
    return None if address is None else site_of(address)


def _from_the_right(forwarded: Sequence[str]) -> Iterator[str]:
    hops = 0
    for value in reversed(forwarded):
        for hop in reversed(value.split(",")):
            hops += 1
            if hops > _MOST_HOPS:
                return
            yield hop


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text[0] == ":" and digits.isascii() and digits.isdigit() and len(digits) <= len("65535")
