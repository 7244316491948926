"""What a request is answered that the server breaks off: it shuts down, or can open no file."""

import errno
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI, Request

from backends import T0, key
from lapse.core.errors import StoreUnavailableError
from lapse.runs.answers import _refusal
from lapse.runs.plain import PLAIN_RUN, PlainRun
from lapse.runs.store import RunRecord, RunStatus
from lapse.web.errors import install_faults
from run_reading import AGENTS as WALKERS
from serving import eventually, serving

RUN = {"appName": "walker", "userId": "ann", "sessionId": "s"}


def test_a_run_that_is_cut_off_when_the_server_shuts_down_is_told_to_have_its_message(tmp_path):
    """Seen to fail without `StoppedMiddleware`: uvicorn answers 500, and nobody knows."""
    with (
        serving(tmp_path, str(WALKERS), LAPSE_RUN_GRACE_SECONDS="0") as server,
        ThreadPoolExecutor() as pool,
    ):
        sessions = "/apps/walker/users/ann/sessions"
        server.client.post(sessions, json={"sessionId": "s"})
        said = {"role": "user", "parts": [{"text": f"gated 1 {tmp_path}"}]}
        going = pool.submit(
            httpx.post, f"{server.url}/run", json=RUN | {"newMessage": said}, timeout=30
        )
        eventually(lambda: server.client.get(f"{sessions}/s").json()["events"])
        server.process.send_signal(signal.SIGTERM)
        answer = going.result()
        server.process.wait(30)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json() == {
        "detail": "The request was broken off, because this server shuts down; your message is "
        "stored: read the session, and do not send the message again.",
        "stored": "yes",
    }


@pytest.fixture
async def client():
    app = FastAPI()
    install_faults(app)

    @app.api_route("/{number}", methods=["GET", "POST"])
    async def fail(number: int, request: Request) -> None:
        if "run" in request.headers:
            request.scope[PLAIN_RUN] = PlainRun()
        raise OSError(number, "no", "agent.py")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_without_a_file_to_open_a_request_is_answered_503(client, number):
    """Seen to fail without the handler: a first run imports a module, and is answered 500."""
    read, written = await client.get(f"/{number}"), await client.post(f"/{number}")
    keyed = await client.post(f"/{number}", headers={"Idempotency-Key": "k"})
    run = await client.post(f"/{number}", headers={"run": "begun"})
    answers = read, written, keyed, run
    assert [(one.status_code, one.headers["Retry-After"]) for one in answers] == [(503, "1")] * 4
    assert [one.json().get("stored") for one in answers] == [None, "unknown", "unknown", "no"]
    assert all("can open no more files" in one.json()["detail"] for one in answers)
    assert "the same Idempotency-Key" in keyed.json()["detail"]


async def test_another_error_of_the_system_is_a_fault(client):
    assert (await client.post(f"/{errno.ENOENT}")).status_code == 500


async def test_an_applications_own_handler_stays():
    app = FastAPI()

    async def own(_request, _error):
        return None

    app.add_exception_handler(OSError, own)
    install_faults(app)
    assert app.exception_handlers[OSError] is own


@pytest.mark.parametrize(
    ("number", "begins_again"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.ENOENT, False)]
)
def test_a_run_with_a_key_that_could_open_no_file_is_begun_again(number, begins_again):
    """Seen to fail where each OSError of a run is a fault of the agent."""
    record = RunRecord("r", key(), RunStatus.FAILED, T0, T0)
    fault = OSError(number, "no", "agent.py")
    details = {"error_type": "OSError", "error_message": str(fault)}
    error = {"error": str(fault), "error_details": details}
    if begins_again:
        with pytest.raises(StoreUnavailableError):
            _refusal(record, error)
    else:
        assert _refusal(record, error).status_code == 500
