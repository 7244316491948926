"""What identifies a session, and which keys can be stored."""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b
from typing import Final, NamedTuple
from zlib import crc32

from lapse.core.errors import InvalidValueError

LONGEST_ID: Final = 128
"""The maximum of characters of an app name, a user id or a session id, as in ADK's columns."""

SHOWN_ID: Final = 8
"""How many characters of a session id a log may show."""

EVALUATION_PREFIXES: Final = ("adk-eval-session-", "___eval___session___")
"""The prefixes of the session ids that ADK's evaluation makes."""


_CONTROL_PER_CENT: Final = 1


class SessionKey(NamedTuple):
    """What identifies a session."""

    app_name: str
    user_id: str
    session_id: str

    @property
    def short(self) -> str:
        """Return the beginning of the session id, as much as a log may show."""
        return self.session_id[:SHOWN_ID]

    @property
    def named(self) -> str:
        """Return the session id as a sentence shows it: what `short` leaves out stands as …."""
        return shortened(self.session_id)

    @property
    def stripped(self) -> SessionKey:
        """Return the key without white space around the id; requests may name a session either way.

        Code that notes a session by a request's key and finds it by its stored key uses this.
        """
        return self._replace(session_id=self.session_id.strip())

    @property
    def digest(self) -> str:
        """Return a digest that names the session where its key must not be shown."""
        return blake2b("\0".join(self).encode(), digest_size=8).hexdigest()

    @property
    def in_control_group(self) -> bool:
        """Return whether the session is in the TTL's control group: one in a hundred, by its id.

        Earlier decisions do not shape what is learnt from the control group; see `lapse.ttl`.
        """
        return crc32(self.session_id.encode()) % 100 < _CONTROL_PER_CENT


def user_digest(user_id: str) -> str:
    """Return a digest that names a user where the user's id must not be shown."""
    return blake2b(user_id.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def check_key(key: SessionKey) -> SessionKey:
    """Return the key if every store can hold it.

    Raises:
        InvalidValueError: a part is empty, over LONGEST_ID characters, or holds NUL or a
            lone surrogate.
    """
    for field, value in zip(("app name", "user id", "session id"), key, strict=True):
        if not value:
            raise InvalidValueError(field, "must not be empty")
        if not isinstance(value, str):
            raise InvalidValueError(field, f"must be a text, not {value!r:.40}")
        if len(value) > LONGEST_ID:
            reason = f"must be at most {LONGEST_ID} characters long, not {len(value)}"
            raise InvalidValueError(field, reason)
        if "\0" in value:
            raise InvalidValueError(field, "must not contain a NUL character")
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise InvalidValueError(field, "must not contain a lone surrogate")
    return key


def check_new_key(key: SessionKey) -> SessionKey:
    """Return the key if a session may be created under it.

    Raises:
        InvalidValueError: a store could not hold the key, a part is unsafe in a log, a path or a
            file's name (it holds a control character, or `..` between slashes), a part does not
            look like what it is (it holds an invisible character), or the session id holds a slash,
            which would end it in a path. A user id may hold slashes, as URLs do.
    """
    for field, value in zip(("app name", "user id", "session id"), check_key(key), strict=True):
        if unseen := invisible_in(value):
            raise InvalidValueError(field, f"must not contain {unseen}")
        if dots := dots_in(value):
            raise InvalidValueError(field, f"must not have a part {dots!r}")
    if "/" in key.session_id:
        raise InvalidValueError("session id", "must not contain a slash")
    return key


def shortened(name: str) -> str:
    """Return an id as a log or a sentence may show it: at most SHOWN_ID characters, then …."""
    return name if len(name) <= SHOWN_ID else f"{name[:SHOWN_ID]}…"


def unseen_in(text: str) -> str:
    """Name the first control character, line end or lone surrogate; empty if there is none."""
    if text.isprintable():
        return ""
    for character in text:
        match unicodedata.category(character):
            case "Cc" | "Zl" | "Zp":
                return f"the control character {character!a}"
            case "Cs":
                return "a lone surrogate (an incomplete UTF-16 character)"
    return ""


_SHAPELESS: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Letters and marks without a shape: fillers, variation selectors, the blank of Braille."""


def invisible_in(text: str) -> str:
    """Name the first character that cannot be seen, or that moves others; empty if there is none.

    Besides what `unseen_in` finds, these are Unicode's format characters (Cf), such as U+202E,
    which turns the text behind it around, and letters without a shape.
    """
    if (unseen := unseen_in(text)) or text.isascii():
        return unseen
    found = (one for one in text if _is_invisible(one))
    return next((f"the invisible character {one!a}" for one in found), "")


def visible(text: str) -> str:
    """Return text in which each character that `invisible_in` names is its escape in Python."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode() if _is_invisible(one) else one for one in text
    )


def _is_invisible(character: str) -> bool:
    is_unseen = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return is_unseen or _SHAPELESS.match(character) is not None


_SEPARATOR: Final = re.compile(r"[/\\]")


def dots_in(text: str) -> str:
    """Return the first part of text that is `.` or `..`, as in a path; empty if there is none.

    Parts end at a slash or a backslash: what keeps files by such a name could leave its folder.
    """
    if "." not in text:
        return ""
    return next((part for part in _SEPARATOR.split(text) if part in {".", ".."}), "")


def can_exist(key: SessionKey) -> bool:
    """Return whether a store can hold the key; see `check_key`."""
    try:
        check_key(key)
    except InvalidValueError:
        return False
    return True
