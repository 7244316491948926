"""From where a request comes, whatever it says of itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapse.auth.addresses import (
    client_address,
    coming_from,
    current_site,
    parse_address,
    parse_networks,
    site_of,
)
from lapse.core.errors import InvalidValueError

PROXIES = parse_networks(["10.0.0.0/8", "fd00::/8", "192.0.2.1"], field="proxies")


def client(peer, *forwarded, proxies=PROXIES):
    found = client_address(peer, forwarded, proxies)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9\t", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(text, expected):
    assert str(parse_address(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.9:",
        "203.0.113.9:x",
        "203.0.113.9:٣",
        "203.0.113.9:655350",
        "[2001:db8::1",
        "[2001:db8::1]443",
        "2001:db8::1]",
        "[]",
        "1",
        "0x7f.1",
        "203.0.113.09",
        "203.0.113.9 10.0.0.1",
        "203.0.113.9\r\nX: y",
        '"203.0.113.9"',
        "1" * 10_000,
    ],
)
def test_what_is_no_address_is_none(text):
    assert parse_address(text) is None


def test_without_proxies_the_peer_counts_whatever_is_said():
    assert client("203.0.113.9", "198.51.100.1", proxies=()) == "203.0.113.9"
    assert client("10.0.0.1", "198.51.100.1", proxies=()) == "10.0.0.1"


def test_nobody_but_a_trusted_proxy_is_believed():
    assert client("203.0.113.9", "198.51.100.1") == "203.0.113.9"


def test_a_trusted_proxy_tells_whom_it_has_seen():
    assert client("10.0.0.1", "198.51.100.1") == "198.51.100.1"
    assert client("::ffff:10.0.0.1", "198.51.100.1") == "198.51.100.1"
    assert client("192.0.2.1", "[2001:db8::1]:9") == "2001:db8::1"


def test_what_a_client_has_said_before_its_proxy_is_not_believed():
    assert client("10.0.0.1", "1.1.1.1, 2.2.2.2, 198.51.100.1") == "198.51.100.1"


def test_a_chain_of_trusted_proxies_is_followed_to_its_end():
    assert client("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.3,10.0.0.2") == "198.51.100.1"
    assert client("10.0.0.1", "6.6.6.6, 198.51.100.1, fd00::5") == "198.51.100.1"


def test_several_headers_are_one_list():
    """A client's own header comes first, and a proxy that adds a second one has the last word."""
    assert client("10.0.0.1", "6.6.6.6", "198.51.100.1") == "198.51.100.1"
    assert client("10.0.0.1", "198.51.100.1", "10.0.0.2") == "198.51.100.1"


def test_at_garbage_the_proxy_that_wrote_it_counts():
    assert client("10.0.0.1", "198.51.100.1, unknown") == "10.0.0.1"
    assert client("10.0.0.1", "198.51.100.1, junk, 10.0.0.2") == "10.0.0.2"
    assert client("10.0.0.1", "198.51.100.1,") == "10.0.0.1"


def test_where_all_are_proxies_the_farthest_counts():
    assert client("10.0.0.1") == "10.0.0.1"
    assert client("10.0.0.1", "") == "10.0.0.1"
    assert client("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"


def test_a_peer_without_an_address_is_nobody_and_trusted_by_none():
    assert client(None, "198.51.100.1") is None
    assert client("testclient", "198.51.100.1") is None


def test_a_long_chain_is_read_no_further_than_sense():
    assert client("10.0.0.1", "198.51.100.1," + "10.0.0.2," * 10_000 + "10.0.0.2") == "10.0.0.2"


@given(st.lists(st.text(max_size=40), max_size=5))
def test_whatever_is_said_to_a_stranger_changes_nothing(forwarded):
    assert client("203.0.113.9", *forwarded) == "203.0.113.9"


@given(st.text(alphabet="0123456789abcdef.:[]%, \t", max_size=60))
def test_what_stands_left_of_what_a_proxy_wrote_changes_nothing(said):
    assert client("10.0.0.1", said, "198.51.100.1") == "198.51.100.1"


def test_an_ipv6_site_is_its_64_bits_and_an_ipv4_site_its_address():
    def site(text):
        return site_of(parse_address(text))

    assert site("2001:db8:1:2::1") == site("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert site("2001:db8:1:2::1") != site("2001:db8:1:3::1")
    assert site("203.0.113.9") == site("::ffff:203.0.113.9") != site("203.0.113.8")
    assert "203" not in site("203.0.113.9")


def test_where_the_work_is_asked_for_is_known_inside_the_block():
    assert current_site() is None
    with coming_from(parse_address("203.0.113.9")):
        assert current_site() == site_of(parse_address("203.0.113.9"))
        with coming_from(None):
            assert current_site() is None
    assert current_site() is None


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "proxy.local", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(InvalidValueError, match="proxies: must be addresses or networks"):
        parse_networks([text], field="proxies")
