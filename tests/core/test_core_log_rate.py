"""Lines that strangers can cause: ten of a text, and how many more there were."""

import importlib
import logging
from datetime import timedelta

import pytest

from lapse.core.log_rate import LogRateLimit


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lapse.core.log_rate.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def log():
    logger = logging.getLogger("tests.strangers")
    logger.setLevel(logging.INFO)
    rate = LogRateLimit(3, timedelta(seconds=10))
    logger.addFilter(rate)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    logger.lines = lines
    yield logger
    logger.removeFilter(rate)
    logger.removeHandler(handler)


def test_a_flood_leaves_a_few_lines_and_how_many_more_there_were(log, clock):
    """Seen to fail where each line passes."""
    for number in range(100):
        log.info("refused: %s", number)
    assert log.lines == ["refused: 0", "refused: 1", "refused: 2"]
    clock[0] = 10.0
    log.info("refused: %s", 100)
    log.info("refused: %s", 101)
    assert log.lines[3:] == ["refused: 100 (97 more were not written)", "refused: 101"]
    clock[0] = 20.0
    log.info("refused: %s", 102)
    assert log.lines[-1] == "refused: 102"


def test_a_window_with_no_line_too_many_tells_of_none_and_ends_in_time(log, clock):
    clock[0] = 100.0
    for number in range(3):
        log.info("refused: %s", number)
    clock[0] = 109.9
    log.info("refused: %s", 3)
    clock[0] = 200.0
    log.info("refused: %s", 4)
    for number in (5, 6):
        log.info("refused: %s", number)
    clock[0] = 210.0
    log.info("refused: %s", 7)
    assert log.lines[3:] == [
        "refused: 4 (1 more were not written)",
        *(f"refused: {number}" for number in (5, 6, 7)),
    ]


def test_one_text_does_not_crowd_out_another_and_errors_pass(log, clock):
    """Seen to fail with one window for all texts, and with errors that are counted, too."""
    for number in range(5):
        log.info("one %s", number)
        log.warning("other %s", number)
        log.error("failed %s", number)
    texts = [line.split()[0] for line in log.lines]
    assert [texts.count(text) for text in ("one", "other", "failed")] == [3, 3, 5]


@pytest.mark.parametrize(
    "module",
    [
        "lapse.auth.tokens",
        "lapse.dashboard.login",
        "lapse.limits.unread",
        "lapse.adk.unstorable",
        "lapse.adk.creation",
        "lapse.store.postgres.connections",
        "uvicorn.error",
    ],
)
def test_whoever_logs_what_strangers_cause_is_limited(module):
    """Seen to fail without `addFilter` in `tokens.py`, and in `bounded`."""
    from lapse.limits.protocol import bounded

    bounded()
    if module.startswith("lapse."):
        importlib.import_module(module)
    assert any(isinstance(one, LogRateLimit) for one in logging.getLogger(module).filters)
