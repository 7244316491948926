"""Runs that fail: the process dies, or the agent raises, never ends or ignores cancellation."""

import signal

import pytest

from run_reading import (
    AGENTS,
    begin,
    expected_steps,
    new_session_id,
    path,
    post,
    read,
    reading,
    status,
    steps_of,
)
from serving import eventually, serving

pytestmark = pytest.mark.long


def says_again(server, session):
    """Return whether the session takes the next message and answers it."""
    begin(server, session, "walk 2", ifBusy="queue")
    return steps_of(read(server, session)) == expected_steps(2)


def outcome(gate):
    """Return what became of a job's word."""
    written = gate.with_name(f"{gate.name}.outcome")
    return eventually(lambda: written.exists() and written.read_text())


def test_a_run_whose_process_died_is_interrupted_and_the_session_goes_on(
    start_replica, servers, tmp_path
):
    """Seen to fail when a stale run is not freed."""
    survivor, victim, session = servers[0], start_replica(), new_session_id()
    run_id = begin(victim, session, f"gated 3 {tmp_path}")
    (tmp_path / "1").touch()
    with reading(survivor, session) as events:
        first = next(events)
        assert first.text == "step 1"
        victim.kill()
        assert status(survivor, session, run_id) == "running"
        refused = post(survivor, session, "walk 1")
        assert (refused.status_code, refused.json()["runId"]) == (409, run_id)
        # Whoever reads is told, without asking again.
        (last,) = list(events)
    assert (last.kind, last.document["error_details"]["error_type"]) == (
        "error",
        "RunInterruptedError",
    )
    assert status(survivor, session, run_id) == "interrupted"
    assert steps_of(read(survivor, session, run_id=run_id)) == expected_steps(1)
    assert [event.kind for event in read(survivor, session, first.id)] == ["error"]
    assert says_again(survivor, session)
    assert survivor.lifecycle(session, "walker")["status"] == "used"


def test_an_agent_that_raises_ends_its_run_with_adks_error(servers):
    session = new_session_id()
    run_id = begin(servers[0], session, "fail")
    for server in servers:
        *_, last = events = read(server, session)
        assert steps_of(events) == expected_steps(1)
        assert last.kind == "error"
        assert last.document["error"] == "RuntimeError: the walker fell"
        assert last.document["error_details"]["error_type"] == "RuntimeError"
        assert status(server, session, run_id) == "failed"
    assert says_again(servers[1], session)


@pytest.mark.parametrize("order", ["never", "stubborn"])
def test_a_run_that_takes_too_long_is_ended(strict_server, order):
    """Seen to fail when an agent that will not end is waited for."""
    session = new_session_id()
    run_id = begin(strict_server, session, order)
    events = read(strict_server, session)
    assert steps_of(events) == expected_steps(1)
    assert events[-1].document["error_details"]["error_type"] == "RunTimedOutError"
    assert status(strict_server, session, run_id) == "timed_out"
    assert says_again(strict_server, session)


@pytest.mark.parametrize(("order", "ends"), [("walk 2", "done"), ("fail", "failed")])
def test_a_job_that_outlives_its_run_says_its_word(servers, tmp_path, order, ends):
    """Seen to fail with every append refused after the run's end, as before."""
    session, gate = new_session_id(), tmp_path / "gate"
    run_id = begin(servers[0], session, f"leave {gate} {order}")
    steps = steps_of(read(servers[0], session))
    assert status(servers[0], session, run_id) == ends
    gate.touch()
    assert outcome(gate) == "stored"
    stored = servers[1].client.get(servers[1].path(session, "walker")).json()["events"]
    assert stored[-1]["content"]["parts"] == [{"text": "the job is done"}]
    assert steps_of(read(servers[0], session)) == steps
    assert says_again(servers[1], session)


