"""Which keys can be made, and how their characters are shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey, check_key, check_new_key, visible

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
    with pytest.raises(InvalidValueError, match=r"must not have a part '[.]{1,2}'"):
        check_new_key(SessionKey(*parts))


@pytest.mark.parametrize("name", ["...", "a..b", "..a", "a/b", "DOMAIN\\ada", "v1.2/x", ".env"])
def test_other_dots_and_slashes_are_fine(name):
    check_new_key(SessionKey(name, name, name.replace("/", "-")))


def test_a_slash_is_refused_in_the_id_of_a_new_session_alone():
    """Seen to fail without the check: over HTTP such a session could not be deleted."""
    check_new_key(SessionKey("shop", "https://idp.test/7", "s"))
    with pytest.raises(InvalidValueError, match="session id: must not contain a slash"):
        check_new_key(SessionKey("shop", "ann", "a/b"))
    check_key(SessionKey("shop", "ann", "a/b"))  # one that was made elsewhere is found
