"""Which keys can be made, and how their characters are shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapse.core.errors import InvalidValueError
from lapse.core.keys import (
    SessionKey,
    can_exist,
    check_key,
    check_new_key,
    dots_in,
    invisible_in,
    shortened,
    unseen_in,
    user_digest,
    visible,
)

HIDDEN = ("\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\xad", "\u3164", "\u2800", "\ufe0f")


@pytest.mark.parametrize("character", [*HIDDEN, "\U000e0041", "\U000e0101", "\x1b", "\u2028"])
@pytest.mark.parametrize("place", range(3))
def test_no_part_of_a_new_key_has_a_character_that_cannot_be_seen(character, place):
    """Sessions that have one already stay readable. Seen to fail with control characters alone."""
    parts = ["app", "ann", "s1"]
    parts[place] += character
    check_key(SessionKey(*parts))
    field = ("app name", "user id", "session id")[place]
    with pytest.raises(InvalidValueError, match=f"{field}: must not contain the") as caught:
        check_new_key(SessionKey(*parts))
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("name", ["Zoë", "用户-7", "مستخدم", "นักบิน", "नमस्ते", "😀", "a b", "x\xa0y"])
def test_names_of_all_languages_are_taken_as_they_are(name):
    check_new_key(SessionKey(name, name, name))
    assert visible(name) == name


@given(st.text())
def test_shown_text_has_no_character_that_cannot_be_seen(text):
    shown = visible(text)
    assert not [one for one in shown if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert not any(one in shown for one in HIDDEN)
    assert visible(shown) == shown


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(
    "name", [".", "..", "../x", "x/..", "x/../y", "x\\..\\y", "./x", "/..", "a/.\\b"]
)
def test_no_part_of_a_key_has_dots_between_slashes(place, name):
    """Seen to fail with a comparison of the whole name."""
    parts = ["app", "user", "session"]
    parts[place] = name
    check_key(SessionKey(*parts))
    with pytest.raises(InvalidValueError, match=r"must not have a part '[.]{1,2}'") as refused:
        check_new_key(SessionKey(*parts))
    assert refused.value.field == ("app name", "user id", "session id")[place]


@pytest.mark.parametrize("name", ["...", "a..b", "..a", "a/b", "DOMAIN\\ada", "v1.2/x", ".env"])
def test_other_dots_and_slashes_are_fine(name):
    check_new_key(SessionKey(name, name, name.replace("/", "-")))
    assert dots_in(name) == ""
    assert dots_in(f"{name}/..") == ".."


def test_a_slash_is_refused_in_the_id_of_a_new_session_alone():
    """Seen to fail without the check: over HTTP such a session could not be deleted."""
    check_new_key(SessionKey("shop", "https://idp.test/7", "s"))
    with pytest.raises(InvalidValueError, match="session id: must not contain a slash"):
        check_new_key(SessionKey("shop", "ann", "a/b"))
    check_key(SessionKey("shop", "ann", "a/b"))  # one that was made elsewhere is found


@pytest.mark.parametrize(
    ("text", "seen", "shown"),
    [
        ("a\x1bb", "the control character '\\x1b'", "a\\x1bb"),
        ("a\u2028b", "the control character '\\u2028'", "a\\u2028b"),
        ("a\u2029b", "the control character '\\u2029'", "a\\u2029b"),
        ("a\ud800b", "a lone surrogate (an incomplete UTF-16 character)", "a\\ud800b"),
    ],
)
def test_a_control_character_is_named_and_shown_as_its_escape(text, seen, shown):
    assert unseen_in(text) == invisible_in(text) == seen
    assert visible(text) == shown


def test_an_invisible_character_is_no_control_character():
    assert unseen_in("a\u202eb") == unseen_in("\xa0é") == unseen_in("ab") == ""
    assert invisible_in("a\u202eb\u3164") == "the invisible character '\\u202e'"
    assert invisible_in("é\u3164") == "the invisible character '\\u3164'"
    assert invisible_in("ab") == invisible_in("é") == ""
    assert visible("a\u202e\u3164é") == "a\\u202e\\u3164é"


def test_the_reasons_name_the_bound_and_the_length():
    for value, reason in (
        ("", "must not be empty"),
        (7, "must be a text, not 7"),
        ("x" * 129, "must be at most 128 characters long, not 129"),
        ("a\0b", "must not contain a NUL character"),
        ("a\udfffb", "must not contain a lone surrogate"),
    ):
        with pytest.raises(InvalidValueError) as refused:
            check_key(SessionKey("shop", "ann", value))
        assert (refused.value.field, refused.value.reason) == ("session id", reason)
        assert not can_exist(SessionKey("shop", "ann", value))
    assert can_exist(SessionKey("shop", "ann", "x" * 128))


def test_an_id_is_shown_up_to_eight_characters():
    key = SessionKey("shop", "ann", "0123456789")
    assert (key.short, key.named, shortened("01234567")) == ("01234567", "01234567…", "01234567")
    assert key._replace(session_id=" s ").stripped.session_id == "s"


def test_digests_tell_keys_and_users_apart_and_last():
    """They are in logs and audits that outlive a version."""
    key = SessionKey("shop", "ann", "s1")
    assert key.digest == "34297d943b0b6f62"
    assert SessionKey("shop", "anns", "1").digest != key.digest
    assert user_digest("ann") == "8d3adf6abf23f3a5"
    assert len(user_digest("a\ud800")) == 16


def test_one_session_in_a_hundred_is_in_the_control_group():
    keys = [SessionKey("shop", "ann", f"s{number}") for number in range(10_000)]
    control = [key for key in keys if key.in_control_group]
    assert 60 < len(control) < 140
    assert control[0].session_id == "s40"
    assert all(key._replace(user_id="bob").in_control_group for key in control)
