"""What counts as a message, and whose message makes a session used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from lapse.core.errors import InvalidValueError

_USER: Final = "user"
_OF_FUNCTIONS: Final = ("functionCall", "function_call", "functionResponse", "function_response")


class UsedBy(StrEnum):
    """Whose message makes a session used.

    ANYONE: the user's or the agent's. USER: the user's alone; what the agent says before is held.
    """

    ANYONE = "anyone"
    USER = "user"


@dataclass(frozen=True, slots=True)
class UsedByRule:
    """Whose message makes new sessions used, by app.

    Attributes:
        otherwise: the rule of the apps that `apps` does not name.
        apps: the rule of each app that has one of its own.
    """

    otherwise: UsedBy = UsedBy.ANYONE
    apps: Mapping[str, UsedBy] = field(default_factory=dict, hash=False)

    def of(self, app_name: str) -> UsedBy:
        """Return the rule of an app."""
        return self.apps.get(app_name, self.otherwise)

    @classmethod
    def parse(cls, text: object) -> UsedByRule:
        """Read `anyone`, `user`, or a list such as `anyone,shop=user`; a rule is left as it is.

        Raises:
            InvalidValueError: the text is no such list, or names an app, or none, twice.
        """
        if isinstance(text, UsedByRule):
            return text
        if not isinstance(text, str):
            raise _not_a_rule(text)
        found: dict[str | None, UsedBy] = {}
        for part in text.split(","):
            name, equals, value = part.rpartition("=")
            app = name.strip() if equals else None
            if app in found:
                which = "names no app twice" if app is None else f"names {app!r:.40} twice"
                raise InvalidValueError("used_by", f"{which}: {text!r:.80}")
            if app == "" or value.strip() not in set(UsedBy):
                raise _not_a_rule(text)
            found[app] = UsedBy(value.strip())
        otherwise = found.pop(None, UsedBy.ANYONE)
        return cls(otherwise, {app: rule for app, rule in found.items() if app is not None})

    def __str__(self) -> str:
        return ",".join([self.otherwise, *(f"{app}={rule}" for app, rule in self.apps.items())])


def _not_a_rule(text: object) -> InvalidValueError:
    reason = "must be anyone or user, with exceptions by app, such as anyone,shop=user"
    return InvalidValueError("used_by", f"{reason}, not {text!r:.80}")


def is_message(event: Mapping[str, Any]) -> bool:
    """Return whether an event makes its session used, where anyone's message does.

    `event` is an ADK event as stored: snake_case keys, absent values left out. A message
    carries content of the user or of the agent. State changes, compaction, rewind,
    checkpoints and partial events are not messages, whoever their author is.
    """
    if event.get("partial"):
        return False
    parts = (event.get("content") or {}).get("parts")
    if event.get("author") == _USER:
        actions = event.get("actions") or {}
        if actions.get("compaction") or actions.get("rewind_before_invocation_id"):
            return False
        heard = (event.get("input_transcription") or {}).get("text")
        return bool(heard or parts)
    return bool(
        parts
        or event.get("output_transcription") is not None
        or event.get("output") is not None
        or event.get("error_code")
    )


def may_be_first(message: object) -> bool:
    """Return whether a message that a client sends to a run can be the first of its session.

    `message` is ADK's `Content` as JSON, in either spelling. ADK's runner refuses a message without
    parts and one that calls a function, and looks for the call that a message answers. It refuses
    after it has read the session.
    """
    parts = message.get("parts") if isinstance(message, Mapping) else None
    return bool(parts) and all(
        isinstance(part, Mapping) and all(part.get(name) is None for name in _OF_FUNCTIONS)
        for part in parts or ()
    )


def is_of_agent(event: Mapping[str, Any]) -> bool:
    """Return whether an event is the agent's, and so no message where only the user's count.

    A function's response counts as the user's, whoever signed it: it answers what was asked for.
    Only the responses of the tools that a run itself called are the agent's; ADK's runner writes
    into them which node of the agent they come from.
    """
    if event.get("author") == _USER:
        return False
    if (event.get("node_info") or {}).get("path"):
        return True
    parts = (event.get("content") or {}).get("parts") or ()
    return not any(part.get("function_response") is not None for part in parts)


def is_message_of_user(event: Mapping[str, Any]) -> bool:
    """Return whether an event makes its session used, where only the user's message does."""
    return is_message(event) and not is_of_agent(event)


def awaits_answer(event: Mapping[str, Any]) -> bool:
    """Return whether an event waits for a confirmation of a tool's call, or for a long call."""
    actions = event.get("actions") or {}
    return bool(actions.get("requested_tool_confirmations") or event.get("long_running_tool_ids"))
