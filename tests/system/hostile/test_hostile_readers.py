"""Readers that read nothing: they are let go, with all that they held."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from serving import USER, eventually, serving
from wire import Mute, Wire, answer_to, frame, request, upgrade

MIB = 1024 * 1024
AGENTS = Path(__file__).parents[2] / "support" / "run_agents"
BOUNDS = {
    "LAPSE_MAX_CONNECTIONS": "50",
    "LAPSE_WRITE_SECONDS": "1",
    "LAPSE_HEARTBEAT_SECONDS": "0.2",
    "LAPSE_STREAMS_PER_USER": "100",
    "LAPSE_STREAMS_PER_SESSION": "100",
    "LAPSE_RUNS_PER_USER": "100",
}
PAGE = request("GET", "/lapse/client.js")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of few connections, which is soon out of patience."""
    folder = tmp_path_factory.mktemp("readers")
    agents = folder / "agents"
    agents.mkdir()
    for agent in (AGENTS / "walker", AGENTS.with_name("agents") / "parrot"):
        (agents / agent.name).symlink_to(agent)
    with serving(folder, str(agents), **BOUNDS) as running:
        yield running


def files(server):
    return len([*Path(f"/proc/{server.process.pid}/fd").iterdir()])


def resident(server):
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Base:
    """What a server holds when nobody asks for anything."""

    def __init__(self, server):
        self.server = server
        server.client.get("/livez")
        self.files = files(server)
        self.resident = resident(server)

    def is_back(self, slack=0):
        return files(self.server) <= self.files + slack


def large_session(server, size=2 * MIB):
    """Return the path of a session that is so large."""
    session_id = server.create()
    answer = server.run(session_id, "x" * (size // 2))
    assert answer.status_code == 200, answer.text[:200]
    return server.path(session_id)


def unread_answers(server, stack, count):
    path = large_session(server)
    return [stack.enter_context(Mute(server, request("GET", path))) for _ in range(count)]


def unread_notices(server, stack, count):
    session_id = server.create()
    events = request("GET", server.path(session_id) + "/lifecycle/events")
    made = [stack.enter_context(Mute(server, events)) for _ in range(count)]
    eventually(lambda: server.metric("lapse_streams_open") == count)
    # It has taken everything so far; 16 KiB for each change are soon more than sockets hold.
    note = {"metadata": {"note": "x" * 16_000}}
    path = server.path(session_id) + "/lifecycle"
    assert server.client.patch(path, json=note).status_code == 200

    def are_let_go():
        body = {"ttlMinutes": 30}
        assert server.client.patch(path, json=body).status_code == 200
        return server.metric("lapse_streams_open") == 0

    eventually(are_let_go)
    return made


def unread_runs(server, stack, count):
    path = server.path("unread-run", app="walker") + "/run"
    flood = {"message": "flood 200 20000"}
    run_id = server.client.post(path, json=flood).json()["runId"]
    follow = request("GET", f"{path}?runId={run_id}")
    made = [stack.enter_context(Mute(server, follow)) for _ in range(count)]
    eventually(lambda: server.metric("lapse_run_readers") > 0)
    return made


def unread_sockets(server, stack, count):
    made = []
    say = frame(json.dumps({"content": {"parts": [{"text": "x" * 200_000}]}}))
    for _ in range(count):
        query = f"app_name=parrot&user_id={USER}&session_id={server.create()}&modalities=TEXT"
        one = stack.enter_context(Mute(server, upgrade(f"/run_live?{query}")))
        assert one.socket.recv(12) == b"HTTP/1.1 101"
        made.append(one)
        for _ in range(10):
            if not one.send(say):
                break
    return made


@pytest.mark.parametrize(
    "attack",
    [unread_answers, unread_notices, unread_runs, unread_sockets],
    ids=lambda a: a.__name__,
)
def test_who_reads_nothing_is_let_go_with_all_that_it_held(server, attack):
    """Seen to fail with `close` for `abort`: the files stay open for as long as the clients live.

    The first round is for what a server keeps once it has done something for the first time.
    """
    with contextlib.ExitStack() as stack:
        for one in attack(server, stack, 4):
            eventually(one.was_reset)
    base = Base(server)
    with contextlib.ExitStack() as stack:
        for one in attack(server, stack, 10):
            eventually(one.was_reset)
        eventually(base.is_back)
    assert server.metric("lapse_streams_open") == 0
    eventually(lambda: server.metric("lapse_run_readers") == 0)
    eventually(lambda: resident(server) < base.resident + 48 * MIB)


def test_fifty_sockets_that_read_nothing_shut_nobody_out(tmp_path):
    """Seen to fail where room is made of idle connections alone: everybody gets 503."""
    patient = BOUNDS | {"LAPSE_WRITE_SECONDS": "600"}
    with serving(tmp_path, **patient) as server, contextlib.ExitStack() as stack:
        base = Base(server)
        mute = [stack.enter_context(Mute(server)) for _ in range(50)]
        for one in mute:
            # As much as the server takes: it reads no more while answers wait.
            one.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.socket.sendall(PAGE * 600)

        def is_answered():
            return answer_to(server, request("GET", "/livez")).status == 200

        # While the server answers one of them it is not stuck yet, and those may be all.
        eventually(is_answered)
        with contextlib.ExitStack() as others:
            for _ in range(20):
                other = others.enter_context(Wire(server))
                other.send(request("GET", "/livez"))
                assert other.answer().status == 200
        assert files(server) < base.files + 50
        assert not all(one.was_reset() for one in mute)
