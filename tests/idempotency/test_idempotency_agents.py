"""A message that is stored already is not stored again, however ADK's runner drives the agent."""

import pytest
from google.adk.agents.base_agent import BaseAgent
from google.adk.agents.llm_agent import LlmAgent
from google.adk.apps.app import App, ResumabilityConfig
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.genai import types

from faulty import walking
from run_agents.walker.agent import Walker

USER = "/apps/walker/users/ada/sessions"


class Scripted(BaseLlm):
    """Asks for an approval if a message says so; says what it got otherwise."""

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        last = llm_request.contents[-1].parts[-1]
        if last.text == "approve":
            part = types.Part(function_call=types.FunctionCall(name="ask", args={}))
        elif last.function_response is not None:
            part = types.Part(text=f"got {last.function_response.response['answer']}")
        else:
            part = types.Part(text=f"heard {last.text}")
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def ask() -> None:
    """Ask a person, who answers later."""


def llm_agent():
    return LlmAgent(
        name="walker", model=Scripted(model="scripted"), tools=[LongRunningFunctionTool(ask)]
    )


def resumable(agent: BaseAgent):
    return App(
        name="walker", root_agent=agent, resumability_config=ResumabilityConfig(is_resumable=True)
    )


AGENTS = {
    "base agent": lambda: {"app_name": "walker", "agent": Walker(name="walker")},
    "llm agent": lambda: {"app_name": "walker", "agent": llm_agent()},
    "resumable base agent": lambda: {"app": resumable(Walker(name="walker"))},
    "resumable llm agent": lambda: {"app": resumable(llm_agent())},
}


@pytest.fixture(params=AGENTS)
def server(request):
    def runner(service):
        return Runner(**AGENTS[request.param](), session_service=service)

    with walking(runner=runner) as served:
        yield served


def send(server, session, *parts, key="k-1", **more):
    body = {
        "appName": "walker",
        "userId": "ada",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": parts},
    }
    return server.client.post("/run", json=body | more, headers={"Idempotency-Key": key})


def told(server, session):
    """Return the author, the invocation and the parts of each event with content."""
    events = server.client.get(f"{USER}/{session}").json()["events"]
    return [
        (event["author"], event["invocationId"], event["content"]["parts"][0])
        for event in events
        if event.get("content")
    ]


def repeated(server, session, *parts, **more):
    """Send a message whose append is in doubt, and repeat it; return the answer's texts."""
    server.store.fail("append", done=True)
    assert send(server, session, *parts, **more).status_code == 503
    answer = send(server, session, *parts, **more)
    assert answer.status_code == 200, answer.text
    said = [event["content"]["parts"][0] for event in answer.json() if "content" in event]
    return [part.get("text") for part in said]


def test_a_stored_message_is_answered_in_its_own_invocation(server):
    """Seen to fail with a repeat that names no invocation, and with ids made for each request."""
    session = server.client.post(USER, json={}).json()["id"]
    first = repeated(server, session, {"text": "hello"}, stateDelta={"n": 1})
    assert len(first) == 1
    authors, invocations, _ = zip(*told(server, session), strict=True)
    assert authors == ("user", "walker")
    assert len({*invocations}) == 1
    assert server.client.get(f"{USER}/{session}").json()["state"]["n"] == 1
    second = repeated(server, session, {"text": "again"}, key="k-2")
    assert len(second) == 1
    authors, invocations, _ = zip(*told(server, session), strict=True)
    assert authors == ("user", "walker", "user", "walker")
    assert len({*invocations}) == 2


@pytest.mark.parametrize("server", [name for name in AGENTS if "llm" in name], indirect=True)
def test_a_stored_answer_to_a_tool_is_given_once(server):
    """It joins the invocation of the call, which ADK finds by the call's id."""
    session = server.client.post(USER, json={}).json()["id"]
    assert send(server, session, {"text": "approve"}).status_code == 200
    call = (
        told(server, session)[-1][2].get("functionCall")
        or told(server, session)[1][2]["functionCall"]
    )
    response = {"id": call["id"], "name": "ask", "response": {"answer": "yes"}}
    said = repeated(server, session, {"functionResponse": response}, key="k-2")
    assert said == ["got yes"]
    answers = [
        part
        for author, _, part in told(server, session)
        if author == "user" and "functionResponse" in part
    ]
    assert len(answers) == 1
