"""Every route of the OpenAPI, asked for what it was not made for, never answers 5xx.

`make fuzz` asks far more.
"""

from __future__ import annotations

import pytest
from canaries import SETTINGS, bearer, message
from fuzz import fuzz, serving_agents

from serving import USER

pytestmark = pytest.mark.long


def test_no_route_answers_5xx(server):
    """Broken on purpose: without UnreadableBodyError and NoSuchAgentError, three of them fail."""
    done = fuzz(server, examples=1)
    assert "Tested: " in done.stdout
    assert done.returncode == 0, done.stdout[-6000:]
    # None of the names that it made up has become a folder.
    made = {path.name for path in (server.folder / "agents").iterdir()}
    assert made <= {"parrot", "__pycache__"}


def test_no_route_answers_5xx_to_an_operator_on_a_guarded_server(tmp_path):
    with serving_agents(tmp_path, **SETTINGS) as guarded:
        operator = f"Authorization: {bearer('operator')['Authorization']}"
        done = fuzz(guarded, operator, examples=1, paths="^/(apps(?!.*/events$)|run|lapse)")
        assert "Tested: " in done.stdout
        assert done.returncode == 0, done.stdout[-6000:]


FOUND = [
    ("POST", "/run", message("parrot", "s", "x", newMessage={"parts": [{"mediaProcessing": {}}]})),
    ("POST", f"/apps/parrot/users/{USER}/sessions", {"events": [{"interactionStatus": {}}]}),
    (
        "POST",
        f"/apps/parrot/users/{USER}/sessions/s/artifacts",
        {"filename": "x", "artifact": {"mediaProcessing": {}}},
    ),
    ("GET", "/dev/apps/0/graph", None),
    ("GET", "/dev/apps/__agent/graph?dark_mode=x", None),
    (
        "PUT",
        "/dev/apps/parrot/eval-sets/x/eval-cases/x",
        {
            "conversationScenario": {
                "userPersona": "x",
                "startingPrompt": "",
                "conversationPlan": "",
            }
        },
    ),
]


@pytest.mark.parametrize(("method", "path", "body"), FOUND)
def test_requests_that_the_fuzzer_once_found_answer_4xx(server, method, path, body):
    answer = server.client.request(method, path, json=body)
    assert 400 <= answer.status_code < 500
    assert answer.json()["detail"]


def test_an_agent_that_fails_is_still_a_500(server):
    # Alone: after such a fault uvicorn closes the connection.
    body = server.run_body(server.create(), "fail")
    assert server.client.post("/run", json=body, headers={"connection": "close"}).status_code == 500
