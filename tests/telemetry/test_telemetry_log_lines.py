"""The lines of single changes and sweeps."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import google.adk
import pytest

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, ChangeKind, Lifecycle, Status
from lapse.sweep.logs import log_sweep
from lapse.sweep.sweeper import SweepReport
from lapse.telemetry.lines import visible
from lapse.telemetry.logs import (
    LogFormat,
    LogLevel,
    LogOptions,
    configure_logging,
    log_change,
    shorten,
    shortening,
)
from logging_state import logging_restored

ADK = google.adk.__path__[0]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = SessionKey("concierge", "canary-user", "canary-session-id")


def change(kind, **facts):
    cause = facts.pop("cause", None)
    record = Lifecycle(KEY, Status.WAITING, NOON, metadata={"page": "canary-metadata"}, **facts)
    return Change(kind, NOON + timedelta(seconds=90), record, cause)


@pytest.fixture(autouse=True)
def _log_everything(caplog):
    caplog.set_level(logging.DEBUG, logger="lapse")


@pytest.fixture
def restored_logging():
    with logging_restored():
        yield


@pytest.mark.parametrize("kind", ChangeKind)
def test_every_kind_of_change_has_a_line_with_8_characters_of_the_id(caplog, kind):
    log_change(change(kind, expires_at=NOON, restorable_until=NOON, cause=Cause.RUN))
    (record,) = caplog.records
    assert record.getMessage().startswith("session ")
    assert (record.app, record.session) == ("concierge", "canary-s")
    assert "canary-session-id" not in str(vars(record))
    assert "canary-metadata" not in str(vars(record))


@pytest.mark.parametrize(
    ("kind", "level", "line"),
    [
        (ChangeKind.CREATED, "DEBUG", "session scheduled"),
        (ChangeKind.USED, "INFO", "session marked as used"),
        (ChangeKind.EXPIRED, "INFO", "session expired"),
        (ChangeKind.KEPT, "DEBUG", "session kept because it has messages"),
        (ChangeKind.RESURRECTED, "INFO", "session resurrected"),
        (ChangeKind.PURGED, "INFO", "session purged"),
    ],
)
def test_the_documented_log_lines_have_their_words_and_level(caplog, kind, level, line):
    log_change(change(kind))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, line)]


def test_log_lines_have_the_documented_fields(caplog):
    log_change(change(ChangeKind.USED))
    log_change(change(ChangeKind.EXPIRED, expires_at=NOON + timedelta(seconds=89.5)))
    log_change(change(ChangeKind.RESURRECTED, cause=Cause.MESSAGE))
    used, expired, resurrected = caplog.records
    assert used.age_s == 90
    assert expired.lateness_s == 0.5
    assert resurrected.cause == "message"


def test_a_sweep_that_did_nothing_is_not_logged(caplog):
    nothing = SweepReport(0, 0, 0, timedelta(0), timedelta(0), full=False)
    log_sweep(nothing)
    assert caplog.records == []
    log_sweep(SweepReport(2, 1, 0, timedelta(seconds=3), timedelta(0), full=False))
    (record,) = caplog.records
    assert (record.expired, record.purged, record.latest_s) == (2, 1, 3)


def test_uuids_and_the_session_id_of_the_request_are_shortened():
    uuid = "5f0c9a2e-7d3b-4c1a-9e8f-0123456789ab"
    assert shorten(f"Session {uuid} not found.") == "Session 5f0c9a2e not found."
    assert shorten("Session chosen-by-me not found.") == "Session chosen-by-me not found."
    with shortening("chosen-by-me"):
        assert shorten("Session chosen-by-me not found.") == "Session chosen-b not found."
    with shortening("short"):
        assert shorten("a short story") == "a short story"
    assert shorten("chosen-by-me") == "chosen-by-me"


@pytest.mark.parametrize("style", LogFormat)
@pytest.mark.parametrize(
    "session_id",
    [
        "caffè-perché-così-più",
        "名前-とても長いセッションの名前",
        "quotes\"and'-chosen-by-me",
        "back\\slash\\chosen\\by\\me",
        "of/slash es/chosen/by/me",
        "\u202eodd\x85\ud800-chosen-\x1f-by-me",
    ],
)
def test_the_id_of_the_request_is_shortened_whatever_escapes_it_has(
    capsys, restored_logging, style, session_id
):
    """In the message, in fields, in what stands in them, and in the text of an exception.

    Seen to fail with the line shortened after JSON has escaped it, and with the id as it is alone.
    """

    class Odd:
        def __repr__(self):
            return f"<Odd {session_id!r}>"

    configure_logging(LogOptions(style))
    extra = {"id": session_id, "many": [session_id, {"of": session_id}], "odd": Odd()}
    with shortening(session_id):
        try:
            raise ValueError(session_id)
        except ValueError:
            logging.getLogger("lapse.tried").exception(
                "of %s, of %r, of %s, of %s",
                session_id,
                session_id,
                json.dumps(session_id),
                quote(session_id, errors="replace"),
                extra=extra,
            )
    written = capsys.readouterr().err
    tail = session_id[-7:]
    for escaped in (tail, visible(tail), repr(tail)[1:-1], quote(tail, errors="replace")):
        assert escaped not in written
        for once in (json.dumps(escaped)[1:-1], json.dumps(json.dumps(escaped))[3:-3]):
            assert once not in written
    assert written.count(visible(session_id[:6])) >= 2 or style is LogFormat.JSON
    if style is LogFormat.JSON:
        line = json.loads(written)
        assert line["id"] == visible(session_id[:8])
        assert line["many"] == [session_id[:8], {"of": session_id[:8]}]


ODD = "a\nb\r\x1b[31mred\u2028c\x85d\u202ee\0f\ud800"
SEEN = r"a\nb\r\x1b[31mred\u2028c\x85d\u202ee\x00f\ud800"


@pytest.mark.parametrize("style", LogFormat)
@pytest.mark.parametrize("name", ["lapse.tried", "agent.of.somebody"])
def test_a_log_line_stays_one_line_whatever_is_in_it(capsys, restored_logging, style, name):
    """Seen to fail with the `repr` of an object as it is, and with `exception` and `stack`."""

    class Odd:
        def __repr__(self):
            return ODD

    configure_logging(LogOptions(style, LogLevel.DEBUG))
    extra = {"app": ODD, "odd\nname": [ODD], "object": Odd(), "exception": ODD, "stack": ODD}
    logging.getLogger(name).warning("said %s", ODD, extra=extra)
    line, end = capsys.readouterr().err.split("\n")
    assert end == ""
    assert line.isprintable()
    if style is LogFormat.CONSOLE:
        assert SEEN in line


@pytest.mark.parametrize("style", LogFormat)
def test_the_message_of_an_exception_stays_on_one_line(capsys, restored_logging, style):
    configure_logging(LogOptions(style))
    try:
        raise ValueError(ODD)
    except ValueError:
        logging.getLogger("lapse.tried").exception("it failed")
    written = capsys.readouterr().err
    assert all(line.isprintable() for line in written.split("\n"))
    if style is LogFormat.CONSOLE:
        assert f"ValueError: {SEEN}\n" in written
    else:
        assert json.loads(written)["exception"].endswith(f"ValueError: {SEEN}\n")


@pytest.mark.parametrize(
    ("levels", "record", "is_shown"),
    [
        (("INFO", None), ("shop.agent", "/srv/agents/shop/agent.py", logging.INFO), True),
        (("INFO", None), ("shop.agent", "/srv/agents/shop/agent.py", logging.DEBUG), False),
        (("DEBUG", None), ("shop.agent", "/srv/agents/shop/agent.py", logging.DEBUG), True),
        (("ERROR", None), ("shop.agent", "/srv/agents/shop/agent.py", logging.WARNING), False),
        (
            ("DEBUG", None),
            ("google_adk.models", f"{ADK}/models.py", logging.INFO),
            False,
        ),
        (("DEBUG", None), ("litellm", "/x/site-packages/litellm/main.py", logging.INFO), False),
        (("DEBUG", None), ("asyncio", asyncio.__file__, logging.DEBUG), False),
        (("INFO", None), ("litellm", "/x/site-packages/litellm/main.py", logging.WARNING), True),
        (("INFO", None), ("lapse.changes", "/x/site-packages/lapse/logs.py", logging.INFO), True),
        (("INFO", "DEBUG"), ("google_adk.models", f"{ADK}/models.py", logging.DEBUG), True),
        (("INFO", "DEBUG"), ("shop.agent", "/srv/agents/shop/agent.py", logging.DEBUG), False),
        (
            ("INFO", "ERROR"),
            ("litellm", "/x/site-packages/litellm/main.py", logging.WARNING),
            False,
        ),
        (("ERROR", "INFO"), ("litellm", "/x/site-packages/litellm/main.py", logging.INFO), True),
        (
            ("WARNING", None),
            ("lapse.changes", "/x/site-packages/lapse/logs.py", logging.INFO),
            False,
        ),
    ],
)
def test_own_code_is_logged_from_the_level_on_and_packages_from_theirs_or_warning_on(
    capsys, restored_logging, levels, record, is_shown
):
    """Seen to fail without the filter, with the level WARNING for all but Lapse, and with one level
    for both.
    """
    (level, packages), (name, place, said) = levels, record
    configure_logging(LogOptions(level=LogLevel(level), packages=packages and LogLevel(packages)))
    logger = logging.getLogger(name)
    if logger.isEnabledFor(said):
        logger.handle(logger.makeRecord(name, said, place, 1, "a line", (), None))
    assert ("a line" in capsys.readouterr().err) == is_shown


@pytest.mark.parametrize("style", LogFormat)
def test_each_line_of_a_worker_has_its_number(style, capfd):
    """Seen to fail with a formatter that forgets it."""
    with logging_restored():
        configure_logging(LogOptions(style), worker=3)
        logging.getLogger("lapse.some").warning("said", extra={"app": "shop"})
        logging.getLogger("uvicorn.error").error("told")
    said, told = capfd.readouterr().err.splitlines()
    for line in (said, told):
        assert (json.loads(line)["worker"] == 3) if style is LogFormat.JSON else "worker=3" in line
