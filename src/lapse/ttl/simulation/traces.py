"""Histories of sessions: from CSV or Parquet files, or from a store's observations."""

from __future__ import annotations

import csv
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from lapse.core.ages import EDGES
from lapse.core.errors import InvalidValueError
from lapse.ttl import Outcome, Scope
from lapse.ttl.observed import Count

NEVER: Final = math.inf
"""The delay of a session without a message."""

_COLUMNS: Final = ("created_at", "first_message_delay_seconds")
_DAY_SECONDS: Final = 86_400
_YEAR_10000: Final = 253_402_300_800


class Arrival(NamedTuple):
    """One session of a history.

    Attributes:
        created: when it was created, in seconds since the epoch.
        delay: the age at its first message in seconds; NEVER if there was none.
        user: its user; None: a user of its own.
        segment: its segment; "": none.
    """

    created: float
    delay: float
    user: str | None = None
    segment: str = ""


def read_trace(path: Path) -> list[Arrival]:
    """Read a history from a `.parquet` file, or from CSV, in the order of creation.

    Its columns are `created_at` (ISO 8601, UTC if there is no offset, or seconds since the epoch)
    and `first_message_delay_seconds` (empty: never), and optionally `user_id` and `segment`.

    Raises:
        InvalidValueError: the file, a column or a value is missing or wrong; the message names it.
    """
    if not path.is_file():
        raise InvalidValueError("trace", f"there is no file {path}; name one that exists")
    parquet = path.suffix.lower() in {".parquet", ".pq"}
    rows = _parquet_rows(path) if parquet else _csv_rows(path)
    first = next(rows, None)
    if first is None:
        raise InvalidValueError("trace", f"{path} must hold a session at least")
    for column in _COLUMNS:
        if column not in first:
            found = ", ".join(str(name) for name in first)
            raise InvalidValueError(
                "trace", f"{path} has no column {column}, which it needs (it has: {found})"
            )
    arrivals = [
        _arrival(row, f"{path}, row {number}") for number, row in enumerate(chain([first], rows), 1)
    ]
    arrivals.sort(key=lambda arrival: arrival.created)
    return arrivals


def drawn_from(counts: Iterable[Count], horizon: timedelta) -> list[Arrival]:
    """Return a history with a store's counts; ages are spread evenly within their bucket.

    Sessions deleted before any message count as never used. A session that was refused a message
    is counted as UNUSED, too: it appears once, with a message after the horizon. The same counts
    give the same history.
    """
    chance = random.Random(0)
    arrivals: list[Arrival] = []
    counts = list(counts)
    refused: Counter[tuple[Scope, date]] = Counter()
    for count in counts:
        if count.outcome is Outcome.REFUSED:
            refused[count.scope, count.day] += count.sessions
    for count in counts:
        midnight = datetime(count.day.year, count.day.month, count.day.day, tzinfo=UTC).timestamp()
        low, high = EDGES[count.bucket], EDGES[min(count.bucket + 1, len(EDGES) - 1)]
        sessions = count.sessions
        if count.outcome is Outcome.UNUSED:
            sessions -= refused[count.scope, count.day]
        for _ in range(sessions):
            delay = NEVER
            if count.outcome in {Outcome.USED, Outcome.CONTROL, Outcome.SURPLUS, Outcome.REFUSED}:
                delay = chance.uniform(low.total_seconds(), high.total_seconds())
            if count.outcome is Outcome.REFUSED:
                delay = max(delay, horizon.total_seconds() + 1)
            created = midnight + chance.random() * _DAY_SECONDS
            arrivals.append(Arrival(created, delay, segment=count.scope.segment))
    arrivals.sort(key=lambda arrival: arrival.created)
    return arrivals


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from csv.DictReader(file)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InvalidValueError("trace", f"{path} must be CSV in UTF-8: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        reason = "Parquet needs pyarrow: pip install 'lapse[parquet]'"
        raise InvalidValueError("trace", reason) from error
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except ArrowException as error:
        raise InvalidValueError("trace", f"{path} must be a Parquet file: {error}") from error


def _arrival(row: Mapping[str, Any], where: str) -> Arrival:
    try:
        created = _moment(row["created_at"])
    except (ValueError, TypeError, OverflowError) as error:
        reason = f"{where}: created_at must be a time in ISO 8601, not {row['created_at']!r:.40}"
        raise InvalidValueError("trace", reason) from error
    value = row["first_message_delay_seconds"]
    try:
        delay = NEVER if value is None or value == "" else float(value)
        if not delay >= 0 or (math.isinf(delay) and value not in {None, ""}):
            raise ValueError(value)
    except (ValueError, TypeError) as error:
        reason = (
            f"{where}: first_message_delay_seconds must be seconds from 0 on, or empty, "
            f"not {value!r:.40}"
        )
        raise InvalidValueError("trace", reason) from error
    return Arrival(created, delay, row.get("user_id") or None, row.get("segment") or "")


def _moment(value: Any) -> float:
    if isinstance(value, datetime):
        moment = value
    else:
        try:
            seconds = float(value)
        except ValueError:
            moment = datetime.fromisoformat(value.strip())
        else:
            if not 0 <= seconds < _YEAR_10000:
                raise ValueError(value)
            return seconds
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
