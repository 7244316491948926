"""Observations and decisions in SQLite; see `lapse.ttl.store`."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from lapse.core.documents import read_metadata
from lapse.core.lifecycle import Change, ChangeKind, Status
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.transaction import Transaction
from lapse.ttl import Decision, Kind, Scope, bucket_of
from lapse.ttl.observed import MOST_PER_USER, Count, is_audited, segment_of
from lapse.ttl.store import FirstMessage, Round

_UNIT_SEPARATOR: Final = "\x1f"


def add_functions(connection: sqlite3.Connection) -> None:
    """Give a connection what the statements about observations ask of Python."""
    for name, arguments, function in (
        ("segment_of", 1, lambda text: segment_of(read_metadata(text))),
        ("age_bucket", 1, lambda micros: bucket_of(timedelta(microseconds=micros))),
        ("key_digest", 3, _digest),
    ):
        connection.create_function(name, arguments, function, deterministic=True)


def observe_first_message(transaction: Transaction) -> None:
    """Count a session's first message, in its transaction."""
    audited = is_audited(transaction.key.session_id)
    transaction.run("observe_first_message", kind=Kind.AUDITED if audited else Kind.USED)


def observe_purge(transaction: Transaction, limit: int) -> None:
    """Count and remember what `purge_due` is about to delete, in its transaction."""
    transaction.run("observe_unused", limit=limit)
    transaction.run("remember_purged", limit=limit)


def observed(transaction: Transaction, since: date) -> list[Count]:
    """Return the counts; see `Observations.observed`."""
    return [
        Count(
            Scope(row["app_name"], row["segment"]),
            date.fromisoformat(row["day"]),
            Kind(row["kind"]),
            row["bucket"],
            row["sessions"],
        )
        for row in transaction.run(
            "observed", first_day=since.isoformat(), most_per_user=MOST_PER_USER
        )
    ]


def recent(transaction: Transaction, newest: int, reach: timedelta) -> list[FirstMessage]:
    """Return the newest first messages; see `Observations.recent_first_messages`."""
    found = transaction.run(
        "recent_first_messages",
        newest=newest,
        reach=rows.duration_micros(reach),
        most_per_user=MOST_PER_USER,
    )
    return [
        FirstMessage(
            Scope(row["app_name"], row["segment"]),
            rows.from_micros(row["observed_at"]),
            timedelta(microseconds=row["observed_at"] - row["created_at"]),
        )
        for row in found
    ]


def fold(
    transaction: Transaction, before: datetime, segments: Collection[Scope], forgotten: datetime
) -> None:
    """Fold complete days into counts; see `Observations.fold_observations`."""
    until = rows.to_micros(before)
    transaction.run(
        "fold_observations",
        before=until,
        segments=json.dumps([{"app": app, "segment": segment} for app, segment in segments]),
        most_per_user=MOST_PER_USER,
    )
    transaction.run("delete_folded", before=until)
    transaction.run("forget_purged", forgotten=rows.to_micros(forgotten))


def refuse(transaction: Transaction) -> bool:
    """Count a message to a purged session; see `Observations.refuse`."""
    if not transaction.run("refuse").rowcount:
        return False
    transaction.run("forget_refused")
    return True


def ttl_round(transaction: Transaction) -> Round:
    """Return how far the rounds are."""
    row = transaction.first("ttl_round")
    slot, version = (None, 0) if row is None else (row["slot"], row["version"])
    return Round(transaction.moment, slot, version)


def ttl_decisions(transaction: Transaction, newest: int) -> list[Decision]:
    """Return the newest decisions of each scope."""
    found = transaction.run("ttl_decisions", newest=newest)
    return [Decision.from_document(json.loads(row["decision"])) for row in found]


def record_decisions(
    transaction: Transaction, decisions: Sequence[Decision], slot: int, version: int
) -> bool:
    """Record what a round has decided; see `Observations.record_decisions`."""
    if transaction.first("record_round", slot=slot, version=version) is None:
        return False
    documents = json.dumps([decision.as_document() for decision in decisions])
    transaction.run("record_decisions", decisions=documents)
    return True


def lengthen_waiting(
    transaction: Transaction, scope: Scope, before: timedelta, ttl: timedelta, limit: int
) -> list[Change]:
    """Give waiting sessions a longer TTL; see `Observations.lengthen_waiting`."""
    found = transaction.run(
        "lengthen_waiting",
        segment=scope.segment,
        ttl_before=rows.duration_micros(before),
        ttl=rows.duration_micros(ttl),
        limit=limit,
    ).fetchall()
    number = {transaction.key.app_name: len(found)} if found else {}
    transaction.count_all(ChangeKind.EXTENDED, Status.WAITING, Status.WAITING, number)
    return [
        Change(
            ChangeKind.EXTENDED,
            transaction.moment,
            rows.lobby_record(row, transaction.rules, transaction.now),
        )
        for row in found
    ]


def _digest(*key: str) -> bytes:
    return hashlib.sha256(_UNIT_SEPARATOR.join(key).encode()).digest()
