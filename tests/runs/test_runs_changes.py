"""A change of state by request never costs a run its answer."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from lapse import Lapse, Settings
from lapse.core.errors import RunInFlightError
from lapse.core.keys import SessionKey
from run_reading import AGENTS, path, read, steps_of
from served import Served
from serving import eventually

KEY = SessionKey("walker", "ada", "s")


@pytest.fixture
def served(tmp_path):
    """Two applications on one store, as two processes are."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Served(
                    Lapse(settings=Settings(store_url=f"sqlite:///{tmp_path}/lapse.db")).app(
                        AGENTS, port=0
                    )
                )
            )
            for _ in range(2)
        ]


def place(session):
    return path(session).removesuffix("/run")


def patch(server, session, value):
    return server.client.patch(place(session), json={"stateDelta": {"draft": value}})


@pytest.mark.parametrize("named", ["s", "s%20"])
def test_a_patch_while_a_detached_run_is_in_flight_gets_409_in_every_process(
    served, tmp_path, named
):
    """Seen to fail without `StateChanges`: 200, and the run ends with StaleSessionError.

    Also seen to fail with the session looked for by its id as it was sent, with white space.
    """
    here, there = served
    told = here.client.post(path("s"), json={"message": f"gated 2 {tmp_path}"}).json()
    for server in (here, there):
        answer = patch(server, named, "x")
        assert answer.status_code == 409
        if server is there:
            assert answer.json()["runId"] == told["runId"]
    for step in (1, 2):
        (tmp_path / str(step)).touch()
    assert steps_of(read(here, "s")) == ["step 1", "step 2"]
    for server in (here, there):
        assert patch(server, "s", "x").json()["state"]["draft"] == "x"


@pytest.mark.parametrize(
    ("route", "session_id"), [("/run", "s"), ("/run_sse", "s"), ("/run", " s ")]
)
def test_a_patch_while_a_plain_run_is_in_flight_gets_409(served, tmp_path, route, session_id):
    """Seen to fail with `has_run` made to say False: the answer is lost.

    Also seen to fail with runs noted by the id as it was sent, with white space.
    """
    server, _ = served
    assert server.client.post(path("s"), json={"message": "walk 1"}).status_code == 200
    read(server, "s")
    message = {"role": "user", "parts": [{"text": f"gated 1 {tmp_path}"}]}
    body = {"appName": "walker", "userId": "ada", "sessionId": session_id, "newMessage": message}

    async def both():
        import httpx

        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as client:
            running = asyncio.ensure_future(client.post(route, json=body))
            holds = server.app.state.lapse.sessions.holds
            while not holds.has_run(KEY):  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.01)
            refused = await client.patch(place("s"), json={"stateDelta": {"draft": "x"}})
            (tmp_path / "1").touch()
            return refused, await running

    refused, answer = asyncio.run(both())
    assert (refused.status_code, refused.json()["runId"]) == (409, None)
    assert "step 1" in answer.text
    eventually(lambda: patch(server, "s", "x").status_code == 200)


async def test_a_run_waits_for_a_change_in_hand_and_a_later_change_is_refused(tmp_path):
    """Seen to fail without `ended`, and with the look at runs before the change is noted."""
    lapse = Lapse(settings=Settings(store_url=f"sqlite:///{tmp_path}/lapse.db"))
    runs = lapse.app(AGENTS, port=0).state.lapse_runs
    steps = []

    async def run():
        with runs.plain.run(KEY, "run"):
            await runs.changes.ended(KEY)
            steps.append("the run begins")
            await asyncio.sleep(0)
            with pytest.raises(RunInFlightError):
                async with runs.changes.changing(KEY):
                    steps.append("never")

    async with lapse:
        async with runs.changes.changing(KEY):
            running = asyncio.ensure_future(run())
            await asyncio.sleep(0.05)
            steps.append("the change ends")
        await running
        async with runs.changes.changing(KEY):
            steps.append("the next change")
    assert steps == ["the change ends", "the run begins", "the next change"]


def test_the_answer_to_a_message_names_the_invocation(served):
    """Seen to fail without `Run.invocation_id`: the field is missing."""
    server, _ = served
    told = server.client.post(path("s"), json={"message": "walk 1"}).json()
    read(server, "s")
    events = server.client.get(place("s")).json()["events"]
    assert {event["invocationId"] for event in events} == {told["invocationId"]}