@pytest.mark.parametrize("order", ["never", "stubborn"])
def test_what_is_left_of_a_run_that_was_told_to_end_is_refused(servers, tmp_path, order):
    """Seen to fail with every append let through after the run's end."""
    session, gate = new_session_id(), tmp_path / "gate"
    run_id = begin(servers[0], session, f"leave {gate} {order}")
    with reading(servers[0], session) as events:
        assert next(events).text == "step 1"
        cancelled = servers[0].client.delete(f"{path(session)}/{run_id}")
        assert cancelled.json()["status"] == "cancelled"
    gate.touch()
    assert outcome(gate) == "ShuttingDownError"
    stored = servers[1].client.get(servers[1].path(session, "walker"))
    assert order in stored.text
    assert "the job is done" not in stored.text
    assert says_again(servers[1], session)


@pytest.mark.parametrize("where", ["same", "other"])
def test_a_cancelled_run_ends_for_every_reader_and_leaves_the_session_consistent(servers, where):
    """Seen to fail without the look at what the heartbeat brings back."""
    session = new_session_id()
    run_id = begin(servers[0], session, "never")
    with reading(servers[0], session) as events:
        assert next(events).text == "step 1"
        server = servers[0] if where == "same" else servers[1]
        answer = server.client.delete(f"{path(session)}/{run_id}")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        *_, last = events
    assert last.document["error_details"]["error_type"] == "RunCancelledError"
    assert server.client.delete(f"{path(session)}/{run_id}").json()["status"] == "cancelled"
    stored = server.client.get(server.path(session, "walker")).json()["events"]
    assert stored[0]["content"]["parts"] == [{"text": "never"}]
    assert says_again(servers[1], session)


def test_deleting_a_session_ends_its_run(servers, tmp_path):
    session = new_session_id()
    begin(servers[0], session, f"gated 2 {tmp_path}")
    with reading(servers[0], session) as events:
        assert next(events).text == "1a"
        servers[0].client.delete(servers[0].path(session, "walker"))
        assert servers[0].client.get(path(session)).status_code == 404
        *_, last = events
    assert last.kind == "error"
    assert says_again(servers[0], session)


def test_shutdown_lets_a_run_finish_and_cancels_what_does_not(start_replica, servers, tmp_path):
    """Seen to fail without the drain: readers are cut without a word, the record says nothing."""
    leaving = start_replica(LAPSE_RUN_GRACE_SECONDS="1")
    session, endless = new_session_id(), new_session_id()
    run_id = begin(leaving, session, f"gated 1 {tmp_path}")
    begin(leaving, endless, "never")
    with reading(leaving, session) as events, reading(leaving, endless) as others:
        assert next(events).text == "1a"
        assert next(others).text == "step 1"
        leaving.process.send_signal(signal.SIGTERM)
        (tmp_path / "1").touch()
        assert [event.kind for event in events] == ["message", "message", "done"]
        (last,) = others
        assert last.document["error"] == "RunCancelledError: the server shut down"
    leaving.process.wait(timeout=20)
    assert status(servers[0], session, run_id) == "done"
    assert (
        read(servers[0], endless)[-1].document["error_details"]["error_type"] == "RunCancelledError"
    )
    assert says_again(servers[0], endless)


def test_runs_are_counted_and_logged_without_their_content(tmp_path):
    with serving(tmp_path, str(AGENTS)) as server:
        session = "a-session-with-a-long-name"
        begin(server, session, "walk 2")
        events = read(server, session)
        read(server, session, events[0].id)
        begin(server, session, "fail")
        read(server, session)
        app = '{app="walker"}'
        assert server.metric(f"lapse_runs_started_total{app}") == 2
        assert server.metric('lapse_runs_ended_total{app="walker",outcome="done"}') == 1
        assert server.metric('lapse_runs_ended_total{app="walker",outcome="failed"}') == 1
        assert server.metric(f"lapse_run_duration_seconds_count{app}") == 2
        assert server.metric(f"lapse_run_resumes_total{app}") == 1
        eventually(lambda: server.metric("lapse_run_readers") == 0)
        assert server.metric("lapse_runs_in_flight") == 0
        for line in ("run started", "run ended", "run resumed", "outcome=failed"):
            assert line in server.log
        for secret in (session, "walker fell", "walk 2"):
            assert secret not in server.log
