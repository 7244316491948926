"""The client's address, whatever the headers of the request say."""

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
def test_a_text_that_is_not_an_address_parses_as_none(text):
    assert parse_address(text) is None


def test_without_trusted_proxies_the_peer_is_the_client_whatever_the_header_says():
    assert client("203.0.113.9", "198.51.100.1", proxies=()) == "203.0.113.9"
    assert client("10.0.0.1", "198.51.100.1", proxies=()) == "10.0.0.1"


def test_a_forwarding_header_of_an_untrusted_peer_is_ignored():
    assert client("203.0.113.9", "198.51.100.1") == "203.0.113.9"


def test_a_trusted_proxys_header_names_the_client():
    assert client("10.0.0.1", "198.51.100.1") == "198.51.100.1"
    assert client("::ffff:10.0.0.1", "198.51.100.1") == "198.51.100.1"
    assert client("192.0.2.1", "[2001:db8::1]:9") == "2001:db8::1"


def test_addresses_that_a_client_put_into_the_header_itself_are_ignored():
    assert client("10.0.0.1", "1.1.1.1, 2.2.2.2, 198.51.100.1") == "198.51.100.1"


def test_a_chain_of_trusted_proxies_is_followed_to_its_end():
    assert client("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.3,10.0.0.2") == "198.51.100.1"
    assert client("10.0.0.1", "6.6.6.6, 198.51.100.1, fd00::5") == "198.51.100.1"


def test_several_forwarding_headers_are_read_as_one_list():
    """A client's own header comes first, and a proxy that adds a second one has the last word."""
    assert client("10.0.0.1", "6.6.6.6", "198.51.100.1") == "198.51.100.1"
    assert client("10.0.0.1", "198.51.100.1", "10.0.0.2") == "198.51.100.1"


def test_if_the_header_has_garbage_the_proxy_that_wrote_it_is_the_client():
    assert client("10.0.0.1", "198.51.100.1, unknown") == "10.0.0.1"
    assert client("10.0.0.1", "198.51.100.1, junk, 10.0.0.2") == "10.0.0.2"
    assert client("10.0.0.1", "198.51.100.1,") == "10.0.0.1"


def test_if_all_addresses_are_trusted_proxies_the_farthest_is_the_client():
    assert client("10.0.0.1") == "10.0.0.1"
    assert client("10.0.0.1", "") == "10.0.0.1"
    assert client("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"


def test_a_peer_without_an_address_has_no_client_address_and_is_not_trusted():
    assert client(None, "198.51.100.1") is None
    assert client("testclient", "198.51.100.1") is None


def test_only_the_last_part_of_a_very_long_header_is_read():
    assert client("10.0.0.1", "198.51.100.1," + "10.0.0.2," * 10_000 + "10.0.0.2") == "10.0.0.2"


@given(st.lists(st.text(max_size=40), max_size=5))
def test_no_forwarding_header_of_an_untrusted_peer_changes_the_client(forwarded):
    assert client("203.0.113.9", *forwarded) == "203.0.113.9"


@given(st.text(alphabet="0123456789abcdef.:[]%, \t", max_size=60))
def test_nothing_to_the_left_of_what_a_trusted_proxy_wrote_changes_the_client(said):
    assert client("10.0.0.1", said, "198.51.100.1") == "198.51.100.1"


def test_the_site_of_an_ipv6_address_is_its_first_64_bits_and_of_ipv4_the_address():
    def site(text):
        return site_of(parse_address(text))

    assert site("2001:db8:1:2::1") == site("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert site("2001:db8:1:2::1") != site("2001:db8:1:3::1")
    assert site("203.0.113.9") == site("::ffff:203.0.113.9") != site("203.0.113.8")
    assert "203" not in site("203.0.113.9")


def test_the_current_site_is_set_inside_the_block_only():
    assert current_site() is None
    with coming_from(parse_address("203.0.113.9")):
        assert current_site() == site_of(parse_address("203.0.113.9"))
        with coming_from(None):
            assert current_site() is None
    assert current_site() is None


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "proxy.local", "10.0.0.0/33", "*"])
def test_a_text_that_is_not_a_network_is_refused(text):
    with pytest.raises(InvalidValueError, match="proxies: must be addresses or networks"):
        parse_networks([text], field="proxies")
