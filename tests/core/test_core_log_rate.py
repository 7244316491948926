"""Lines that strangers can cause: ten of a text, and how many more there were."""

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


def test_one_text_does_not_crowd_out_another_and_errors_pass(log, clock):
    for number in range(5):
        log.info("one %s", number)
        log.warning("other %s", number)
        log.error("failed %s", number)
    texts = [line.split()[0] for line in log.lines]
    assert [texts.count(text) for text in ("one", "other", "failed")] == [3, 3, 5]
