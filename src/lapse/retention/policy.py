"""Reading a policy file, with all its faults at once."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from lapse.core.errors import InvalidValueError, LapseError
from lapse.core.keys import SessionKey, check_key
from lapse.retention.rules import LONGEST, Limits, Policy

_NEVER: Final = "never"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_FIELDS: Final = [one.name for one in fields(Limits)]
_COUNTS: Final = frozenset({"per_user"})
_MOST_COUNTED: Final = 1_000_000
_TABLES: Final = ("default", "apps")
_SYNTAX: Final = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)

_Path = tuple[str, ...]


class PolicyError(LapseError, ValueError):
    """The policy file is wrong; `problems` has one sentence for each fault, with its line."""

    def __init__(self, place: str, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{place}: {count} in the retention policy:\n{lines}")
        self.problems = tuple(problems)


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        PolicyError: it cannot be read, or is wrong. It lists every fault.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise PolicyError(str(path), [f"it cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise PolicyError(str(path), ["it is not a text in UTF-8"]) from None
    return parse_policy(text, place=str(path))


def parse_policy(text: str, *, place: str = "policy") -> Policy:
    """Read the text of a policy file.

    Raises:
        PolicyError: it is wrong. The error lists every fault, in the order of lines, and names
            `place`.
    """
    reading = _Reading(text)
    policy = reading.policy()
    if reading.faults:
        told = [f"line {line}: {what}" for line, what in sorted(reading.faults)]
        raise PolicyError(place, told)
    return policy


class _Reading:
    """The reading of one text, with the faults found so far, each with its line."""

    def __init__(self, text: str) -> None:
        self.faults: list[tuple[int, str]] = []
        self._lines = text.splitlines()
        self._document = self._parsed()
        self._places = dict(_places(self._lines))

    def _parsed(self) -> Mapping[str, Any]:
        """Return the document; each line that is not TOML is a fault, and is left out."""
        for _ in range(len(self._lines) + 1):
            try:
                return tomllib.loads("\n".join(self._lines))
            except tomllib.TOMLDecodeError as error:
                found = _SYNTAX.fullmatch(str(error))
                reason = found[1] if found else str(error)
                number = int(found[2]) if found and found[2] else len(self._lines)
                self.faults.append((number, f"is not TOML: {reason[:1].lower()}{reason[1:]}"))
                if not 1 <= number <= len(self._lines) or not self._lines[number - 1].strip():
                    break
                self._lines[number - 1] = ""
        return {}

    def policy(self) -> Policy:
        """Return the policy; what is wrong in it is left out and noted."""
        for name in self._document:
            if name not in _TABLES:
                self._wrong(
                    (name,), f"{name!r:.40} is no table of a policy; {_near(name, _TABLES)}"
                )
        default = self._limits(("default",), self._document.get("default", {}), Limits())
        apps = self._document.get("apps", {})
        if not isinstance(apps, Mapping):
            self._wrong(("apps",), 'apps must be tables, such as [apps."shop"]')
            apps = {}
        return Policy(default, {str(name): self._app(name, apps[name], default) for name in apps})

    def _app(self, name: str, given: Any, default: Limits) -> Limits:
        try:
            check_key(SessionKey(name, "-", "-"))
        except InvalidValueError as error:
            self._wrong(("apps", name), str(error))
        return self._limits(("apps", name), given, default)

    def _limits(self, path: _Path, given: Any, default: Limits) -> Limits:
        if not isinstance(given, Mapping):
            self._wrong(path, f"{'.'.join(path)} must be a table")
            return default
        found = {name: getattr(default, name) for name in _FIELDS}
        for name, value in given.items():
            if name not in _FIELDS:
                self._wrong((*path, name), f"{name!r:.40} is no limit; {_near(name, _FIELDS)}")
                continue
            try:
                found[name] = _count(value) if name in _COUNTS else _duration(value)
            except ValueError as error:
                self._wrong((*path, name), f"{name} {error}")
        return Limits(**found)

    def _wrong(self, path: _Path, what: str) -> None:
        nearest = (path[:length] for length in range(len(path), 0, -1))
        line = next((self._places[one] for one in nearest if one in self._places), 1)
        self.faults.append((line, what))


def _places(lines: Sequence[str]) -> Iterator[tuple[_Path, int]]:
    """Yield the line of each table and each key that has a line of its own."""
    table: _Path = ()
    for number, line in enumerate(lines, 1):
        head, equals, _ = line.partition("=")
        if line.lstrip().startswith("["):
            if (path := _named(line)) is not None:
                table = path
                yield table, number
        elif equals and (path := _named(f"{head} = 0")) is not None:
            yield (*table, *path), number


def _named(line: str) -> _Path | None:
    """Return what a line of TOML names, by its keys from the outermost on."""
    try:
        found: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while isinstance(found, Mapping) and found:
        ((name, found),) = found.items()
        path.append(name)
    return tuple(path)


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _duration(value: Any) -> timedelta | None:
    if value == _NEVER:
        return None
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f'must be a text such as "90d", "12h", "30m" or "4s", or "never", not {value!r:.40}'
        )
    seconds = float(found[1]) * _UNITS[found[2]]
    if not 0 < seconds <= LONGEST.total_seconds():
        raise ValueError(f'must be above 0 and at most "{LONGEST.days}d", not {value!r:.40}')
    return max(timedelta(seconds=seconds), timedelta.resolution)


def _count(value: Any) -> int | None:
    if value == _NEVER:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_COUNTED:
        raise ValueError(
            f'must be a number from 1 to {_MOST_COUNTED}, or "never", not {value!r:.40}'
        )
    return value
